"""The web server of `mlops serve`: a champion's predictions by MLflow's protocol, and what it forecasts next.

The protocol is that of MLflow's scoring server: `/ping`, `/health`, `/version` and `/invocations`, with JSON in its
four forms or CSV. MLflow's own server turns a missing value, a short row or a text into a number, and answers errors
with stack traces; here a row is what the model has learned from, its numbers finite, or refused in one sentence.
"""

from __future__ import annotations

import asyncio
import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.shell.output import progress
from mlops_dagster.shell.scoring_rows import Kind, Unanswered, read_rows
from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    import pandas as pd
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlops_dagster.stack.registry import RegisteredVersion

MAX_BYTES = 8_000_000
_SECONDS = 60  # for a body to arrive


@dataclass(frozen=True)
class Served:
    """A champion that is served.

    Attributes
    ----------
    name : str
        What people call it.
    of : str
        Whose it is, in an address: the partition, or the model.
    intervals : bool
        Whether forecasts have an interval.
    kinds : mapping
        Of each column that it asks for what its values are.
    newest : callable
        Returns the newest row of features, as a table.
    says : str
        What it is asked, and what a prediction is.
    forecast : callable, optional
        From the share of truths that the interval is meant to hold, if one is asked for, to the next predictions.
    """

    name: str
    of: str
    model: Any
    champion: RegisteredVersion
    kinds: Mapping[str, Kind]
    newest: Callable[[], pd.DataFrame]
    says: str
    forecast: Callable[[float | None], list[dict[str, Any]]] | None = None
    intervals: bool = False

    def path(self) -> str:
        """Return where the next forecast is."""
        return f"/forecast/{quote(self.of)}"

    def predict(self, body: bytes, media_type: str) -> dict[str, Any]:
        """Answer a request to `/invocations`."""
        import pandas as pd

        frame = pd.DataFrame(read_rows(body, media_type, [*self.kinds], self.kinds), columns=[*self.kinds])
        as_trained = {"number": "float64", "boolean": "bool", "text": "object"}
        frame = frame.astype({name: as_trained[kind.type] for name, kind in self.kinds.items() if not kind.nullable})
        numbers = {name: "float64" for name, kind in self.kinds.items() if kind.nullable and kind.type == "number"}
        return {"predictions": self.model.predict(frame.astype(numbers).fillna(math.nan)).tolist()}

    def about(self, url: str) -> str:
        """Say for people what answers here, with examples that work."""
        try:
            row = json.loads(self.newest()[[*self.kinds]].tail(1).to_json(orient="split", double_precision=6))
            example = json.dumps({"dataframe_split": {"columns": row["columns"], "data": row["data"]}})
        except MlopsError as error:
            example = f"... ({type(error).__name__}: the newest rows can't be used; mlops report says why)"
        forecast = f"\nWhat it forecasts from the newest rows:\n\ncurl --silent '{url}{self.path()}'\n"
        if self.intervals:
            forecast += (
                f"curl --silent '{url}{self.path()}?interval=0.5'  # half of the truths are meant to lie in it\n"
            )
        return f"""{self.name}: the champion is version {self.champion.version}. {self.says}
{forecast if self.forecast else ""}
Predictions for rows of features, by MLflow's protocol (JSON or CSV):

curl --silent '{url}/invocations' --header 'Content-Type: application/json' --data {shlex.quote(example)}

Also: /ping and /health (is it up?), /version (MLflow's).
"""


def scoring_app(served: Served, listens_on: str) -> Starlette:
    """Return the server's application."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    from mlops_dagster.stack.same_site import why_foreign

    def refused(status: int, message: str) -> Response:
        # The form of MLflow's own errors.
        return JSONResponse({"error_code": HTTPStatus(status).name, "message": message}, status)

    class SameSite:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            why = why_foreign(Headers(scope=scope), listens_on) if scope["type"] == "http" else None
            await (refused(403, why) if why else self.app)(scope, receive, send)

    async def about(request: Request) -> Response:
        return PlainTextResponse(await run_in_threadpool(served.about, str(request.base_url).rstrip("/")))

    async def ping(request: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def mlflow_version(request: Request) -> Response:
        return Response(version("mlflow"), media_type="application/json")

    async def forecast(request: Request) -> Response:
        of = request.path_params["of"]
        if of != served.of or served.forecast is None:
            raise Unanswered(f"There is no forecast of {of[:40]!r} here, only the champion of {served.name}.", 404)
        made = await run_in_threadpool(served.forecast, _interval(request.query_params.get("interval")))
        said = {"model": served.name, "model_version": served.champion.version}
        return JSONResponse({**said, "predictions": made})

    async def invocations(request: Request) -> Response:
        if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
            raise Unanswered(f"Content-Encoding {encoding[:40]!r}: send the body as it is, not compressed.", 415)
        try:
            body = await asyncio.wait_for(_body(request), _SECONDS)
        except asyncio.TimeoutError:
            raise Unanswered(f"The body didn't arrive within {_SECONDS} seconds.", 408) from None
        media_type = request.headers.get("content-type", "")
        return JSONResponse(await run_in_threadpool(served.predict, body, media_type))

    def wrong(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return refused(error.status_code, f"{error.detail}. GET / says what is here.")
        if isinstance(error, Unanswered | ParameterError):
            return refused(getattr(error, "status", 400), redacted(str(error)))
        # Its message may name paths of this machine: whoever serves reads it, who asks needn't.
        progress.print(redacted(f"{type(error).__name__}: {error}"), markup=False)
        return refused(503, f"The prediction can't be made ({type(error).__name__}); the server's own output says why.")

    def broken(request: Request, error: Exception) -> Response:
        return refused(500, "An error of the server; its own output says which.")

    return Starlette(
        routes=[
            Route("/", about),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", mlflow_version),
            Route("/forecast/{of}", forecast),
            Route("/invocations", invocations, methods=["POST"]),
        ],
        middleware=[Middleware(SameSite)],
        exception_handlers={HTTPException: wrong, MlopsError: wrong, Exception: broken},
    )


def _interval(asked: str | None) -> float | None:
    if asked is None:
        return None
    try:
        return float(asked)
    except ValueError:
        raise Unanswered(f"interval={asked[:40]!r}: give a number from 0.5 to 0.99.") from None


async def _body(request: Request) -> bytes:
    """Read a body, and stop where it is too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise Unanswered(f"The body is too long; send up to {MAX_BYTES:,} bytes at once.", 413)
    return bytes(body)
