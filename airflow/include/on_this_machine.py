"""A step as a process on this machine: the command `mlops` of an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, conf
from airflow.sdk.exceptions import AirflowException

from include.orders import MlflowLink, failure, hand_on, orders
from include.parameters import SECTION, refuse


class LocalStep(BaseOperator):
    """Runs one step by the command `mlops` of an environment of its own, without a shell in between.

    Parameters
    ----------
    pipeline, step
        What to run.
    """

    ui_color = "#e8f0e4"
    operator_extra_links = (MlflowLink(),)

    def __init__(self, *, pipeline: str, step: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.step = step
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the step; what it prints goes to the log as it comes.

        Raises
        ------
        AirflowFailException
            If a parameter or setting was refused.
        AirflowException
            If the work failed.
        """
        origin, command = orders(self.pipeline, self.step, context)
        line = [_program(), origin, *command]
        self.log.info("Running %s", line)
        with tempfile.TemporaryFile("w+") as output:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and each argument was checked
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=_project(),
                env=_environment(os.environ),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            assert self._process.stderr is not None
            with self._process.stderr as lines:
                for said in lines:
                    self.log.info("%s", said.rstrip())
            status = self._process.wait()
            output.seek(0)
            printed = output.read()
        if status:
            raise _failure(self.step, status, printed)
        return hand_on(json.loads(printed), context)

    def on_kill(self) -> None:
        """End the step and whatever it started; a polite end lets its MLflow run say KILLED."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.log.warning("Stopping %s", self.step)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.log.warning("It didn't stop; killing it")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _program() -> str:
    given = conf.get(SECTION, "command", fallback="mlops")
    found = shutil.which(given)
    if found is None:
        cure = "there is no such command; give the path of `mlops` in the environment of mlops_dagster."
        raise refuse("command", given, cure)
    return found


def _project() -> str | None:
    """Return where a step runs, as if somebody had typed the command there: the folder with the models of `defs`."""
    folder: str | None = conf.get(SECTION, "project", fallback="") or None
    if folder and not Path(folder).is_dir():
        raise refuse("project", folder, "there is no such folder; give the one that has the models' `defs`.")
    return folder


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without Airflow's own settings, connections and path, which are none of a step's."""
    return {name: value for name, value in ours.items() if not name.startswith(("AIRFLOW", "_AIRFLOW", "PYTHONPATH"))}


def _die_with_parent() -> None:
    """Let a killed worker take its step along, so that a second try isn't the first one's rival (Linux)."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _failure(step: str, status: int, printed: str) -> AirflowException:
    try:
        return failure(step, json.loads(printed))
    except (ValueError, KeyError, TypeError):
        pass
    if status < 0:
        killed = f"{step} was killed by {signal.Signals(-status).name}, and not by this task"
        if -status == signal.SIGKILL:
            killed += "; the kernel does that if the machine has no memory left, and its log (dmesg) says so then"
        return AirflowException(f"{killed}.")
    return AirflowException(f"{step} ended with status {status}; the lines above say why.")
