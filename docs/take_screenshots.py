"""Take the pictures of the docs from the real thing: launch a run in the browser, wait for it, and look around.

    make demo && make ui                              # in one shell
    .venv/bin/python docs/take_screenshots.py         # in another, with the same MLOPS_HOME

Needs Chromium (Debian's package `chromium`, or its path in the environment variable CHROMIUM).
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

DAGSTER = os.environ.get("MLOPS_DAGSTER_URL", "http://127.0.0.1:3000")
IMAGES = Path(__file__).parent / "images"
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def lineage(page: Page) -> None:
    """The whole graph, wide enough for the assets to show their details."""
    page.set_viewport_size({"width": 2400, "height": 1160})
    page.goto(f"{DAGSTER}/asset-groups?expanded=global@global:prices,global@global:stock_price")
    page.get_by_text("trained_model").last.wait_for()
    page.mouse.click(1500, 850)
    page.keyboard.press("Alt+9")
    page.wait_for_timeout(4000)
    _save(page, "lineage.png", clip={"x": 545, "y": 110, "width": 1795, "height": 900})
    page.set_viewport_size({"width": 1280, "height": 800})


def launchpad(page: Page) -> None:
    """The launchpad with a partition chosen; then a launch with other hyper-parameters, watched until it is done."""
    editor = _open_launchpad(page, "build_model_pipeline", "n_estimators")
    page.mouse.move(600, 500)  # away from anything that would explain itself
    page.wait_for_timeout(2000)
    _save(page, "launchpad.png")
    # Typed in place of the 200 that is there, as a user would.
    editor.evaluate(
        "node => node.CodeMirror.setValue(node.CodeMirror.getValue().replace('n_estimators: 200', 'n_estimators: 150'))"
    )
    _launch(page)


def model(page: Page) -> None:
    """What the run left behind: metrics, the forecast plot, the link to MLflow."""
    page.goto(f"{DAGSTER}/assets/stock_price/trained_model?view=partitions&partition=GSPC")
    page.get_by_text("root_mean_squared_error", exact=True).first.wait_for()
    page.wait_for_timeout(1500)
    link = page.get_by_role("link", name="open in MLflow").first.get_attribute("href")
    _save_with_picture(page, "forecast.png", "forecast")
    assert link is not None
    page.goto(link)
    page.get_by_text("stock_price-GSPC").first.wait_for(timeout=300_000)
    page.get_by_text("150", exact=True).first.wait_for(timeout=300_000)
    page.get_by_role("button", name="Close").first.click()  # the assistant, beside the run
    page.wait_for_timeout(2000)
    _save(page, "mlflow.png")


def search(page: Page) -> None:
    """A search with the preset that the launchpad opens with, and the picture that shows all of its candidates."""
    _open_launchpad(page, "search_model_pipeline", "preset")
    _launch(page)
    page.goto(f"{DAGSTER}/assets/stock_price/grid_search_results?view=partitions&partition=GSPC")
    _save_with_picture(page, "search.png", "parallel_coordinates")


def champion(page: Page) -> None:
    """Every decision about who is champion, in one picture."""
    page.goto(f"{DAGSTER}/assets/stock_price/champion_model?view=partitions&partition=GSPC")
    _save_with_picture(page, "champion_history.png", "champion_history")


def predictions(page: Page) -> None:
    """Champions, newest predictions and how good they were, on the page of `mlops report`."""
    mlops = Path(sys.executable).with_name("mlops")
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "state.html"
        subprocess.run([mlops, "report", "stock_price", "--html", told], check=True)
        page.goto(told.as_uri())
        _save(page, "predictions.png")


def automation(page: Page) -> None:
    """Schedules and sensors, and which of them are on."""
    page.goto(f"{DAGSTER}/automation")
    page.get_by_text("poor_predictions").first.wait_for()
    rows = page.locator("[data-index]", has=page.get_by_role("checkbox"))
    for number in range(rows.count()):
        rows.nth(number).get_by_role("checkbox").nth(1).wait_for(state="attached")  # the switch, not known at first
    page.wait_for_timeout(3000)
    _save(page, "automation.png")


def _save_with_picture(page: Page, file: str, name: str) -> None:
    """Save an asset's page once a plot that stands on it is there, on a window that has room for it."""
    page.set_viewport_size({"width": 1600, "height": 1000})
    picture = page.locator(f"img[alt^='{name}']")
    picture.wait_for(state="attached", timeout=60_000)
    page.wait_for_function(f"""document.querySelector("img[alt^='{name}']").naturalWidth > 0""")
    picture.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    _save(page, file)
    page.set_viewport_size({"width": 1280, "height": 800})


def _save(page: Page, name: str, clip: FloatRect | None = None) -> None:
    """Save what the page shows. 256 colours show it as well as all do, in a third of the bytes."""
    taken = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    shrunk = taken.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    shrunk.save(IMAGES / name, optimize=True)


def _open_launchpad(page: Page, job: str, known_by: str) -> Locator:
    """Open a job's launchpad as the documents say, choose a symbol, and return the editor."""
    page.goto(f"{DAGSTER}/locations/mlops_dagster/jobs/{job}")
    materialize = page.get_by_text("Materialize all").first
    materialize.wait_for()
    page.wait_for_timeout(5000)  # the graph is laid out, and the button made anew
    materialize.locator("xpath=ancestor::*[count(.//button)>=2][1]").get_by_role("button").last.click()
    page.get_by_text("Open launchpad").click()
    _choose_symbol(page)
    editor = page.locator(".CodeMirror", has_text="ops:").last  # the page behind has one, too: it filters assets
    editor.get_by_text(known_by).wait_for()
    page.wait_for_timeout(5000)  # what the job opens with comes again with the symbol
    return editor


def _launch(page: Page) -> None:
    page.wait_for_timeout(1500)
    page.get_by_text("Materialize", exact=True).last.click()
    page.wait_for_url("**/runs/*")
    page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=300_000)


def _choose_symbol(page: Page) -> None:
    partition = page.get_by_placeholder("Partition")
    for attempt in range(10):  # the list may open before it knows of any symbol
        partition.fill("")
        partition.click()
        partition.fill("GSPC")
        try:
            page.get_by_text("GSPC", exact=True).first.click(timeout=10_000)  # of the list that opens below
        except PlaywrightTimeout:
            if attempt == 9:
                raise
        else:
            return


def main() -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is missing: apt-get install chromium, or set CHROMIUM to its path.")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        # `take_screenshots.py lineage champion` takes only these.
        takes = (launchpad, model, champion, predictions, search, automation, lineage)
        for take in [take for take in takes if len(sys.argv) == 1 or take.__name__ in sys.argv[1:]]:
            take(page)
        browser.close()


if __name__ == "__main__":
    main()
