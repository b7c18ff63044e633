"""What every state of a run means: all pairs of the SDK's enums, and what they may become one day."""

from __future__ import annotations

import itertools

import pytest
from databricks.sdk.service.jobs import RunLifeCycleState, RunResultState

from mlops_dagster.stack.databricks.run_states import Failed, Succeeded, Waiting, verdict

LIFE = [state.value for state in RunLifeCycleState]
RESULTS = [None, *(state.value for state in RunResultState)]


@pytest.mark.parametrize(("life", "result"), list(itertools.product(LIFE, RESULTS)))
def test_every_pair_is_decided(life: str, result: str | None) -> None:
    said = verdict(life, result, "because of something")
    over = life in ("TERMINATED", "SKIPPED", "INTERNAL_ERROR") or (life == "TERMINATING" and result is not None)
    if not over:
        assert said == Waiting()
    elif result == "SUCCESS" and life in ("TERMINATED", "TERMINATING"):
        assert said == Succeeded()
    else:
        assert isinstance(said, Failed)
        assert "because of something" in said.reason
        # Every state that the SDK knows is said in words of ours.
        assert "unknown" not in said.reason


def test_a_state_of_the_future_is_waited_for_and_named() -> None:
    assert verdict("HIBERNATING", None) == Waiting("HIBERNATING")
    assert verdict(None, None) == Waiting("None")


def test_a_result_of_the_future_is_no_success() -> None:
    said = verdict("TERMINATED", "SUCCESS_OF_A_KIND")
    assert isinstance(said, Failed)
    assert "SUCCESS_OF_A_KIND" in said.reason


def test_an_end_without_result_is_no_success() -> None:
    assert verdict("TERMINATED", None) == Failed("it ended without a result")
