"""Choose the honest recipe's default forest on validation parts of the training rows, and print what it is chosen by.

    python benchmarks/choose_honest_defaults.py                  # two to three minutes on two cores
    python benchmarks/choose_honest_defaults.py --look-at-test   # afterwards

The rule: for both bundled symbols the second half of the training rows is cut into four blocks; each is forecast by
a forest that was trained on all rows before it, less a gap of one horizon. The forest with the highest mean skill
against persistence over these eight parts becomes the default. The test rows are in none of them.

What isn't chosen by skill, and why:

- max_depth and n_estimators: users change these two, so the rest must keep a forest tame whatever they are.
- leaves of more than 100 rows: they score a little better still, by coming closer to the training mean, but own data
  of two or three years would get trees without a single split.

What to expect: nearly nothing. Tomorrow's return is noise but for a trace, and the blocks differ by more than the
candidates do. Very shallow trees with leaves of one row score up to +0.7 % on average, all of it from two of the
eight blocks; in most of the others they lose, so they were left out.
"""

from __future__ import annotations

import itertools
import sys
from importlib.resources import files

import numpy as np
import pandas as pd
from sklearn.model_selection import TimeSeriesSplit

from mlops_dagster.ml.evaluation import Evaluation, evaluate
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.prices import validate_prices
from mlops_dagster.ml.recipes import TrainingSet, make_training_set
from mlops_dagster.modeling.splits import Split
from mlops_dagster.pipelines import BUNDLED_SYMBOLS, resolve_forest

GRID = {
    "min_samples_leaf": (1, 10, 25, 50, 100),
    "max_features": (0.15, 0.33, 0.6, 1.0),  # of seven features: one, two, four, all
}


def bundled(symbol: str) -> TrainingSet:
    path = files("mlops_dagster") / "data" / f"{symbol}.csv"
    with path.open(encoding="utf-8") as file:
        return make_training_set(validate_prices(pd.read_csv(file, dtype=str), source=symbol))


def validation_parts(training_set: TrainingSet) -> list[TrainingSet]:
    rows = np.flatnonzero(training_set.frame["split"] == "train")
    blocks = TimeSeriesSplit(n_splits=4, test_size=len(rows) // 8, gap=training_set.horizon)
    return [training_set.with_split(Split(rows[train], rows[test])) for train, test in blocks.split(rows)]


def evaluate_forest(training_set: TrainingSet, given: dict[str, float]) -> Evaluation:
    fixed = {"max_depth": 80, "n_estimators": 200}
    return evaluate(fit_forest(training_set, resolve_forest("honest", {**fixed, **given}), n_jobs=-1), training_set)


def score(parts: list[tuple[str, Evaluation]], metric: str) -> dict[str, float]:
    skills = pd.Series([100 * evaluation.metrics[metric] for _, evaluation in parts])
    by_symbol = skills.groupby([symbol for symbol, _ in parts]).mean()
    return {"mean": skills.mean(), **by_symbol, "worst": skills.min(), "best": skills.max(), "won": (skills > 0).sum()}


def main() -> None:
    sets = {symbol: bundled(symbol) for symbol in BUNDLED_SYMBOLS}
    if "--look-at-test" in sys.argv:
        for symbol, training_set in sets.items():
            evaluation = evaluate(fit_forest(training_set, resolve_forest("honest", {}), n_jobs=-1), training_set)
            print(symbol, {name: round(value, 6) for name, value in evaluation.metrics.items()})
        return

    parts = [(symbol, part) for symbol, training_set in sets.items() for part in validation_parts(training_set)]
    table = []
    for values in itertools.product(*GRID.values()):
        candidate = dict(zip(GRID, values, strict=True))
        results = [(symbol, evaluate_forest(part, candidate)) for symbol, part in parts]
        table.append({**candidate, **score(results, "skill_vs_persistence")})
        print(".", end="", flush=True, file=sys.stderr)
    ranked = pd.DataFrame(table).sort_values("mean", ascending=False)
    print("\nSkill against persistence on the eight validation parts, in percent of persistence's squared error:")
    print(ranked.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
