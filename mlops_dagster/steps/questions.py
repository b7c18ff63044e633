"""Whether a model's predictions are as they should be: questions, answered from its tables."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of
from mlops_dagster.spec.model import Declaration
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.promote import training_set_of
from mlops_dagster.steps.rows import DRIFT_ROWS, digests_of, drift_in, rows_to_predict, table_to_predict

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.metrics import Metric
    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.stack.registry import Registry, VersionKey
    from mlops_dagster.stack.store import TableVersion
    from mlops_dagster.steps.inputs import Inputs

_FEWEST = 20  # predictions; of fewer a metric says more of chance than of the model


@dataclass(frozen=True)
class Finding:
    """An answer.

    Parameters
    ----------
    good : bool or None
        None if there is nothing to judge yet.
    said : str
        Why, in a sentence.
    numbers : dict
        What it was judged by.
    """

    good: bool | None
    said: str
    numbers: dict[str, Any] = field(default_factory=dict)


def questions_of(declaration: Declaration) -> Mapping[str, Callable[[Inputs, Registry], Finding]]:
    """Return what is asked of a model that predicts, as people ask it, each with what answers it."""
    said = declaration.predictions
    if said is None:
        return {}
    asked: dict[str, Callable[..., Finding]] = {}
    if said.data is None or said.data.asset is None:  # the value of another's asset is known where Dagster runs only
        asked = {
            "Are the predictions up to date?": predictions_are_current,
            "Do the features look as in training?": features_have_not_drifted,
        }
    if names.PREDICTION_QUALITY in names.steps_of(declaration):
        asked["Are they better than the baseline?"] = predictions_beat_baseline
        if "interval" in said.output:
            asked["Do the intervals hold?"] = interval_covers_the_truth
    return {question: functools.wraps(ask)(functools.partial(ask, declaration)) for question, ask in asked.items()}


def predictions_are_current(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """The champion has predicted every row that is to be predicted, as the row is now."""
    made, _ = tables.read(names.PREDICTIONS)
    champion = champion_in(tables.newest(names.CHAMPION_MODEL))
    if champion is None:
        return _no_champion()
    if elsewhere := _elsewhere(declaration):
        return elsewhere
    learned, _, asked = _rows(declaration, champion, tables, registry)
    known = made.loc[made["model_digest"] == champion.model_digest, "inputs_digest"]
    waiting = sum(one not in set(known) for one in digests_of(asked, learned))
    cure = f" Run {declaration.named('predict_pipeline')}." if waiting else ""
    return Finding(
        not waiting,
        f"{waiting} of {len(asked)} rows to predict have no prediction by champion version {champion.version}.{cure}",
        {"rows_waiting": waiting, "newest_prediction": f"{made['made_at'].max():%Y-%m-%d %H:%M}" if len(made) else ""},
    )


def features_have_not_drifted(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """At least half of each feature's recent values are as usual among those that the champion learned from."""
    champion = champion_in(tables.newest(names.CHAMPION_MODEL))
    if champion is None:
        return _no_champion()
    if elsewhere := _elsewhere(declaration):
        return elsewhere
    shares, count = drift_in(declaration, *_rows(declaration, champion, tables, registry))
    if not shares:
        return Finding(None, f"there are {count} rows to predict; {DRIFT_ROWS} are needed.")
    from mlops_dagster.modeling.drift import MIDDLE, MOST_OUTSIDE

    name, most = next(iter(shares.items()))
    return Finding(
        most <= MOST_OUTSIDE,
        f"{name} has drifted most: {most:.0%} of its last {count} values lie outside the middle {MIDDLE:.0%} of "
        f"those in training; up to {MOST_OUTSIDE:.0%} pass.",
        {f"outside_{feature}": share for feature, share in shares.items()},
    )


def predictions_beat_baseline(
    declaration: Declaration, tables: Inputs, registry: Registry | None = None, *, fewest: int = _FEWEST
) -> Finding:
    """The last 100 predictions whose truth has come are better than the baseline (persistence: on the same rows)."""
    _, scored = tables.read(names.PREDICTION_QUALITY)
    _, trained = tables.read(names.TRAINED_MODEL)
    return last_predictions_beat_baseline(declaration, scored, trained, fewest=fewest)


def last_predictions_beat_baseline(
    declaration: Declaration,
    scored: TableVersion,
    trained: TableVersion,
    *,
    fewest: int = _FEWEST,
    metric: Metric | None = None,
) -> Finding:
    """Say the same of versions of the two tables: what they are worth stands in their logs."""
    measured = json.loads(scored.metadata["metrics"])
    if measured["rows_scored"] < fewest:
        return Finding(None, f"the truth of {scored.rows} predictions has come; {fewest} are needed.")
    recent = {
        name.removesuffix(names.OF_LAST): value for name, value in measured.items() if name.endswith(names.OF_LAST)
    }
    return beats_baseline(declaration, json.loads(trained.metadata["metrics"]) | measured | recent, metric)


def interval_covers_the_truth(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """The last truths lie inside their interval as often as was meant, or chance explains the difference."""
    from mlops_dagster.modeling.drift import COVERAGE_ROWS, FEWEST_ROWS, UNLIKELY, chance_of_so_few_inside

    scored, _ = tables.read(names.PREDICTION_QUALITY)
    last = scored.dropna(subset=["inside"]).tail(COVERAGE_ROWS)
    if len(last) < FEWEST_ROWS:
        return Finding(
            None, f"{len(last)} predictions are scored, {FEWEST_ROWS} are needed.", {"predictions": len(last)}
        )
    chance, inside, meant = chance_of_so_few_inside(last), float(last["inside"].mean()), float(last["interval"].mean())
    return Finding(
        chance >= UNLIKELY,
        f"Of the last {len(last)} scored predictions {inside:.0%} lie inside their interval, {meant:.0%} were expected "
        f"to. The chance of so few is {chance:.2g}; {UNLIKELY} or more passes.",
        {"coverage": inside, "interval": meant, "chance": chance, "predictions": len(last)},
    )


def metric_that_counts(declaration: Declaration) -> Metric:
    """Return what a model's champion is chosen by. It takes milliseconds: scikit-learn has many."""
    from mlops_dagster.modeling.metrics import metric_of

    said = declaration.gate.metric or declaration.metrics[0]
    return metric_of(said, declaration, function_of(declaration, said))


def beats_baseline(declaration: Declaration, measured: Mapping[str, float], metric: Metric | None = None) -> Finding:
    """Say whether the metric that counts is better than the baseline's."""
    from mlops_dagster.modeling.evaluation import skill_of

    metric = metric or metric_that_counts(declaration)
    ours, theirs = measured[metric.name], measured[f"{metric.name}_baseline"]
    skill = skill_of(metric, measured)
    return Finding(
        metric.better(ours, theirs),
        f"{metric.name} is {ours:.5g}, that of the baseline ({declaration.baseline.kind}) {theirs:.5g}; the "
        f"{'larger' if metric.greater_is_better else 'smaller'} the better.",
        {metric.name: ours, f"{metric.name}_baseline": theirs}
        | ({} if skill is None else {"skill_vs_baseline": skill}),
    )


def _rows(
    declaration: Declaration, champion: VersionKey, tables: Inputs, registry: Registry
) -> tuple[TrainingSet, pd.DataFrame, pd.DataFrame]:
    """Return what the champion has learned from, all rows of today with its features, and those to predict."""
    learned = training_set_of(registry.get(tables.symbol, *champion), tables)
    table, _ = table_to_predict(declaration, tables.symbol, tables)
    return learned, *rows_to_predict(declaration, table, learned)


def _elsewhere(declaration: Declaration) -> Finding | None:
    data = declaration.predictions.data if declaration.predictions else None
    where = data and (data.asset or data.table)
    return Finding(None, f"the rows to predict are in {where}, which only a run reads.") if where else None


def _no_champion() -> Finding:
    return Finding(None, "there is no champion to compare with.")
