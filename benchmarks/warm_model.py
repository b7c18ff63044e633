"""What a model costs in a process that has everything imported, and what the first one costs in a new process.

python -m benchmarks.warm_model [models] [cold runs]

A model for each of many series (250 rows, five shallow trees), built one after the other in this process through
`Session.run`, by turns with pictures and without; then `mlops build-model` of one series, each time in a new process,
in turn with the imports of what it can't do without. CPU seconds, children's included.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROWS, SKIPPED = 250, 3
IMPORTS = "import sklearn.ensemble, mlflow"
DECLARATION = """
type: mlops_dagster.SklearnModel
attributes:
  task: regression
  data: {files: {path: sales.parquet}}
  contract:
    series: {type: text}
    day: {type: date}
    sales: {type: number, minimum: 0}
  key: [series, day]
  time: day
  partitions: {name: series}
  features: .features:look_back
  target: {column: sales, horizon: 1}
  split: {kind: chronological, test_size: 0.25}
  estimator:
    class: sklearn.ensemble.RandomForestRegressor
    arguments: {random_state: 0, n_estimators: 5, max_depth: 4}
  metrics: [neg_root_mean_squared_error, neg_mean_absolute_error, r2]
  baseline: persistence
"""
FEATURES = """
import pandas as pd


def look_back(table):
    sales = table["sales"]
    made = {f"lag_{days}": sales.shift(days) for days in (1, 2, 7, 14)}
    made |= {f"mean_{days}": sales.rolling(days).mean() for days in (7, 28)}
    return pd.DataFrame({**made, "weekday": table["day"].dt.dayofweek})
"""


def write_project(folder: Path, series: list[str], rows: int = ROWS) -> None:
    model = folder / "defs" / "sales"
    model.mkdir(parents=True)
    (model / "defs.yaml").write_text(DECLARATION)
    (model / "features.py").write_text(FEATURES)
    draws, days = np.random.default_rng(0), pd.date_range("2022-01-01", periods=rows)
    pieces = [pd.DataFrame({"series": one, "day": days, "sales": draws.gamma(20, 5, rows)}) for one in series]
    pd.concat(pieces).to_parquet(model / "sales.parquet", index=False)


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def warm(folder: Path, series: list[str]) -> None:
    from mlops_dagster.process_settings import collect_rarely
    from mlops_dagster.session import Session
    from mlops_dagster.spec.project import find_model
    from mlops_dagster.spec.steps import pipelines_of
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.stack.tracking import Origin

    collect_rarely()  # as in every process that runs steps
    model = find_model("sales", folder / "defs")
    spent: dict[str, list[float]] = {"always": [], "never": []}
    settings, origin = Deployment(home=folder / "warm"), Origin("benchmark", "1")
    sessions = {plots: Session(settings, model, origin, plots=plots) for plots in spent}
    for number, one in enumerate(series):
        plots = [*spent][number % 2]
        began, made = cpu_seconds() + cpu_seconds(resource.RUSAGE_CHILDREN), {}
        for step in pipelines_of(model)[0].steps:
            made |= sessions[plots].run(step.name, one, {}, inputs=made).outputs
        spent[plots].append(cpu_seconds() + cpu_seconds(resource.RUSAGE_CHILDREN) - began)
    for plots, times in spent.items():
        times = times[SKIPPED:]
        said = f"median {statistics.median(times):.3f} (min {min(times):.3f}, max {max(times):.3f})"
        print(f"warm, pictures {plots:8} CPU s {said}, {len(times)} models", flush=True)


def cold(folder: Path, series: str, runs: int) -> None:
    mlops = str(Path(sys.executable).parent / "mlops")
    commands = {
        IMPORTS: [sys.executable, "-c", IMPORTS],
        "mlops build-model": [mlops, "build-model", "sales", "--partition", series],
    }
    spent: dict[str, list[float]] = {name: [] for name in commands}
    env = {**os.environ, "MLOPS_HOME": str(folder / "cold")}
    for _ in range(runs + 1):  # the first compiles bytecode, and makes MLflow's database
        for name, command in commands.items():
            began = cpu_seconds(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
            spent[name].append(cpu_seconds(resource.RUSAGE_CHILDREN) - began)
    for name, times in spent.items():
        print(f"cold, {name:40} CPU s median {statistics.median(times[1:]):.2f} ({min(times[1:]):.2f} at least)")
    ratios = [ours / imports for imports, ours in list(zip(*spent.values(), strict=True))[1:]]
    print(f"cold, ratio pair by pair: median {statistics.median(ratios):.2f}")


def main() -> None:
    models, runs = (int(sys.argv[at]) if len(sys.argv) > at else given for at, given in ((1, 40), (2, 5)))
    series = [f"S{number:04d}" for number in range(models)]
    with tempfile.TemporaryDirectory(prefix="warm_model_") as home:
        write_project(Path(home), series)
        if models:
            warm(Path(home), series)
        if runs:
            cold(Path(home), (series or ["S0000"])[0], runs)


if __name__ == "__main__":
    main()
