"""A job run here and now, as one of the workspace that `mlops ui` shows.

A run of `dagster job execute` belongs to no code location, so that Dagster's first page and its Jobs don't show it.
This does the same in the same time, and says which location the run is of.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget

from mlops_dagster.errors import MlopsError, ParameterError

MODULE = "mlops_dagster.definitions"


def execute(home: Path, job: str, partition: str | None, config: Mapping[str, Any]) -> dg.DagsterRun:
    """Run a job for a partition in this process, and return the run as it has ended.

    Parameters
    ----------
    home : pathlib.Path
        Dagster's, as `mlops init` made it.
    job : str
        What to run.
    partition : str or None
        For which partition, if the job has any.
    config : mapping
        Run config, as the launchpad takes it.
    """
    repository = ReconstructableRepository(ModuleCodePointer(MODULE, "defs"), executable_path=sys.executable)
    definition = repository.get_definition()
    if not definition.has_job(job):
        jobs = sorted(name for name in definition.job_names if not name.startswith("__"))
        raise ParameterError(f"job={job!r}: there is no such job; there are {', '.join(jobs)}.")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        to_run = repository.get_reconstructable_job(job)
        _check_partition(to_run.get_definition().partitions_def, partition, instance)
        try:
            run = instance.create_run_for_job(
                to_run.get_definition(),
                run_config=config,
                tags={} if partition is None else {"dagster/partition": partition},
                remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(_location(home), definition.name), job),
                job_code_origin=to_run.get_python_origin(),
            )
        except dg.DagsterInvalidConfigError as error:
            raise ParameterError(f"config: {' '.join(one.message for one in error.errors)}") from None
        failures = [
            event.step_failure_data.error for event in execute_run(to_run, run, instance).get_step_failure_events()
        ]
        if any(error and error.cls_name == DagsterExecutionInterruptedError.__name__ for error in failures):
            raise KeyboardInterrupt
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        return ended


def _check_partition(known: Any, partition: str | None, instance: dg.DagsterInstance) -> None:
    there = known.get_partition_keys(dynamic_partitions_store=instance) if known else []
    if partition in there or (partition is None and not known):
        return
    cure = f"there are {', '.join(there)}." if there else "there are none yet." if known else "the job has none."
    if isinstance(known, dg.DynamicPartitionsDefinition):
        cure += " How to add one: docs/howto/add_a_symbol.md."
    raise ParameterError(f"partition={partition!r}: there is no such partition; {cure}")


def _location(home: Path) -> Any:
    file = home / "workspace.yaml"
    for origin in WorkspaceFileTarget([str(file)]).create_origins():
        target = getattr(origin, "loadable_target_origin", None)
        if target is not None and target.module_name == MODULE:
            return origin
    raise MlopsError(f"{file} names no code location of the module {MODULE}, so no page would show the run.")
