"""What a Databricks task of the step launcher runs, in place of dagster-databricks' own main file.

It compares versions before anything is loaded that they could break, says in words what stops it, and then hands over
to dagster-databricks' own. Standard library only: whether anything else is there is what it has to find out.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from importlib import metadata
from pathlib import Path

BY_MAJOR = {"numpy"}  # pickled arrays are the same within one major version


def differences(expected: dict[str, str]) -> list[str]:
    """Say in what this Python differs from the one that launched the step."""
    found = []
    for name, version in expected.items():
        try:
            there = "{}.{}".format(*sys.version_info) if name == "Python" else metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is missing on the cluster, and {version} where Dagster runs")
            continue
        differs = there.split(".")[0] != version.split(".")[0] if name in BY_MAJOR else there != version
        if differs:
            found.append(f"{name} is {there} on the cluster and {version} where Dagster runs")
    return found


class Refused(Exception):  # noqa: N818 - reads better where it is caught
    """The step can't run here; nothing was done."""


def hand_over(step_run_ref: str, config: str, code: str, expected: dict[str, str]) -> None:
    """Run the step as dagster-databricks does.

    Raises
    ------
    Refused
        If versions differ, or this isn't the kind of cluster that the step launcher needs.
    """
    if found := differences(expected):
        raise Refused(
            f"{'; '.join(found)}. Choose a Databricks Runtime with that Python (databricks.cluster.new.spark_version), "
            "let the run install the packages (databricks.install_requirements: true), or install the cluster's "
            "versions where Dagster runs."
        )
    try:
        given_sc, given_dbutils = sc, dbutils  # type: ignore[name-defined]
    except NameError as error:
        raise Refused(
            f"{error}: the step launcher needs a dedicated cluster (data_security_mode: SINGLE_USER). On shared "
            "clusters and serverless, use compute: databricks_pipes."
        ) from None
    from dagster_databricks import databricks_step_main

    if os.environ.get("DATABRICKS_TOKEN") == "":
        del os.environ["DATABRICKS_TOKEN"]  # dagster-databricks sets it, and nobody can sign in with it
    databricks_step_main.sc, databricks_step_main.dbutils = given_sc, given_dbutils  # type: ignore[attr-defined]
    databricks_step_main.main(step_run_ref, config, code)


def main(step_run_ref: str, config: str, code: str, notes: str) -> None:
    """Run the step, and leave a note about what stopped it where Dagster's own events don't say it.

    Parameters
    ----------
    step_run_ref, config, code : str
        Paths, as theirs.
    notes : str
        JSON: the versions that are expected, and where to write what stopped the step.
    """
    said = json.loads(notes)
    with contextlib.suppress(ValueError):  # not the main thread
        # A cancelled run gets a moment to say so, in MLflow for example.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        hand_over(step_run_ref, config, code, said["expected"])
    except BaseException as error:
        refused = isinstance(error, Refused)
        note = {
            "type": type(error).__name__,
            "message": str(error) or type(error).__name__,
            "traceback": "" if refused else traceback.format_exc(),
            "exit_status": 2 if refused else 1,
        }
        Path(said["failure"]).write_text(json.dumps(note), encoding="utf-8")
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
