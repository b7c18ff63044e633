"""Run every cell of the matrix, and write docs/swap-matrix.md from what came out.

python -m mlops_dagster_tests.swap_matrix
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path

from mlops_dagster_tests.swap_matrix import cells

PAGE = Path(__file__).parents[2] / "docs" / "swap-matrix.md"
PACKAGES = ("dagster", "mlflow", "scikit-learn", "pyspark", "deltalake")

HEAD = """\
# Every swap, tried

Each line is a stack: who starts the pipelines, where their steps run, where runs are tracked, where tables lie. The
pipelines are those that build and search two models, `stock_price` and the example `breast_cancer` as `churn`; where
there is a Spark, the search runs on it. All ran with the same parameters on the same rows, and what each left behind
was compared with the first line, as [`mlops parity`](parity.md) does it: tables, metrics, `cv_results_`, model digest,
MLflow's parameters, metrics, tags and artifacts, and the champion. **{verdict}.**

Written by `make matrix` on {written}.
Databricks is this project's [stand-in](databricks_standin.md), S3 is moto's server. The times are those of all
pipelines on {cores} cores, start-up included, and no measure of anything else.

| orchestrator | compute | tracking | storage | result | seconds |
| --- | --- | --- | --- | --- | ---: |"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", "--show-capture=no"]
        environment = {**os.environ, "MLOPS_MATRIX": "all"}
        status = subprocess.call([*command, f"--junitxml={results}"], env=environment)
        PAGE.write_text(page(results))
    return status


def page(results: Path) -> str:
    """Make the page of what pytest has written down."""
    verdicts = {}
    for case in ElementTree.parse(results).iter("testcase"):
        name = case.get("name", "")
        if "[" in name or "reference" in name:
            cell = name.partition("[")[2].removesuffix("]") or str(cells.REFERENCE)
            seconds = {entry.get("name"): entry.get("value") for entry in case.iter("property")}.get("seconds")
            bad = {child.tag for child in case} & {"failure", "error", "skipped"}
            verdicts[cell] = (next(iter(bad), "the same"), seconds)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    written = f"{date.today():%Y-%m-%d}: Python {platform.python_version()}, {packages}"
    same = sum(verdicts.get(str(cell), ("",))[0] == "the same" for cell in cells.CELLS)
    verdict = f"{same} of {len(cells.CELLS)} stacks made the same, to the last bit"
    lines = [HEAD.format(verdict=verdict, written=written, cores=os.cpu_count())]
    for cell in [cells.REFERENCE, *(cell for cell in cells.CELLS if cell != cells.REFERENCE)]:
        result, seconds = verdicts.get(str(cell), ("not run", None))
        took = "" if seconds is None else f"{float(seconds):.0f}"
        said = "reference" if cell == cells.REFERENCE and result == "the same" else result
        lines.append(f"| {str(cell).replace(', ', ' | ')} | {said} | {took} |")
    reasons = Counter(reason for cell in cells.ALL if (reason := cells.why_not(cell)))
    lines += [
        "",
        "## What makes no sense",
        "",
        f"The other {sum(reasons.values())} of {len(cells.ALL)} combinations:",
        "",
    ]
    lines += ["| combinations | why not |", "| ---: | --- |"]
    lines += [f"| {count} | {reason} |" for reason, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
