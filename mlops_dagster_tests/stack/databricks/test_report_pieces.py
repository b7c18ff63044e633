"""A report on its way home arrives as it was sent, or is refused."""

from __future__ import annotations

import json
import math
import random
from datetime import datetime, timezone
from typing import Any

import pytest

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.stack.store import TableVersion
from mlops_dagster.steps.report import StepReport
from mlops_dagster.steps.report_pieces import IncompleteReport, RemoteFailure, failure_message, from_pieces, to_pieces


def report(png: bytes = b"\x89PNG\x00\xff", **changed: Any) -> StepReport:
    made = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    table = TableVersion("prices", "^GSPC", 3, "d" * 64, 5, {"source": "ä"}, "/Volumes/a/b/c/prices/@GSPC", made)
    return StepReport(
        **{
            "step": "trained_model",
            "symbol": "^GSPC",
            "data_version": "v" * 16,
            "table": table,
            "columns": {"Date": "datetime64[us]"},
            "last_rows": [{"Date": "2020-01-01T00:00:00", "Close": None, "text": '日本 "quoted"'}],
            "facts": {"rows": 5, "nested": {"a": [1, 2.5, None, True]}, "rate": 0.1 + 0.2},
            "metrics": {"rmse": 1 / 3, "infinite": math.inf},
            "plots": {"forecast": png, "empty": b""},
            "mlflow_run_id": "abc",
            **changed,
        }
    )


def arrived(messages: Any) -> list[Any]:
    """As a messenger carries them: as JSON."""
    return json.loads(json.dumps(list(messages)))  # type: ignore[no-any-return]


def big() -> StepReport:
    return report(random.Random(7).randbytes(3_000_000))


def test_a_report_comes_back_as_it_was() -> None:
    sent = report()
    assert StepReport.from_json(sent.to_json()) == sent
    assert from_pieces(arrived(to_pieces(sent))) == sent


def test_three_megabytes_in_pieces_that_everyone_carries() -> None:
    messages = arrived(to_pieces(big()))
    assert len(messages) > 15
    assert max(len(json.dumps(message)) for message in messages) < 201_000
    assert from_pieces(messages) == big()
    random.Random(1).shuffle(messages)
    assert from_pieces([{"something": "else"}, "not ours", *messages]) == big()


def test_a_missing_piece_is_noticed() -> None:
    messages = arrived(to_pieces(big()))
    del messages[3]
    with pytest.raises(IncompleteReport, match=f"{len(messages)} of {len(messages) + 1} pieces"):
        from_pieces(messages)


@pytest.mark.parametrize("damage", ["cut", "changed", "no number"])
def test_a_damaged_piece_is_noticed(damage: str) -> None:
    messages = arrived(to_pieces(big()))
    piece = messages[5]["report"]
    if damage == "no number":
        del piece["piece"]
    else:
        piece["text"] = piece["text"][:100] if damage == "cut" else "A" + piece["text"][1:]
    if damage == "changed" and messages[5] == arrived(to_pieces(big()))[5]:
        piece["text"] = "B" + piece["text"][1:]
    with pytest.raises(IncompleteReport):
        from_pieces(messages)


def test_nothing_at_all_is_noticed() -> None:
    with pytest.raises(IncompleteReport, match="there is nothing"):
        from_pieces([])


def test_a_failure_brings_message_and_traceback() -> None:
    def inner() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        inner()
    with pytest.raises(RemoteFailure, match="boom") as failure:
        from_pieces(arrived([failure_message(caught.value)]))
    assert (failure.value.type, failure.value.exit_status) == ("ValueError", 1)
    assert "in inner" in failure.value.traceback


def test_a_refusal_before_any_work_needs_no_traceback() -> None:
    with pytest.raises(RemoteFailure, match="max_depth") as failure:
        from_pieces(arrived([failure_message(ParameterError("max_depth=0 (int): give more."))]))
    assert (failure.value.exit_status, failure.value.traceback) == (2, "")


@pytest.mark.parametrize(
    ("error", "status"),
    [(SystemExit(143), 143), (KeyboardInterrupt(), 130), (SystemExit("why"), 1), (MlopsError("x"), 1)],
)
def test_how_it_ended(error: BaseException, status: int) -> None:
    with pytest.raises(RemoteFailure) as failure:
        from_pieces(arrived([failure_message(error)]))
    assert failure.value.exit_status == status
    assert str(failure.value)


def test_the_last_attempt_counts() -> None:
    first, second = report(data_version="first"), report(data_version="second")
    failed = failure_message(ValueError("first attempt"))
    begun = arrived(to_pieces(big()))[:3]
    assert from_pieces([failed, *begun, *arrived(to_pieces(second))]) == second
    with pytest.raises(RemoteFailure, match="first attempt"):
        from_pieces([*arrived(to_pieces(first)), failed])
