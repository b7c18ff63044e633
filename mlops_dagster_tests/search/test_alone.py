"""`pip install mlops_dagster` gives the search alone: in a fresh environment with its wheel and what that requires."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution, packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlops_dagster.errors import extra_of
from mlops_dagster_tests.contracts.documents import ROOT, blocks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("alone")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What setuptools makes of this checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mlops_dagster", source / "mlops_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory):
    """The commands' folder of an environment that has the wheel, what it requires, and what that requires."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    wanted, there = base(requires_of(wheel)), set()
    while wanted:
        name = wanted.pop()
        if name not in there:
            there.add(name)
            wanted |= base(distribution(name).requires or [])
            for top in {file.parts[0] for file in distribution(name).files} - {"..", "__pycache__"}:
                (site / top).symlink_to(distribution(name).locate_file(top))
    pip("--python", folder / "bin" / "python", "install", wheel)  # which refuses if a requirement isn't there
    return folder / "bin"


def pip(*arguments):
    settings = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], env=settings, check=True)


def requires_of(wheel):
    (found,) = Distribution.discover(path=[str(wheel)])
    return found.requires


def base(requires):
    """Return the names of what is required without any extra."""
    known = map(Requirement, requires)
    return {one.name for one in known if one.marker is None or one.marker.evaluate({"extra": ""})}


def run(*command):
    return subprocess.run(command, cwd="/", env={}, capture_output=True, text=True)


def test_the_example_of_its_page(wheel, alone, tmp_path):
    assert base(requires_of(wheel)) == {"joblib", "numpy", "scikit-learn", "scipy"}
    page = blocks(ROOT / "docs" / "exact_search.md")
    example = next(block.text for block in page if block.language == "python")
    (tmp_path / "example.py").write_text(example)
    ran = run(alone / "python", tmp_path / "example.py")
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"trees to grow +180 \(2\.0 times fewer\)", ran.stdout)


def test_the_command_says_in_one_sentence_how_to_get_the_rest(alone):
    for arguments in ([], ["--help"], ["build-model", "churn"]):
        ran = run(alone / "mlops", *arguments)
        said = "mlops needs typer (No module named 'typer'): pip install \"mlops_dagster[local]\"\n"
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", said)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("Session", "local"), ("SklearnModel", "dagster"), ("Dataset", "dagster"), ("model_definitions", "dagster")],
)
def test_what_is_missing_is_named_with_the_extra_that_has_it(alone, name, extra):
    ran = run(alone / "python", "-c", f"import mlops_dagster; from mlops_dagster import {name}")
    last = ran.stderr.splitlines()[-1]
    assert re.fullmatch(rf'ImportError: mlops_dagster.{name} needs .*: pip install "mlops_dagster\[{extra}\]"', last)


def test_every_extra_is_known_by_what_it_has(wheel):
    modules = packages_distributions()
    for one in map(Requirement, requires_of(wheel)):
        (extra,) = re.findall(r'extra == "(\w+)"', str(one.marker)) or [None]
        if extra in (None, "dev") or one.name == "mlops_dagster" or not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        known = {extra_of(module) for module, names in modules.items() if name in map(canonicalize_name, names)}
        assert known & {extra, "local"}, f"{one.name} of [{extra}] has {known}: name its module in errors.py"
