"""Take the pictures of the docs from the real thing: launch a run in the browser, wait for it, and look around.

    make demo && make ui                              # in one shell
    .venv/bin/python docs/take_screenshots.py         # in another

Needs Chromium (Debian's package `chromium`, or its path in the environment variable CHROMIUM).
"""

import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DAGSTER = os.environ.get("MLOPS_DAGSTER_URL", "http://127.0.0.1:3000")
IMAGES = Path(__file__).parent / "images"
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def lineage(page: Page) -> None:
    """The whole graph, groups opened; wide enough for the assets to show their details."""
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.goto(f"{DAGSTER}/asset-groups")
    page.get_by_text("data", exact=True).last.wait_for()
    page.mouse.click(1000, 650)
    page.keyboard.press("Alt+e")
    page.get_by_text("trained_model").last.wait_for()
    page.keyboard.press("Alt+9")
    page.wait_for_timeout(4000)
    page.screenshot(path=IMAGES / "lineage.png", clip={"x": 240, "y": 0, "width": 1360, "height": 900})
    page.set_viewport_size({"width": 1280, "height": 800})


def launchpad(page: Page) -> None:
    """The launchpad with a partition chosen; then a launch with other hyper-parameters, watched until it is done."""
    page.goto(f"{DAGSTER}/locations/mlops_dagster/jobs/build_model_pipeline/playground")
    partition = page.get_by_placeholder("Partition")
    partition.click()
    partition.fill("GSPC")
    page.get_by_text("GSPC", exact=True).first.click()  # of the list that opens below
    editor = page.locator(".CodeMirror").first
    editor.get_by_text("n_estimators").wait_for()
    page.mouse.move(700, 550)  # away from anything that would explain itself
    page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / "launchpad.png")
    # Typed in place of the 200 that is there, as a user would.
    editor.evaluate(
        "node => node.CodeMirror.setValue(node.CodeMirror.getValue().replace('n_estimators: 200', 'n_estimators: 150'))"
    )
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Launch Run").click()
    page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=120_000)


def model(page: Page) -> None:
    """What the run left behind: metrics, the forecast plot, the link to MLflow; and what the checks say."""
    page.goto(f"{DAGSTER}/assets/trained_model?view=partitions&partition=GSPC")
    page.get_by_text("rmse", exact=True).wait_for()
    page.wait_for_timeout(1500)
    link = page.get_by_role("link", name="http://127.0.0.1:5000").first.get_attribute("href")
    page.get_by_text("[Show Markdown]").first.click()
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "forecast.png")
    page.goto(f"{DAGSTER}/assets/training_set?view=checks")
    page.get_by_text("training_set_leaks_nothing").first.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "checks.png")
    assert link is not None
    page.goto(link)
    page.get_by_text("GSPC-honest").first.wait_for(timeout=60_000)
    page.get_by_text("150", exact=True).first.wait_for(timeout=60_000)
    page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / "mlflow.png")


def search(page: Page) -> None:
    """A search with the preset that the launchpad opens with, and the picture that shows all of its candidates."""
    page.goto(f"{DAGSTER}/locations/mlops_dagster/jobs/search_model_pipeline/playground")
    partition = page.get_by_placeholder("Partition")
    partition.click()
    partition.fill("GSPC")
    page.get_by_text("GSPC", exact=True).first.click()
    page.locator(".CodeMirror").first.get_by_text("preset").wait_for()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Launch Run").click()
    page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=300_000)
    page.goto(f"{DAGSTER}/assets/grid_search_results?view=partitions&partition=GSPC")
    page.get_by_text("best_score", exact=True).wait_for()
    page.wait_for_timeout(1500)
    page.get_by_text("[Show Markdown]").nth(1).click()
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "search.png")


def main() -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is missing: apt-get install chromium, or set CHROMIUM to its path.")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for take in (launchpad, model, search, lineage):
            take(page)
        browser.close()
    for picture in IMAGES.glob("*.png"):
        # 128 colours show a page as well as all do, in a third of the bytes.
        Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    main()
