"""The steps of a model for one of many partitions: what is done for each, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.errors import MlopsError
from mlops_dagster.session import Session, on_spark
from mlops_dagster.spec import steps as names
from mlops_dagster.stack.mlflow_connection import TrackingServerNotFound
from mlops_dagster.steps.report_pieces import RemoteFailure, failure_message, failure_of

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.stack.tracking import Origin
    from mlops_dagster.steps import StepReport
    from mlops_dagster.steps.inputs import Pins
    from mlops_dagster.steps.questions import Finding


GivenByStep = Mapping[str, Mapping[str, Any]]
"""By the name of a step its parameters."""


class Task(NamedTuple):
    """A partition, which steps to run for it, and what was made for it before.

    The attempt is above 1 if the process that ran them has died: what it left in MLflow then counts as failed.
    """

    partition: str
    steps: tuple[str, ...]
    inputs: Pins = {}
    attempt: int = 1


@dataclass(frozen=True)
class Chain:
    """The steps of a model, one after the other, each on what those before it have made.

    Parameters
    ----------
    partitions : int
        Of how many partitions the run is: of more than a few fewer pictures are drawn.
    checked : bool
        Whether what a step has made is checked, too; nothing is made of what a blocking check refuses.
    """

    deployment: Deployment
    model: Declaration
    origin: Origin
    given: GivenByStep
    partitions: int
    checked: bool = False

    def session(self, **tools: Any) -> Session:
        """Open the tools."""
        plots = self.deployment.plots_of(self.partitions)
        return Session(self.deployment, self.model, self.origin, plots=plots, **tools)

    @property
    def travels(self) -> bool:
        """Whether another process can run it: it needs nothing that only this one has."""
        if self.deployment.tracking.client != "mlops":
            return False
        said = self.model.predictions
        if any(one and (one.asset or one.table) for one in (self.model.data, said and said.data)):
            return False
        if self.deployment.spark.partitions:
            return True
        return not any(on_spark(self.deployment, self.model, step, given) for step, given in self.given.items())

    def on_one_core(self) -> Chain:
        """Return the chain for an executor of Spark, which opens no Spark of its own."""
        spark = self.deployment.spark.model_copy(update={"search": False, "train": False, "partitions": False})
        deployment = self.deployment.model_copy(update={"spark": spark})
        search = {**self.given.get(names.GRID_SEARCH_RESULTS, {}), "engine": names.HERE}
        given = {step: search if step == names.GRID_SEARCH_RESULTS else one for step, one in self.given.items()}
        return replace(self, deployment=deployment, given=given)


@dataclass
class Outcome:
    """What came of a partition.

    Attributes
    ----------
    findings : dict
        By the name of a check what it found.
    step, failure
        The step that failed, and why.
    """

    partition: str
    reports: list[StepReport] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)
    step: str = ""
    failure: RemoteFailure | None = None

    def to_json(self) -> str:
        """Return all of it as JSON, so that it can travel."""
        said = {
            "partition": self.partition,
            "reports": [one.to_json() for one in self.reports],
            "findings": {name: asdict(one) for name, one in self.findings.items()},
            "step": self.step,
            "failure": self.failure and vars(self.failure) | {"message": str(self.failure)},
        }
        return json.dumps(said)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Return the outcome that :meth:`to_json` was called on."""
        from mlops_dagster.steps import StepReport
        from mlops_dagster.steps.questions import Finding

        said = json.loads(text)
        said["reports"] = [StepReport.from_json(one) for one in said["reports"]]
        said["findings"] = {name: Finding(**one) for name, one in said["findings"].items()}
        said["failure"] = said["failure"] and failure_of(said["failure"])
        return cls(**said)


def run_task(session: Session, chain: Chain, task: Task) -> Outcome:
    """Run a partition's steps in this process; what fails is part of the outcome."""
    from mlops_dagster.steps import Inputs
    from mlops_dagster.steps.checks import checks_of

    session.origin = replace(chain.origin, attempt=task.attempt)
    made, outcome, known = dict(task.inputs), Outcome(task.partition), names.steps_of(chain.model)
    for step in task.steps:
        outcome.step = step
        try:
            report = _run_step(session, step, task.partition, chain.given[step], made)
            made |= report.outputs
            outcome.reports.append(report)
            for check in checks_of(chain.model) if chain.checked else ():
                if check.step != step:
                    continue
                tables = Inputs(task.partition, session.store, made, known=known)
                found = outcome.findings[check.name] = check.answer(tables, session.tracker.registry)
                if check.blocking and found.good is False:
                    raise MlopsError(f"{check.name}: {found.said}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other partitions go on
            outcome.failure = failure_of(failure_message(error)["failure"])
            return outcome
    return outcome


def _run_step(
    session: Session, step: str, partition: str, given: Mapping[str, Any], made: dict[str, Any]
) -> StepReport:
    """Run a step; once more if the tracking server had gone away and is back, which shouldn't cost all that follow."""
    try:
        return session.run(step, partition, given, inputs=made)
    except TrackingServerNotFound:
        if not session.tracker.wait_for_server():
            raise
        session.origin = replace(session.origin, attempt=session.origin.attempt + 1)
        return session.run(step, partition, given, inputs=made)


_sessions: list[tuple[Chain, Session]] = []  # of the last chain only, as an executor keeps it


@dataclass(frozen=True)
class Unit:
    """A partition as a unit of work of an engine, see :class:`mlops_dagster.search.engine.Engine`."""

    task: Task

    def __str__(self) -> str:
        return f"partition {self.task.partition}"

    def run(self, chain: Chain) -> Iterator[Outcome]:
        """Run its steps, with tools that stay open for the next."""
        from threadpoolctl import threadpool_limits

        if not _sessions or _sessions[0][0] is not chain:
            _sessions[:] = [(chain, chain.session())]
        with threadpool_limits(1):
            yield run_task(_sessions[0][1], chain, self.task)


Receive = Callable[[Outcome], None]
