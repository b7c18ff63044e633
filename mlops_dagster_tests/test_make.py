"""The Makefiles in a folder whose path holds whatever a shell or make reads as its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ODD = """my 'first' "project" $ODD `true` [ü] #1 50% a=b;c & why?"""
# Stands where a command of an environment would, and says by whom and how it was called.
RECORDER = """#!/bin/sh
[ "$1" != init ] || mkdir -p "$MLOPS_HOME"
{ printf '%s|' "${0##*/}" "$@"; printf '%s|%s|%s\\n' "$MLOPS_HOME" "$DAGSTER_HOME" "$MLOPS_BIN"; } >> "$RECORD"
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose commands record how they are called, in a folder beside which a word of its path lies."""
    for name in ("MLOPS_HOME", "DAGSTER_HOME", "MLOPS_BIN", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    # A Makefile that splits or expands a path removes whatever its words name. So no `rm` of these tests removes
    # anything, and no variable that a path could name leads out of the test's own folder.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rm").write_text(RECORDER)
    (tmp_path / "bin" / "rm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path / "my"))
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "thesis.txt").write_text("precious")
    made = tmp_path / ODD / "mlops"
    for project, locks in ((made, ["requirements.lock", "setup.cfg"]), (made / "airflow", ["requirements.txt"])):
        (project / ".venv" / "bin").mkdir(parents=True)
        shutil.copy(ROOT / project.relative_to(made) / "Makefile", project)
        for lock in [*locks, "requirements-dev.txt", ".venv/.ready"]:
            (project / lock).touch()
        for command in ("mlops", "python", "ruff"):
            (project / ".venv" / "bin" / command).write_text(RECORDER)
            (project / ".venv" / "bin" / command).chmod(0o755)
    return made


def make(checkout, *arguments, **environment):
    """Run make; return what it printed, and the commands' calls: name, arguments, home, Dagster's home, `mlops`."""
    record = Path(os.environ["RECORD"])
    record.unlink(missing_ok=True)
    done = subprocess.run(
        ["make", *arguments], cwd=checkout, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    calls = record.read_text().splitlines() if record.exists() else []
    return done.stdout, [call.split("|") for call in calls]


def test_paths_are_handed_on_whole(checkout, tmp_path):
    home = str(checkout / ".mlops")
    ours = [home, f"{home}/dagster"]
    _, calls = make(checkout, "demo")
    assert all(call[-3:-1] == ours for call in calls)
    assert [call[1] for call in calls] == ["init", *["launch"] * 5, "report"]
    assert [call[call.index("-c") + 1] for call in calls if "-c" in call] == [f"{home}/demo-predict.yaml"] * 2
    assert Path(home, "demo-search_model_pipeline-GSPC.log").exists()

    _, [standin] = make(checkout, "databricks-standin", "STANDIN=--engine none")
    assert standin[1:7] == ["-m", "mlops_dagster_tests.standin", "--root", f"{home}/standin", "--engine", "none"]
    elsewhere = str(tmp_path / "a $b")
    _, [ui] = make(checkout, "ui", MLOPS_HOME=elsewhere)
    assert ui[:4] == ["mlops", "ui", elsewhere, f"{elsewhere}/dagster"]

    _, calls = make(checkout, "airflow", "airflow-test")
    assert [call[0] for call in calls] == ["python", "ruff", "ruff", "python"]
    assert all((call[-3], call[-1]) == (home, str(checkout / ".venv/bin/mlops")) for call in calls)
    _, calls = make(checkout / "airflow", "test")
    assert all((call[-3], call[-1]) == (home, str(checkout / ".venv/bin/mlops")) for call in calls)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bin", "my", ODD, "record"]


def test_clean_removes_what_was_made_here_by_names_below_this_folder(checkout, tmp_path):
    for home in (checkout / ".mlops", tmp_path / "my", checkout, checkout / "airflow"):
        home.mkdir(exist_ok=True)
        printed, [removal] = make(checkout, "clean", MLOPS_HOME=str(home), VENV=str(tmp_path / "my"))
        assert removal[:2] == ["rm", "-rf"]
        named = removal[2:-3]
        assert {".venv", "airflow/.venv", ".mlops"} <= set(named)
        assert not [
            name for name in named if name.startswith(("/", "~")) or ".." in name or name in ("", ".", "airflow")
        ]
        stays = home != checkout / ".mlops"
        assert (f"MLOPS_HOME stays: {home}" in printed.splitlines()) == stays


def test_a_folder_in_which_no_command_would_start_is_refused_before_anything_is_installed(checkout):
    shutil.rmtree(checkout / ".venv")
    done = subprocess.run(["make", "setup"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2
    why = """no command that pip installs would start here, since the path has '"' '$' '`' and a space; move the"""
    assert done.stderr.startswith(f"{checkout}: {why}")
    assert not (checkout / ".venv").exists()
