"""The same pipelines in each cell of the matrix, compared with the reference to the last bit.

CI runs a slice. `make matrix` runs all cells and writes docs/swap-matrix.md.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack

import pytest

from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import ALL
from mlops_dagster.stack.store import store_of
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster.steps.parity import compare, left_behind
from mlops_dagster_tests.conftest import wandering_prices
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.swap_matrix import cells
from mlops_dagster_tests.swap_matrix.__main__ import page
from mlops_dagster_tests.swap_matrix.orchestrators import ORCHESTRATE
from mlops_dagster_tests.swap_matrix.stacks import SYMBOL, Servers, make_stack

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("swap matrix")]
WHOLE = os.environ.get("MLOPS_MATRIX") == "all"
CHOSEN = [cell for cell in cells.CELLS if cell != cells.REFERENCE] if WHOLE else cells.SLICE


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with ExitStack() as opened:
        yield Servers(tmp_path_factory.mktemp("matrix"), opened)


@pytest.fixture(scope="module")
def run_cell(servers, empty_mlflow, prices):
    """Run a cell, and return what it has left, with how long it took."""

    def run(cell):
        stack = make_stack(cell, servers, prices)
        if cell.tracking == "SQLite":
            (stack.home / "mlflow").mkdir()
            shutil.copy(empty_mlflow, stack.home / "mlflow" / "mlflow.db")
        with pytest.MonkeyPatch.context() as environment:
            for name in ("MLOPS_HOME", "DAGSTER_HOME"):
                environment.delenv(name, raising=False)
            for name, value in stack.environment.items():
                environment.setenv(name, value)
            began = time.monotonic()
            ORCHESTRATE[cell.orchestrator](stack)
            seconds = time.monotonic() - began
            deployment, left = stack.deployment, {}
            for model, partition in ((shipped("stock_price"), SYMBOL), (find_model("churn", stack.defs), ALL)):
                tracker = MlflowTracker(**deployment.tracker_settings(model))
                left[model.name] = left_behind(partition, store=store_of(deployment, model), tracker=tracker)
            return left, seconds

    return run


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """Prices for all cells: 400 trading days."""
    file = tmp_path_factory.mktemp("prices") / f"{SYMBOL}.csv"
    wandering_prices().to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def reference(run_cell):
    return run_cell(cells.REFERENCE)


def test_the_reference_has_all_that_is_compared(reference, record_property):
    left, seconds = reference
    record_property("seconds", seconds)
    for one in left.values():
        assert set(one.tables) == {"data", "training_set", "trained_model", "champion_model", "grid_search_results"}
        assert set(one.tracked) == {"trained_model", "grid_search_results"}


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
def test_a_cell_makes_what_the_reference_makes(cell, run_cell, reference, record_property):
    left, seconds = run_cell(cell)
    record_property("seconds", seconds)
    for model, whole in reference[0].items():
        compared = compare(whole, left[model])
        assert {one.what: one.differences for one in compared if one.differences} == {}
        assert len(compared) == len(whole.tables) + len(whole.tracked)


def test_what_makes_no_sense_has_a_reason():
    assert len(cells.CELLS) + sum(cells.why_not(cell) is not None for cell in cells.ALL) == len(cells.ALL)
    assert all(cell in cells.CELLS for cell in [cells.REFERENCE, *cells.SLICE])


def test_the_page_says_what_failed_and_what_was_not_run(tmp_path):
    good, bad, *_ = (cell for cell in cells.CELLS if cell != cells.REFERENCE)
    seconds = '<properties><property name="seconds" value="31.4"/></properties>'
    (tmp_path / "results.xml").write_text(f"""<testsuites><testsuite>
        <testcase name="test_the_reference_has_all_that_is_compared">{seconds}</testcase>
        <testcase name="test_a_cell_makes_what_the_reference_makes[{good}]">{seconds}</testcase>
        <testcase name="test_a_cell_makes_what_the_reference_makes[{bad}]">{seconds}<failure/></testcase>
        </testsuite></testsuites>""")
    made = page(tmp_path / "results.xml")
    rows = {line.rsplit(" | ", 2)[0]: line for line in made.splitlines() if line.startswith("| ")}
    shown = {str(cell): rows["| " + str(cell).replace(", ", " | ")].split(" | ")[4:] for cell in cells.CELLS}
    assert shown.pop(str(cells.REFERENCE)) == ["reference", "31 |"]
    assert shown.pop(str(good)) == ["the same", "31 |"]
    assert shown.pop(str(bad)) == ["failure", "31 |"]
    assert set(map(tuple, shown.values())) == {("not run", " |")}
    assert f"**2 of {len(cells.CELLS)} stacks made the same" in made
