"""What a task's process is like: its environment, its code, its paths; and that nothing of it stays."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.workspace import Workspace, workspace
from mlops_dagster_tests.standin import processes
from mlops_dagster_tests.standin.submitting import CLUSTER, ENVIRONMENT, NEW, script_body, states, submit, wheel

pytestmark = pytest.mark.xdist_group("standin_tasks")
Body = Callable[..., dict[str, Any]]
needs_namespaces = pytest.mark.skipif(processes.unshare() is None, reason="this machine gives no namespaces")


def output(ws: Workspace, body: dict[str, Any]) -> Any:
    """Run a script that prints JSON, and return that."""
    run = ws.ended(submit(ws, body))
    assert states(run) == ("TERMINATED", "SUCCESS"), ws.stderr(run["run_id"])
    return json.loads(ws.stdout(run["run_id"]))


def test_the_environment_is_the_clusters_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLOPS_HOME", "DATABRICKS_TOKEN", "DAGSTER_HOME", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of the server")
    with workspace(tmp_path) as ws:
        ws.set_secret("scope", "key", "hidden value")
        given = {"PLAIN": "1", "SECRET": "{{secrets/scope/key}}", "PYTHONPATH": "/of/the/cluster"}
        script = "import json, os\nprint(json.dumps(dict(os.environ)))"
        seen = output(ws, script_body(ws, script, new_cluster={**NEW, "spark_env_vars": given}))
        assert (seen["PLAIN"], seen["SECRET"], seen["DATABRICKS_RUNTIME_VERSION"]) == ("1", "hidden value", "16.4")
        assert seen["PYTHONPATH"].endswith(":/of/the/cluster")
        assert seen["HOME"] != os.environ.get("HOME")
        expected = (
            "DATABRICKS_RUNTIME_VERSION DATABRICKS_STANDIN_TASK HOME LANG PATH PYSPARK_PYTHON PYTHONPATH "
            "PYTHONUNBUFFERED SPARK_LOCAL_IP TZ PLAIN SECRET"
        )
        assert set(seen) - {"PWD", "SHLVL", "_", "LC_CTYPE"} == set(expected.split())
        assert "of the server" not in seen.values()
        assert ((tmp_path / "secrets.json").stat().st_mode & 0o777) == 0o600
        assert ws.token not in (tmp_path / "requests.jsonl").read_text()


def test_a_secret_that_does_not_exist_stops_the_start(ws: Workspace, body: Body) -> None:
    given = {**NEW, "spark_env_vars": {"SECRET": "{{secrets/no/such}}"}}
    run = ws.ended(submit(ws, body("print(1)", new_cluster=given)))
    assert run["state"]["result_state"] == "FAILED"
    assert "Secret does not exist with scope: no and key: such" in run["state"]["state_message"]


def test_dbutils_gives_secrets(ws: Workspace, body: Body) -> None:
    ws.set_secret("s", "k", "v")
    script = """
        import json
        from databricks.sdk.runtime import dbutils as same
        assert same is dbutils
        try:
            dbutils.secrets.get("s", "none")
        except Exception as error:
            print(json.dumps([dbutils.secrets.get("s", "k"), same.secrets.getBytes("s", "k").decode(), str(error)]))
    """
    assert output(ws, body(textwrap.dedent(script))) == ["v", "v", "Secret does not exist with scope: s and key: none"]


IMPORTS = """
import importlib.metadata, json, subprocess, sys
sys.path.insert(0, sys.argv[1])
found = []
for name in ("mlops_dagster", "mlops_dagster_tests", "mlops_dagster.errors"):
    try:
        found.append(getattr(__import__(name), "WHERE", "the checkout"))
    except ModuleNotFoundError as error:
        found.append(error.name)
try:
    found.append(importlib.metadata.version("mlops_dagster"))
except importlib.metadata.PackageNotFoundError:
    found.append(None)
code = "import mlops_dagster; print(getattr(mlops_dagster, 'WHERE', 'the checkout'), end='')"
child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
found.append(child.stdout or child.stderr.splitlines()[-1].partition(" (")[0])
print(json.dumps(found))
"""
CHECKOUT = str(Path(__file__).parents[2])


def test_an_isolated_task_has_nothing_of_the_checkout(ws: Workspace, body: Body) -> None:
    missing = "ModuleNotFoundError: No module named 'mlops_dagster'"
    names = ["mlops_dagster", "mlops_dagster_tests", "mlops_dagster"]
    found = output(ws, body(IMPORTS, CHECKOUT))
    assert [found[0], found[1], found[3], found[4]] == [names[0], names[1], None, missing]
    assert found[2].startswith("mlops_dagster")


def test_an_isolated_task_has_what_was_uploaded(ws: Workspace, tmp_path: Path, body: Body) -> None:
    file = wheel(tmp_path, "mlops_dagster", "WHERE = 'the wheel'", version="7.0")
    ws.client().files.upload("/Volumes/a/b/wheels/" + file.name, io.BytesIO(file.read_bytes()), overwrite=True)
    libraries = [{"pypi": {"package": "dagster==1.0"}}, {"whl": "/Volumes/a/b/wheels/" + file.name}]
    found = output(ws, body(IMPORTS, CHECKOUT, libraries=libraries))
    assert [found[0], found[3], found[4]] == ["the wheel", "7.0", "the wheel"]
    # The step launcher's way: a zip that the task unpacks and puts on its path.
    script = "import os, site, tempfile\nfolder = tempfile.mkdtemp()\nos.mkdir(folder + '/mlops_dagster')\n"
    script += "open(folder + '/mlops_dagster/__init__.py', 'w').write('WHERE = 1')\nsite.addsitedir(folder)\n"
    assert output(ws, body(script + "import mlops_dagster\nprint(mlops_dagster.WHERE)")) == 1


@needs_namespaces
def test_an_isolated_task_has_a_disk_of_its_own(ws: Workspace, tmp_path: Path, body: Body) -> None:
    (tmp_path / "local").write_text("of this machine")
    script = (
        "import json, os, sys\nopen('/tmp/mine', 'w').write('x')\n"
        "there = sys.argv[2] + '/mlops_dagster'\n"  # below /tmp it isn't even a folder
        "print(json.dumps([os.path.exists(sys.argv[1]), os.listdir(there) if os.path.exists(there) else []]))"
    )
    assert output(ws, body(script, str(tmp_path / "local"), CHECKOUT)) == [False, []]
    assert not Path("/tmp/mine").exists()


def test_without_isolation_the_checkout_is_there(tmp_path: Path) -> None:
    with workspace(tmp_path, isolated=False) as ws:
        found = output(ws, script_body(ws, IMPORTS, CHECKOUT))
        assert [found[0], found[1]] == ["the checkout", "the checkout"]


ENTRY = """
import json, sys
def main():
    print(json.dumps(sys.argv))
def not_declared():
    print(json.dumps("called by its name"))
def fails():
    return 3
"""


@pytest.fixture(scope="module")
def uploaded(ws: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = wheel(
        tmp_path_factory.mktemp("wheel"), "some-package", ENTRY, "start = some_package:main\nbad = some_package:fails"
    )
    ws.client().files.upload(f"/Volumes/a/b/wheels/{file.name}", io.BytesIO(file.read_bytes()))
    ws.client().dbfs.upload(f"/wheels/{file.name}", io.BytesIO(file.read_bytes()))
    return file.name


def wheel_body(entry_point: str, library: str, **given: Any) -> dict[str, Any]:
    task = {"package_name": "some_package", "entry_point": entry_point, **given}
    where = {"existing_cluster_id": CLUSTER, "libraries": [{"whl": library}]}
    return {"tasks": [{"task_key": "w", "python_wheel_task": task, **where}]}


def test_a_wheel_task(ws: Workspace, uploaded: str) -> None:
    for library in (f"/Volumes/a/b/wheels/{uploaded}", f"dbfs:/wheels/{uploaded}"):
        assert output(ws, wheel_body("start", library, parameters=["a", "b"])) == ["start", "a", "b"]
    named = wheel_body("start", f"/Volumes/a/b/wheels/{uploaded}", named_parameters={"one": "1", "two": "a b"})
    assert output(ws, named) == ["start", "--one=1", "--two=a b"]
    assert output(ws, wheel_body("not_declared", f"/Volumes/a/b/wheels/{uploaded}")) == "called by its name"
    failed = ws.ended(submit(ws, wheel_body("bad", f"/Volumes/a/b/wheels/{uploaded}")))
    assert states(failed) == ("TERMINATED", "FAILED")


def test_a_wheel_on_serverless(ws: Workspace, uploaded: str) -> None:
    body = wheel_body("start", "")
    del body["tasks"][0]["libraries"], body["tasks"][0]["existing_cluster_id"]
    body["tasks"][0]["environment_key"] = "e"
    dependencies = ["dagster-pipes", f"/Volumes/a/b/wheels/{uploaded}"]
    body["environments"] = [
        {"environment_key": "e", "spec": {"environment_version": "3", "dependencies": dependencies}}
    ]
    assert output(ws, body) == ["start"]
    assert "cluster_instance" not in ws.runs()[-1]["tasks"][0]


def test_a_wheel_that_is_not_there_or_no_wheel(ws: Workspace, uploaded: str, body: Body) -> None:
    (ws.dbfs / "bad-1.0-py3-none-any.whl").write_bytes(b"no zip")
    for library, why in [
        ("/Volumes/a/b/wheels/none-1.0-py3-none-any.whl", "does not exist"),
        ("dbfs:/bad-1.0-py3-none-any.whl", "is not a zip file"),
    ]:
        run = ws.ended(submit(ws, wheel_body("start", library)))
        assert states(run) == ("INTERNAL_ERROR", "FAILED")
        assert "Library installation failed" in run["state"]["state_message"]
        assert why in run["state"]["state_message"]
    without = wheel_body("start", f"/Volumes/a/b/wheels/{uploaded}")
    del without["tasks"][0]["libraries"]
    run = ws.ended(submit(ws, without))
    assert "could not be found" in ws.client().jobs.get_run_output(run["run_id"]).error


PATHS = """
import io, json, os, pathlib, shutil
os.makedirs("/Volumes/a/b/c", exist_ok=True)
pathlib.Path("/Volumes/a/b/c/one.txt").write_text("1")
os.replace("/Volumes/a/b/c/one.txt", "/Volumes/a/b/c/two.txt")
with open("/dbfs//staging.txt", "w") as file:
    file.write("2")
shutil.copy("/dbfs/staging.txt", "/Volumes/a/b/c/three.txt")
there = sorted(os.listdir("/Volumes/a/b/c"))
print(json.dumps([os.path.exists("/Volumes/a/b/c/one.txt"), there, os.path.isdir("/dbfs")]))
"""


@pytest.mark.parametrize("mapping", [pytest.param("namespace", marks=needs_namespaces), "patch"])
def test_paths(tmp_path: Path, mapping: str) -> None:
    with workspace(tmp_path, map=mapping) as ws:
        assert f"mapping {mapping}" in (tmp_path / "server.log").read_text()
        assert output(ws, script_body(ws, PATHS)) == [False, ["three.txt", "two.txt"], True]
        assert (ws.volumes / "a/b/c/two.txt").read_text() == "1"
        assert (ws.dbfs / "staging.txt").read_text() == "2"
        found = output(ws, script_body(ws, IMPORTS, CHECKOUT))
        assert (found[0], found[3]) == ("mlops_dagster", None)


@needs_namespaces
def test_a_library_in_rust_writes_to_a_volume(ws: Workspace, body: Body) -> None:
    script = """
        import json, deltalake, pandas
        deltalake.write_deltalake("/Volumes/main/default/tables/t", pandas.DataFrame({"a": [1, 2, 3]}))
        print(json.dumps(len(deltalake.DeltaTable("/Volumes/main/default/tables/t").to_pandas())))
    """
    assert output(ws, body(textwrap.dedent(script))) == 3
    assert list((ws.volumes / "main/default/tables/t").glob("*.parquet"))


@needs_namespaces
def test_which_compute_has_which_paths(ws: Workspace, tmp_path: Path, body: Body) -> None:
    script = "import json, os\nprint(json.dumps([os.path.exists('/dbfs'), os.path.exists('/Volumes')]))"
    (ws.volumes / "look.py").write_text(script)
    serverless = body(script, environment_key="e", run={"environments": [ENVIRONMENT]})
    assert "Cannot read the python file dbfs:" in ws.ended(submit(ws, serverless))["state"]["state_message"]
    serverless["tasks"][0]["spark_python_task"]["python_file"] = "/Volumes/look.py"
    assert output(ws, serverless) == [False, True]
    assert output(ws, body(script, new_cluster={**NEW, "data_security_mode": "NONE"})) == [True, False]
    with workspace(tmp_path, no_dbfs=True) as without:
        (without.volumes / "look.py").write_text(script)
        classic = script_body(without, script)
        classic["tasks"][0]["spark_python_task"]["python_file"] = "/Volumes/look.py"
        assert output(without, classic) == [False, True]


def test_a_server_that_ends_leaves_no_process(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:
        script = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        submit(ws, script_body(ws, script + "print('here', flush=True)\ntime.sleep(600)"))
        eventually(lambda: any("here" in ws.stdout(run["run_id"]) for run in ws.runs()))
        assert ws.live_processes()
    assert not ws.live_processes()


def test_a_server_that_is_killed_takes_its_tasks_along(tmp_path: Path) -> None:
    with workspace(tmp_path) as ws:
        run_id = submit(ws, script_body(ws, "import time\nprint('here', flush=True)\ntime.sleep(600)"))
        eventually(lambda: "here" in ws.stdout(run_id))
        os.kill(ws.process_id, signal.SIGKILL)
        eventually(lambda: not ws.live_processes(), seconds=30)


def test_the_command_says_what_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlops_dagster_tests.standin", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout
    assert "no proof of compatibility" in " ".join(said.split())
    with workspace(tmp_path):
        banner = (tmp_path / "server.log").read_text()
    for part in ("http://127.0.0.1:", str(tmp_path), "engine none", "isolated", "no proof of compatibility"):
        assert part in banner
