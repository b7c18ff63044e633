"""A Yahoo Finance for tests: a real HTTP server that speaks the chart API as yfinance 1.7 asks and reads it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import curl_cffi.requests
import pandas as pd

ZONES = {"^GSPC": "America/New_York", "^N225": "Asia/Tokyo", "DST": "America/Sao_Paulo"}


class YahooServer(ThreadingHTTPServer):
    """Serves `days` of prices of any symbol in `ZONES`; `trouble` makes it fail as Yahoo does."""

    def __init__(self, days: pd.DatetimeIndex) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.days = days
        self.trouble: str | None = None
        self.asked: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: YahooServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        symbol = unquote(url.path.rpartition("/")[2])
        if url.path.endswith("/getcrumb"):
            self.answer(200, "crumb")
        elif "/v8/finance/chart/" not in url.path:
            self.answer(404, "")
        elif self.server.trouble == "rate limit":
            self.answer(429, "Too Many Requests")
        elif self.server.trouble == "maintenance":
            self.answer(200, "<html>Will be right back...</html>")
        elif self.server.trouble == "html":
            self.answer(200, "<html>Sign in to this hotel's network</html>")
        elif symbol not in ZONES:
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            self.answer(404, json.dumps({"chart": {"result": None, "error": error}}))
        else:
            self.server.asked.append({"symbol": symbol, **query})
            self.answer(200, json.dumps({"chart": {"result": [self.chart(symbol, query)], "error": None}}))

    def chart(self, symbol: str, query: dict[str, str]) -> dict[str, Any]:
        zone = ZoneInfo(ZONES[symbol])
        # Yahoo stamps a day with the moment at which its exchange opened.
        opened = [
            int(datetime(day.year, day.month, day.day, 9, 30, tzinfo=zone).timestamp()) for day in self.server.days
        ]
        first, last = int(query.get("period1", 0)), int(query.get("period2", 2**40))
        kept = [number for number, moment in enumerate(opened) if first <= moment < last]
        if "period1" not in query or self.server.trouble == "after the end":
            kept = [len(opened) - 1]
        meta = {
            "currency": "USD",
            "symbol": symbol,
            "instrumentType": "INDEX",
            "exchangeTimezoneName": str(zone),
            "timezone": "X",
            "gmtoffset": 0,
            "priceHint": 2,
            "regularMarketTime": opened[-1],
            "firstTradeDate": opened[0],
            "dataGranularity": "1d",
            "range": "",
            "validRanges": ["1d", "5d", "1mo", "1y", "ytd", "max"],
        }
        if self.server.trouble == "no rows" or not kept:
            return {"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}
        quote: dict[str, Any] = {
            "open": [100.0 + number for number in kept],
            "high": [102.0 + number for number in kept],
            "low": [99.0 + number for number in kept],
            "close": [101.0 + number for number in kept],
            "volume": [1000 + number for number in kept],
        }
        adjusted = [(101.0 + number) / 2 for number in kept]
        return {
            "meta": meta,
            "timestamp": [opened[number] for number in kept],
            "indicators": {"quote": [quote], "adjclose": [{"adjclose": adjusted}]},
        }

    def answer(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class RedirectedSession(curl_cffi.requests.Session):
    """yfinance's own kind of session, for which every host is the test's server: nothing leaves this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(trust_env=False)
        self.port = port

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        parts = urlsplit(url)
        local = parts._replace(scheme="http", netloc=f"127.0.0.1:{self.port}").geturl()
        return super().request(method, local, *arguments, **options)


@contextlib.contextmanager
def yahoo_server(days: pd.DatetimeIndex) -> Iterator[YahooServer]:
    with YahooServer(days) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def today() -> pd.Timestamp:
    return pd.Timestamp(datetime.now(timezone.utc).date())
