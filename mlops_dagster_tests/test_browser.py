"""What a person does in Dagster's UI, done in a real browser on `mlops ui` with the bundled prices."""

import contextlib
import re

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect

from mlops_dagster.modeling.drawing import WIDTH
from mlops_dagster.shell.report_page import report_page
from mlops_dagster.spec.steps import steps_of
from mlops_dagster.steps.state import Section
from mlops_dagster_tests.contracts.browser import PATIENCE, browsing, find_chromium
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev
from mlops_dagster_tests.contracts.servers import eventually, free_port, running
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("browser")]

SENSOR = "best_parameters_to_model"
RUNS = "query($filter: RunsFilter!) {runsOrError(filter: $filter) {... on Runs {results {runId status}}}}"
TICKS = (
    "query($sensor: SensorSelector!) {sensorOrError(sensorSelector: $sensor) "
    "{... on Sensor {sensorState {status ticks(limit: 1) {status}}}}}"
)
PARTITIONS = (
    "query($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) "
    "{... on AssetNode {partitionStats {numMaterialized numPartitions}}}}"
)
A_SEARCH = """
ops:
  stock_price__grid_search_results: {config: {folds: 2, grid: {max_depth: [2], n_estimators: [2, 3]}}}
"""


@pytest.fixture(scope="module")
def ui(tmp_path_factory, empty_mlflow):
    find_chromium()
    home = tmp_path_factory.mktemp("browser")
    port, mlflow_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "mlops_dagster.cli", "ui", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    settings = {"MLOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    (home / "mlflow").mkdir()
    (home / "mlflow" / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    with running(command, log=home / "ui.log", env=settings) as process:
        server = DagsterDev(url, home)

        def ready():
            assert process.poll() is None, (home / "ui.log").read_text()
            return server.has_loaded()

        eventually(ready)
        yield server


@pytest.fixture
def page(ui, tmp_path):
    with browsing(tmp_path) as page:
        yield page


def open_lineage(page, ui):
    """Open the lineage of all assets, which shows them without a click."""
    page.goto(f"{ui.url}/asset-groups")
    page.get_by_text("training_set", exact=True).last.wait_for()


def choose_symbol(page):
    """Choose GSPC as the launchpad's partition: its list may open before it knows of any."""
    partition = page.get_by_placeholder("Partition")

    def chosen():
        partition.fill("")
        partition.click()
        partition.fill("GSPC")
        page.get_by_text("GSPC", exact=True).first.click(timeout=10_000)
        return True

    eventually(chosen)


def press_launch(page):
    """Press the launchpad's button, and say whether the page went on to a run: a page that is drawn anew misses it."""
    with contextlib.suppress(PlaywrightTimeoutError):
        page.get_by_role("button", name="Launch Run").click(timeout=10_000)
    with contextlib.suppress(PlaywrightTimeoutError):
        page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"), timeout=60_000)
        return True
    alerts = page.get_by_role("dialog").all_inner_texts()
    assert not alerts, alerts
    return False


def launch(page, ui, job, preset, config=None, replace=None):
    """Launch a job for GSPC from its launchpad, with run config that was typed, and wait until the page says it ran."""
    page.goto(f"{ui.url}/locations/mlops_dagster/jobs/{job}/playground")
    choose_symbol(page)
    editor = page.locator(".CodeMirror").first
    editor.get_by_text(preset).wait_for()  # what the job opens with arrives after the symbol, over whatever was typed
    before = editor.evaluate("node => node.CodeMirror.getValue()")
    config = config or before.replace(*replace)
    assert config != before
    editor.evaluate("(node, config) => node.CodeMirror.setValue(config)", config)
    page.get_by_text("No errors", exact=True).wait_for()
    eventually(lambda: press_launch(page))
    run_id = re.search(r"/runs/([0-9a-f-]{36})", page.url)[1]
    assert ui.ended(run_id) == "SUCCESS"
    page.get_by_text("RUN_SUCCESS").first.wait_for()
    return run_id


def test_lineage_shows_every_asset_and_an_asset_is_materialised_from_it(page, ui):
    open_lineage(page, ui)
    for step in steps_of(shipped("stock_price")):  # a long name is shortened to what its box has room for
        page.get_by_text(step, exact=True).last.wait_for(state="attached")
    page.get_by_text("data", exact=True).last.click()
    page.get_by_text("Daily prices of one symbol").first.wait_for()  # the sidebar says what it is
    page.get_by_role("button", name="Materialize selected").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("2 partitions").or_(dialog.get_by_role("button", name="All", exact=True)).first.click()
    dialog.get_by_role("button", name=re.compile("Launch (backfill|2 runs)")).click()
    eventually(lambda: ui.ask(PARTITIONS, key={"path": ["prices", "data"]})["partitionStats"]["numMaterialized"] == 2)
    page.goto(f"{ui.url}/assets/prices/data?view=checks")
    page.get_by_text("data_keep_the_contract").first.wait_for()
    page.goto(f"{ui.url}/assets/prices/data?view=partitions")
    page.get_by_text("Materialized (2)").wait_for()


def test_a_launch_with_run_config_leaves_metrics_checks_and_a_forecast(page, ui):
    launch(page, ui, "build_model_pipeline", "n_estimators", replace=("n_estimators: 200", "n_estimators: 7"))
    page.goto(f"{ui.url}/assets/stock_price/trained_model?view=partitions&partition=GSPC")
    page.get_by_text("root_mean_squared_error", exact=True).first.wait_for()
    page.get_by_text(re.compile(r'"?n_estimators"?: 7\b')).first.wait_for()
    inline = page.get_by_role("img", name=re.compile("^forecast"))
    assert eventually(lambda: inline.evaluate("image => image.naturalWidth")) == WIDTH * 72
    plots = page.get_by_role("row", name=re.compile(r"^plots\b"))
    plots.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("dialog").get_by_role("img", name="forecast")
    assert eventually(lambda: picture.evaluate("image => image.naturalWidth")) == WIDTH * 72
    page.goto(f"{ui.url}/assets/stock_price/training_set?view=checks")
    page.get_by_text("training_set_leaks_nothing").first.click()
    page.get_by_text("No leak was found.").first.wait_for()
    page.goto(f"{ui.url}/assets/stock_price/training_set")
    page.get_by_text("train, gap (in neither, so that nothing leaks)").first.wait_for()  # what a column holds
    page.get_by_role("link", name="Open its step: steps/data.py").wait_for()


def test_a_sensor_that_is_turned_on_fires(page, ui):
    page.goto(f"{ui.url}/automation")
    row = page.locator("[data-index]", has=page.locator(f"a[href$='/sensors/{SENSOR}']")).last
    switch = row.locator("input[type=checkbox]").nth(1)  # the first one selects the row
    expect(switch).to_be_enabled(timeout=PATIENCE)
    switch.locator("xpath=..").click()  # what people see of it
    expect(switch).to_be_checked(timeout=PATIENCE)

    def ticked():
        selector = {"repositoryLocationName": "mlops_dagster", "repositoryName": "__repository__", "sensorName": SENSOR}
        state = ui.ask(TICKS, sensor=selector)["sensorState"]
        return state["status"] == "RUNNING" and [tick["status"] for tick in state["ticks"]] == ["SKIPPED"]

    eventually(ticked)  # from now on it builds what is searched
    launch(page, ui, "search_model_pipeline", "preset", config=A_SEARCH)
    its_runs = {"tags": [{"key": "dagster/sensor_name", "value": SENSOR}]}
    (built,) = eventually(lambda: ui.ask(RUNS, filter=its_runs)["results"])
    assert ui.ended(built["runId"]) == "SUCCESS"
    page.goto(f"{ui.url}/runs/{built['runId']}")
    page.get_by_text("RUN_SUCCESS").first.wait_for()
    page.get_by_text("Launched by").locator("visible=true").first.wait_for()  # its name is shortened in the middle


def test_a_report_with_a_long_word_is_as_wide_as_a_telephone(tmp_path):
    score = "-0.013609 (neg_root_mean_squared_error)"
    found = Section(
        title="Last searches",
        explanation="",
        begin="",
        columns=("symbol", "score"),
        rows=[("GSPC", score)],
        pictures=[],
    )
    (tmp_path / "state.html").write_text(report_page([found], "here"))
    with browsing(tmp_path) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto((tmp_path / "state.html").as_uri())
        assert page.get_by_text(score).is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
