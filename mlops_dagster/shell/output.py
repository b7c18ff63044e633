"""What all commands of the shell have in common: what they print and where, and how errors end them."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from mlops_dagster.errors import MlopsError, refuse
from mlops_dagster.stack.secrets import redacted

T = TypeVar("T")


class _Paper(Console):
    """Where sentences are wrapped between words on a terminal, and a line each in a file or a pipe."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print. Where a word is longer than a line, as a path may be, the terminal wraps, so that it can be copied."""
        if all(isinstance(one, str) for one in objects):
            longest = max((len(word) for one in objects for word in one.split()), default=0)
            options["soft_wrap"] = not self.is_terminal or longest > self.width
        super().print(*objects, **options)


# People read standard output, scripts read it with --json; progress goes to the other stream.
out = _Paper(highlight=False)
progress = _Paper(stderr=True, highlight=False)


AsJson = Annotated[bool, typer.Option("--json", help="Print the whole report as JSON, for scripts.")]
DeploymentName = Annotated[
    str | None,
    typer.Option(
        "--deployment",
        "-d",
        envvar="MLOPS_DEPLOYMENT",
        help="A name below deployments/, or the path of a YAML file.",
        show_default="local",
    ),
]


def url_of(host: str, port: int) -> str:
    """Return where a server answers; an IPv6 address stands in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def refuse_taken_port(name: str, host: str, number: int) -> None:
    """Refuse a port that somebody listens on already, or an address that isn't this machine's."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            raise refuse(name, number, f"can't be listened on at {host} ({error}); give another.") from None


def open_tracker(settings: Any, model: Any = None) -> Any:
    """Return our tracker, whichever Dagster uses; of a model, or of none in particular."""
    from mlops_dagster.stack.tracking import MlflowTracker

    return MlflowTracker(**settings.tracker_settings(model))


@contextmanager
def handle_errors(as_json: bool, stopped: str = "Stopped.") -> Iterator[None]:
    """Turn an expected error into its message and an exit status; an unexpected one keeps its traceback."""
    try:
        yield
    except MlopsError as error:
        if as_json:
            print_json(_as_json(error))
        else:
            _print_error(error)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        progress.print(stopped)
        raise typer.Exit(130) from None


def _as_json(error: MlopsError) -> dict[str, Any]:
    said = {"error": _kind(error), "message": redacted(str(error))}
    return {**said, "exit_status": error.exit_status}


def _print_error(error: MlopsError, symbol: str = "") -> None:
    progress.print(f"{escape(symbol)}[bold red]{_kind(error)}[/bold red]", escape(redacted(str(error))))


def _kind(error: MlopsError) -> str:
    return str(getattr(error, "type", type(error).__name__))  # what another process has said of it


class EachSymbol:
    """Work that is done for several symbols: what fails for one neither stops the others nor hides their results.

    Parameters
    ----------
    symbols : list of str
        Which. If it is one, its error is the command's.
    """

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = list(dict.fromkeys(symbols))
        self.failed: dict[str, MlopsError] = {}

    def do(self, work: Callable[[str], T]) -> dict[str, T]:
        """Return what the work makes of each symbol for which nothing has failed so far."""
        done = {}
        for one in self.symbols:
            if one in self.failed:
                continue
            try:
                done[one] = work(one)
            except MlopsError as error:
                if len(self.symbols) == 1:
                    raise
                progress.print(f"{escape(one)}  [bold red]failed[/bold red]; the others go on")
                self.failed[one] = error
        return done

    def say(self, as_json: bool, result: dict[str, Any], show: Callable[[], None]) -> None:
        """Print the results and then what failed; if something has, the command's exit status is 1."""
        if as_json:
            failed = {one: _as_json(error) for one, error in self.failed.items()}
            print_json({**result, "failed": failed} if failed else result)
        else:
            show()
            for one, error in self.failed.items():
                _print_error(error, f"{one}: ")
            if self.failed:
                progress.print(f"{len(self.failed)} of {len(self.symbols)} failed: {', '.join(self.failed)}.")
        if self.failed:
            raise typer.Exit(1)


def say_next(sentence: str) -> None:
    """Say what can be done next: to people, so only on a terminal."""
    if out.is_terminal:
        out.print(f"[dim]Next: {escape(sentence)}[/dim]")


def print_json(value: Any) -> None:
    """Print JSON values."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
