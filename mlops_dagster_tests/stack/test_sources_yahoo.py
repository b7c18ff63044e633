"""The real yfinance against a server of ours that speaks Yahoo's chart API; nothing here leaves the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.spec.functions import load_function
from mlops_dagster.stack.file_finding import SourceError
from mlops_dagster_tests.contracts.servers import free_port
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.stack.yahoo_server import RedirectedSession, YahooServer, today, yahoo_server

yfinance = pytest.importorskip("yfinance")
STOCK = shipped("stock_price")
LOAD = load_function(STOCK, "..prices.data:load")


def read_prices(symbol: str, **given: object) -> tuple[pd.DataFrame, str]:
    frame = LOAD(symbol, **given)
    return frame, frame.attrs["origin"]


def redirect(port: int) -> None:
    from yfinance.data import YfData

    YfData(session=RedirectedSession(port))  # it exists once per process, and keeps the session
    YfData().cache_get.cache_clear()


@pytest.fixture
def yahoo(tmp_path: Path) -> Iterator[YahooServer]:
    yfinance.set_tz_cache_location(str(tmp_path))
    with yahoo_server(pd.date_range(end=today(), periods=500)) as server:
        redirect(server.server_port)
        yield server


def test_all_days_that_are_over(yahoo: YahooServer) -> None:
    raw, origin = read_prices("GSPC", source="yahoo")
    prices = check_contract(STOCK, raw, source=origin)
    assert origin == "Yahoo Finance, ^GSPC"
    assert prices["Date"].tolist() == yahoo.days[:-1].tolist()  # today isn't over
    assert prices.iloc[0].tolist()[1:] == [100.0, 102.0, 99.0, 101.0, 50.5, 1000.0]
    asked = yahoo.asked[-1]
    assert (asked["symbol"], asked["interval"]) == ("^GSPC", "1d")


def test_the_close_is_not_adjusted_and_the_adjusted_is_there(yahoo: YahooServer) -> None:
    raw, _ = read_prices("GSPC", source="yahoo")
    assert list(raw.columns) == ["Date", "Open", "High", "Low", "Close", "AdjClose", "Volume"]
    assert raw["Close"].iloc[0] == 2 * raw["AdjClose"].iloc[0]


def test_start_is_included_and_end_is_not(yahoo: YahooServer) -> None:
    start, end = (str(yahoo.days[number].date()) for number in (10, 300))
    raw, origin = read_prices("GSPC", source="yahoo", start=start, end=end)
    assert raw["Date"].tolist() == yahoo.days[10:300].tolist()
    assert origin == f"Yahoo Finance, ^GSPC from {start} until before {end}"
    raw, origin = read_prices("GSPC", source="yahoo", end=end)
    assert raw["Date"].tolist() == yahoo.days[:300].tolist()
    assert origin == f"Yahoo Finance, ^GSPC until before {end}"
    raw, origin = read_prices("GSPC", source="yahoo", start=start)
    assert raw["Date"].tolist() == yahoo.days[10:-1].tolist()
    assert origin == f"Yahoo Finance, ^GSPC from {start}"


@pytest.mark.parametrize("symbol", ["^N225", "DST"])
def test_days_are_those_of_the_exchange(yahoo: YahooServer, symbol: str) -> None:
    """Tokyo's day begins on the day before in UTC; Sao Paulo had days without a midnight."""
    yahoo.days = pd.date_range("2017-10-01", "2018-12-01")
    raw, origin = read_prices(symbol, source="yahoo")
    assert origin == f"Yahoo Finance, {symbol}"
    assert raw["Date"].tolist() == yahoo.days.tolist()
    check_contract(STOCK, raw, source=origin)


@pytest.mark.parametrize(
    ("symbol", "trouble", "words"),
    [
        ("NOPE", None, r"Yahoo Finance, NOPE: there are no prices \(.*404.*Check the symbol at finance\.yahoo\.com"),
        ("GSPC", "no rows", r"\^GSPC: there are no prices \(.*Check the symbol"),
        ("GSPC", "rate limit", r"\^GSPC: Yahoo refuses more requests from here for now\. Try again later"),
        # Unless yfinance knows the symbol's time zone from an earlier request, it stumbles over that request's answer.
        (
            "GSPC",
            "maintenance",
            r"can't be reached or answers nonsense \((YFDataException: .*DOWN|JSONDecodeError).*use source 'files'",
        ),
        ("GSPC", "html", r"can't be reached or answers nonsense \(JSONDecodeError.*Check the network"),
    ],
)
def test_what_yahoo_refuses_is_said(yahoo: YahooServer, symbol: str, trouble: str | None, words: str) -> None:
    yahoo.trouble = trouble
    with pytest.raises(SourceError, match=words) as caught:
        read_prices(symbol, source="yahoo")
    assert caught.value.exit_status == (2 if "Check the symbol" in words else 1)  # whether trying again may help
    assert yfinance.config.debug.hide_exceptions  # as it was before


def test_an_empty_answer_is_an_error(yahoo: YahooServer) -> None:
    """Yahoo appends the latest price even if it is after the end; yfinance drops it, and then there is nothing."""
    yahoo.trouble = "after the end"
    with pytest.raises(SourceError, match=r"\^GSPC until before 2020-01-01: there are no prices\. Check the symbol"):
        read_prices("GSPC", source="yahoo", end="2020-01-01")


def test_no_network_is_said(tmp_path: Path) -> None:
    yfinance.set_tz_cache_location(str(tmp_path))
    redirect(free_port())
    with pytest.raises(SourceError, match=r"\^GSPC: Yahoo can't be reached .*Check the network and its proxy"):
        read_prices("GSPC", source="yahoo")


def test_without_yfinance_the_cure_is_named() -> None:
    code = """
import sys
sys.modules["yfinance"] = None  # what makes an import fail
from mlops_dagster.spec.functions import load_function
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.file_finding import SourceError
try:
    load_function(find_model("stock_price"), "..prices.data:load")("GSPC", source="yahoo")
except SourceError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "source='yahoo' needs yfinance" in ended.stdout
    assert 'pip install "mlops_dagster[yahoo]"' in ended.stdout
