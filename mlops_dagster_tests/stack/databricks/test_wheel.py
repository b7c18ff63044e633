"""The wheel: exactly the package, the same bytes for the same code, and usable where nothing else of ours is."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from mlops_dagster.stack.databricks import wheel
from mlops_dagster.stack.databricks.wheel import build_wheel, code_version, package_files, requirements

ROOT = Path(__file__).parents[3]
JUNK = {
    ".env": "TOKEN=hidden",
    ".git/config": "[remote]",
    ".git/hooks/run.py": "hidden",
    ".venv/lib/other/__init__.py": "hidden",
    "data/.env": "hidden",
    "data/secret.json": "hidden",
    "modeling/test_of_mine.py": "hidden",
    "tests/__init__.py": "hidden",
    "tests/test_it.py": "hidden",
    "mlruns/0/meta.yaml": "hidden",
    "notes/draft.py": "hidden",
    "id_rsa": "hidden",
    "stack/.hidden.py": "hidden",
    "__pycache__/cli.cpython-311.pyc": "hidden",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def unpacked(wheel_file: Path, folder: Path) -> Path:
    """Return the package as it lies in site-packages when this wheel is installed there."""
    with zipfile.ZipFile(wheel_file) as archive:
        archive.extractall(folder)
    return folder / "mlops_dagster"


def test_it_is_what_setuptools_would_ship(built: Path) -> None:
    """Every file of the checkout that git knows or would know but its notes, the data as setup.cfg names them."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mlops_dagster"]
    known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    of_package = [name for name in known if (ROOT / name).is_file() and not name.endswith(".md")]
    ours = [name for name in names(built) if ".dist-info/" not in name]
    assert sorted(ours) == sorted(of_package)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options.package_data"]["mlops_dagster"].split() == list(wheel._DATA)


def test_its_name_is_its_content(built: Path) -> None:
    assert re.fullmatch(r"mlops_dagster-\d+\.\d+\.\d+\+[0-9a-f]{12}-py3-none-any\.whl", built.name)
    assert built.name == f"mlops_dagster-{code_version()}-py3-none-any.whl"


def test_the_same_code_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    assert build_wheel(tmp_path).read_bytes() == built.read_bytes()
    copied = unpacked(built, tmp_path / "copy")
    for file in copied.rglob("*"):
        os.utime(file, (1, 1))
    again = build_wheel(tmp_path / "again", copied)
    assert (again.name, again.read_bytes()) == (built.name, built.read_bytes())


def test_other_code_has_another_name(built: Path, tmp_path: Path) -> None:
    package = unpacked(built, tmp_path)
    (package / "errors.py").open("a").write("\n# changed\n")
    assert build_wheel(tmp_path, package).name != built.name


def test_nothing_else_that_lies_in_the_folder_goes_with_it(built: Path, tmp_path: Path) -> None:
    package = unpacked(built, tmp_path)
    for name, content in JUNK.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    dirty = build_wheel(tmp_path / "built", package)
    assert (dirty.name, dirty.read_bytes()) == (built.name, built.read_bytes())
    assert sorted(package_files(package)) == sorted(package_files())


def test_the_entry_points_are_those_of_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    assert dict(line.replace(" ", "").split("=") for line in lines) == dict(wheel.ENTRY_POINTS)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pip installs it, without network, into an empty folder."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", str(target)]
    subprocess.run([*pip, str(built)], check=True)
    return target


def isolated(folder: Path, code: str) -> str:
    """Run code in a Python that sees the folder and the standard library only."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


@pytest.mark.slow
def test_pip_installs_it_and_it_stands_alone(installed: Path) -> None:
    code = """
import importlib.metadata, mlops_dagster, mlops_dagster.spec.parameters, mlops_dagster.spec.grids
found = importlib.metadata.distribution("mlops_dagster")
commands = sorted(point.name for point in found.entry_points if point.group == "console_scripts")
print(mlops_dagster.__file__, found.version, found.requires, *commands)
"""
    said = isolated(installed, code).split()
    assert said == [f"{installed}/mlops_dagster/__init__.py", code_version(), "None", "mlops", "mlops-task"]
    assert isolated(installed, "from mlops_dagster.stack.databricks.wheel import code_version; print(code_version())")


@pytest.mark.slow
def test_from_an_installed_wheel_it_is_built_the_same(installed: Path, built: Path, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from mlops_dagster.stack.databricks.wheel import build_wheel
print(build_wheel(Path({str(tmp_path)!r})))
"""
    again = Path(isolated(installed, code).strip())
    assert (again.name, again.read_bytes()) == (built.name, built.read_bytes())


def test_pip_finds_nothing_wrong_with_its_record(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        listed = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
    assert listed == names(built)


def test_a_package_that_isnt_a_folder_is_refused(built: Path) -> None:
    with pytest.raises(wheel.WheelError, match="isn't a folder"):
        code_version(built / "mlops_dagster")


def test_requirements_are_those_of_the_steps_pinned() -> None:
    found = requirements("dagster-pipes")
    assert f"scipy=={version('scipy')}" in found  # of the search alone
    assert f"mlflow=={version('mlflow')}" in found  # of the extra `local`
    assert f"scikit-learn=={version('scikit-learn')}" in found
    assert f"pandera[pandas]=={version('pandera')}" in found
    assert f"dagster-pipes=={version('dagster-pipes')}" in found
    assert not [one for one in found if one.startswith(("pyspark", "dagster==", "yfinance", "pytest"))]
    assert len(found) == len(set(found))


def test_a_requirement_that_isnt_here_is_named() -> None:
    with pytest.raises(wheel.WheelError, match=r"no-such-thing isn't installed here.*pip install no-such-thing"):
        requirements("no-such-thing")
