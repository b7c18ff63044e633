"""Airflow in its own environment, for tests and benchmarks: where it is, and what its commands need."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "airflow"
BIN = Path(os.environ.get("MLOPS_AIRFLOW_BIN", PROJECT / ".venv" / "bin"))
MLOPS = str(Path(sys.executable).parent / "mlops")
_PREPARE = "import sys, start; start.prepare(start.Path(sys.argv[1]), port=8080, command=sys.argv[2])"


def airflow_environment(home: Path) -> dict[str, str]:
    """Return what every command of an Airflow needs of its environment, whose state is in `home`."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(PROJECT), "PATH": path}


def commands_that_prepare(home: Path) -> list[list[str]]:
    """Return the commands that write an Airflow's configuration and make its database."""
    return [
        [str(BIN / "python"), "-c", _PREPARE, str(home), MLOPS],
        [str(BIN / "airflow"), "db", "migrate"],
    ]
