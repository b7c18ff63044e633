"""The events that a step's own Dagster writes on the cluster, told to the Dagster that sent it."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.context.system import StepExecutionContext

from mlops_dagster.compute.failures import URL, to_failure
from mlops_dagster.compute.inputs import tags_of_inputs
from mlops_dagster.errors import MlopsError

# What says that a step is over, one way or the other.
LAST = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY}
# What says that something was made. From the first of these on, events wait for what Databricks says of the run.
MADE = LAST | {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.HANDLED_OUTPUT,
}
DAMAGED = (pickle.UnpicklingError, OSError, zlib.error, EOFError)


class StepEvents:
    """The events of a step there, as they arrive, told here.

    Parameters
    ----------
    read : callable
        Returns all events so far; takes the run's id, the step's key, and which attempt it is.
    """

    def __init__(
        self, step_context: StepExecutionContext, read: Callable[[str, str, int], Sequence[EventLogEntry]]
    ) -> None:
        self._context, self._read = step_context, read
        self._told = 0
        self._damage: Exception | None = None
        self.url = ""

    def forward(self) -> Sequence[EventLogEntry]:
        """Tell what is new, up to the first event that says that something was made; return the others."""
        try:
            found = self._read(self._context.run_id, self._context.step.key, self._context.previous_attempt_count)
            self._damage = None
        except DAMAGED as error:
            self._damage = error  # it may be half written; the end will tell
            return []
        for entry in found[self._told :]:
            if entry.dagster_event is not None and entry.dagster_event.event_type in MADE:
                break
            self._context.instance.handle_new_event(entry)
            self._told += 1
        return found[self._told :]

    def last(self) -> Iterator[DagsterEvent]:
        """Tell and yield the others, now that the Databricks run has succeeded.

        Raises
        ------
        dagster.Failure
            If they don't say how the step ended.
        """
        entries = self.forward()
        if not self._over(entries):
            damage = f" (the file of its events is damaged: {self._damage!r})" if self._damage else ""
            raise to_failure(
                MlopsError(
                    f"Databricks says that the run succeeded, but step {self._context.step.key} never said how it "
                    f"ended{damage}: its worker may have died. Its Databricks run tells more. Run it again."
                ),
                self.url,
            )
        yield from self._tell(entries)

    def failure(self) -> list[DagsterEvent]:
        """Tell and return the others if they say that the step failed, or is to be repeated."""
        entries = [entry for entry in self.forward() if self._over([entry]) is not DagsterEventType.STEP_SUCCESS]
        return list(self._tell(entries)) if self._over(entries) else []

    def _over(self, entries: Sequence[EventLogEntry]) -> DagsterEventType | None:
        for entry in entries:
            event = entry.dagster_event
            if event is not None and event.event_type in LAST and event.step_key == self._context.step.key:
                return event.event_type
        return None

    def _tell(self, entries: Sequence[EventLogEntry]) -> Iterator[DagsterEvent]:
        for entry in entries:
            event = self._as_seen_here(entry)
            self._context.instance.handle_new_event(event)
            if event.dagster_event is not None:
                yield event.dagster_event

    def _as_seen_here(self, entry: EventLogEntry) -> EventLogEntry:
        """Add the Databricks run's page, and what was read: the instance there knows of no event before the step's."""
        event = entry.dagster_event
        if event is None or not isinstance(event.event_specific_data, StepMaterializationData):
            return entry
        made = event.event_specific_data.materialization
        made = made.with_metadata({**made.metadata, URL: dg.MetadataValue.url(self.url)})
        made = made._replace(tags={**(made.tags or {}), **tags_of_inputs(self._context, made.asset_key)})
        data = event.event_specific_data._replace(materialization=made)
        return entry._replace(dagster_event=event._replace(event_specific_data=data))
