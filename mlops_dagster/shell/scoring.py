"""The web server of `mlops serve`: a champion's predictions by MLflow's protocol, and its next forecast.

The protocol is that of MLflow's scoring server: `/ping`, `/health`, `/version` and `/invocations`, with JSON in its
four forms or CSV. MLflow's own server turns a missing value, a short row or a text into a number, and answers errors
with stack traces; here a row is what the model's signature says, finite numbers only, or refused in one sentence.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.pipelines import FORECASTING_DEFAULTS
from mlops_dagster.shell.output import progress
from mlops_dagster.shell.scoring_rows import Unanswered, read_rows
from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from mlops_dagster.stack.registry import RegisteredVersion
    from mlops_dagster.stack.store import Store

MAX_BYTES = 8_000_000
_SECONDS = 60  # for a body to arrive


@dataclass(frozen=True)
class Served:
    """A champion that is served, and what its forecasts are made from."""

    model: Any
    champion: RegisteredVersion
    store: Store
    exchange: str

    @property
    def columns(self) -> list[str]:
        """What the model asks for."""
        return [str(name) for name in self.model.feature_names_in_]

    def predict(self, body: bytes, media_type: str) -> dict[str, Any]:
        """Answer a request to `/invocations`."""
        import pandas as pd

        rows = read_rows(body, media_type, self.columns)
        return {"predictions": self.model.predict(pd.DataFrame(rows, columns=self.columns)).tolist()}

    def forecast(self, interval: float) -> dict[str, Any]:
        """Return the next forecast, from the newest prices in the store."""
        from mlops_dagster import steps

        prices, _ = self.store.read("prices", self.champion.symbol)
        return steps.next_forecast(self.model, self.champion, prices, interval=interval, exchange=self.exchange)

    def example(self) -> dict[str, Any]:
        """Return the newest row of features, as `/invocations` takes it."""
        from mlops_dagster.steps.price_models import training_set_of

        prices, _ = self.store.read("prices", self.champion.symbol)
        newest = training_set_of(self.model, self.champion, prices).frame[self.columns].tail(1)
        return {"dataframe_split": {"columns": self.columns, "data": newest.round(6).to_numpy().tolist()}}

    def about(self, url: str) -> str:
        """Say for people what answers here, with examples that work."""
        symbol, tags = self.champion.symbol, self.champion.tags
        horizon = int(tags["horizon"])
        try:
            example = json.dumps(self.example())
        except MlopsError as error:
            example = f"... ({type(error).__name__}: the newest prices can't be used; mlops forecast says why)"
        of = "relative change of the price" if tags["recipe"] == "honest" else "price"
        ahead = f"{horizon} trading day{'s' if horizon > 1 else ''} ahead"
        return f"""{symbol}: the champion is version {self.champion.version}. It forecasts {ahead}.

The next forecast, with the interval that 90% of the prices are meant to lie in:

curl --silent '{url}/forecast/{symbol}'
curl --silent '{url}/forecast/{symbol}?interval=0.5'

Predictions for rows of features, by MLflow's protocol (JSON or CSV; each prediction is a {of}):

curl --silent '{url}/invocations' --header 'Content-Type: application/json' --data '{example}'

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
        symbol = request.path_params["symbol"]
        if symbol != served.champion.symbol:
            raise Unanswered(f"There is no champion of {symbol[:40]!r} here, only of {served.champion.symbol}.", 404)
        return JSONResponse(await run_in_threadpool(served.forecast, _interval(request.query_params.get("interval"))))

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
        return refused(503, f"The forecast can't be made ({type(error).__name__}); the server's own output says why.")

    def broken(request: Request, error: Exception) -> Response:
        return refused(500, "An error of the server; its own output says which.")

    return Starlette(
        routes=[
            Route("/", about),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", mlflow_version),
            Route("/forecast/{symbol}", forecast),
            Route("/invocations", invocations, methods=["POST"]),
        ],
        middleware=[Middleware(SameSite)],
        exception_handlers={HTTPException: wrong, MlopsError: wrong, Exception: broken},
    )


def _interval(asked: str | None) -> float:
    if asked is None:
        return float(FORECASTING_DEFAULTS["interval"])
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
