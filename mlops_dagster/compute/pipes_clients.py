"""dagster-databricks' Pipes clients, with what their own `run` lets slip.

Their own `run` swallows the interrupt that cancels a step, so that the asset counts as materialised; takes no
idempotency token; polls without a deadline; and leaves what it staged if its process dies. Only imported when a run
needs it, since dagster_databricks takes a second.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, open_pipes_session
from dagster._core.pipes.context import PipesMessageHandler
from dagster_databricks import PipesDatabricksClient
from dagster_databricks.pipes import (
    PipesDatabricksServerlessClient,
    PipesUnityCatalogVolumesContextInjector,
    PipesUnityCatalogVolumesMessageReader,
    delete_volume_directory_recursive,
)
from dagster_pipes import PipesContextData, PipesParams

from mlops_dagster.compute.submission import Log, StepRequest, Submitted, submitted

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from mlops_dagster.stack.databricks.settings import DatabricksSettings


class _ContextInFolder(PipesUnityCatalogVolumesContextInjector):
    """Writes the context into the step's own folder, which is removed as a whole."""

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        path = f"{self.volume_path}/context.json"
        self.files_client.upload(path, contents=io.BytesIO(json.dumps(context).encode()), overwrite=True)
        yield {"path": path}


class _MessagesInFolder(PipesUnityCatalogVolumesMessageReader):
    """Reads messages from the step's own folder, and none that has not arrived in full."""

    @contextmanager
    def get_params(self) -> Iterator[PipesParams]:
        path = f"{self.volume_path}/messages"
        self.files_client.create_directory(path)
        yield {"path": path, "include_stdio_in_messages": self.include_stdio_in_messages}

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        with ExitStack() as stack:
            # A task says that it is done before it sends the last of what it printed; theirs stops listening then.
            last_words = stack.enter_context(ExitStack())
            params = stack.enter_context(super().read_messages(handler))
            last_words.callback(self._print_the_rest, params)
            yield params

    def _print_the_rest(self, params: PipesParams) -> None:
        while chunk := self.download_messages_chunk(self.counter, params):
            self.counter += 1
            for message in map(json.loads, chunk.split("\n")):
                if message["method"] == "log_external_stream":
                    stream = sys.stdout if message["params"]["stream"] == "stdout" else sys.stderr
                    stream.write(message["params"]["text"])

    def download_messages_chunk(self, index: int, params: PipesParams) -> str | None:
        chunk = super().download_messages_chunk(index, params)
        try:
            # Theirs skips what isn't JSON, and never asks for the chunk again.
            json.loads((chunk or "").rsplit("\n", 1)[-1])
        except json.JSONDecodeError:
            return None
        return chunk


class _Client(PipesDatabricksClient):
    def __init__(self, client: WorkspaceClient, folder: str, poll: float) -> None:
        injector, reader = _injector(client, folder), _reader(client, folder, poll)
        super().__init__(client, context_injector=injector, message_reader=reader)


class _ServerlessClient(PipesDatabricksServerlessClient):
    def __init__(self, client: WorkspaceClient, folder: str, poll: float) -> None:
        injector, reader = _injector(client, folder), _reader(client, folder, poll)
        super().__init__(client, folder, context_injector=injector, message_reader=reader)


def _injector(client: WorkspaceClient, folder: str) -> _ContextInFolder:
    return _ContextInFolder(client=client, volume_path=folder)


def _reader(client: WorkspaceClient, folder: str, poll: float) -> _MessagesInFolder:
    return _MessagesInFolder(interval=min(poll, 10), client=client, volume_path=folder)


@contextmanager
def running(
    client: WorkspaceClient,
    settings: DatabricksSettings,
    context: AssetExecutionContext,
    request: StepRequest,
    task: Mapping[str, Any],
    *,
    folder: str,
    extras: dict[str, Any],
    messages: list[Any],
    **more: Any,
) -> Iterator[tuple[Submitted, Callable[[], Sequence[Any]]]]:
    """Submit a task that speaks Pipes; yield its run, and what returns the messages that have arrived.

    When this is left, all of them are in `messages`, however it went.

    Parameters
    ----------
    client, settings, request, task, **more
        As :func:`mlops_dagster.compute.submission.submitted` takes them.
    context : AssetExecutionContext
        The asset's: what the task logs and prints appears in its run.
    folder : str
        Where context and messages are, on a Unity Catalog volume.
    extras : dict
        What the task finds as extras of its context.
    messages : list
        Takes the task's own messages.
    """
    kind = _Client if settings.cluster.serverless is None else _ServerlessClient
    pipes_client = kind(client, folder, settings.poll_seconds)
    injector, reader = pipes_client.context_injector, pipes_client.message_reader
    assert injector is not None
    assert reader is not None
    session = None
    try:
        with open_pipes_session(context, injector, reader, extras) as session:
            full_task = pipes_client._enrich_submit_task_dict(context, session, dict(task))
            with submitted(client, settings, request, full_task, log=context.log.info, **more) as run:
                yield run, session.get_custom_messages
    finally:
        if session is not None:
            messages += session.get_custom_messages()


def remove(client: WorkspaceClient, folder: str, log: Log) -> None:
    """Remove a folder of a volume; one that isn't there is fine, and one that can't be removed is only said."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    try:
        delete_volume_directory_recursive(client.files, folder)
    except NotFound:
        pass
    except (DatabricksError, OSError) as error:
        log(f"{folder} couldn't be removed and stays: {error}")
