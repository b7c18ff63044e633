"""Whether the cluster has what this machine has: the same code of ours, and libraries that make the same model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.databricks.wheel import code_version
from mlops_dagster.stack.executor import differences, make_look


class VersionSkew(MlopsError):  # noqa: N818 - reads better where it is caught
    """The cluster's versions aren't this machine's; nothing was done. The message names each, and the cure."""

    exit_status = 2


def versions(*distributions: str, defs: Path | None = None) -> dict[str, str]:
    """Return the versions of this process: Python, numpy, scikit-learn, our own code, and of `distributions`.

    With our own code go the declared models in `defs`, see :func:`mlops_dagster.stack.databricks.wheel.code_version`.

    The step launcher needs "dagster" to be the same, too: it pickles Dagster's own objects.
    """
    found = {name: text for name, text in make_look()().items() if name not in ("host", "executable")}
    if not found["mlops_dagster"].startswith(("missing", "broken")):
        found["mlops_dagster"] = code_version(defs=defs)
    for distribution in distributions:
        if distribution not in found:
            try:
                found[distribution] = version(distribution)
            except PackageNotFoundError:
                found[distribution] = "missing"
    return found


def check_versions(expected: Mapping[str, str]) -> None:
    """Compare this process, on the cluster, with the machine that sent the step.

    Parameters
    ----------
    expected : mapping of str to str
        What :func:`versions` returned there.

    Raises
    ------
    VersionSkew
        If something differs by so much that the result might, too.
    """
    if found := differences(dict(expected), versions(*expected)):
        raise VersionSkew(
            f"the cluster isn't like the machine that sent the step: {'; '.join(found)}. Nothing was done. Choose a "
            "Databricks Runtime (or serverless environment) with the same Python, leave "
            "databricks.install_requirements on, and restart an existing cluster that has an older "
            "mlops_dagster, or older declarations."
        )
