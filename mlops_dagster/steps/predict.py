"""The steps that use a model's champion: its predictions, and how good they were.

A prediction, once made, is never rewritten: the table `predictions` only grows. The same prediction (the same row, by
the same model, from the same inputs) isn't made twice, so running the step again changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration, Predictions
from mlops_dagster.stack.store import StoreError
from mlops_dagster.steps.champion import NoChampion, called, champion_in, load_champion
from mlops_dagster.steps.checking import metrics_of
from mlops_dagster.steps.growing_tables import add_rows, append_rows, what_is_there
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.promote import answers_of, training_set_of
from mlops_dagster.steps.report import StepReport, table_summary, with_pictures, written
from mlops_dagster.steps.rows import (
    digests_of,
    drift_in,
    late_rows,
    rows_to_predict,
    table_to_predict,
    truth_times,
    without_target,
)

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.stack.deployment import Plots
    from mlops_dagster.stack.limits import LimitSettings
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker

_DRIFT_SHOWN = 5


def predictions(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    limits: LimitSettings | None = None,
    read_asset: Callable[[str], object] | None = None,
    spark_session: Callable[[], Any] | None = None,
    plots: Plots = "always",
) -> StepReport:
    """Predict with the champion the rows whose target isn't known yet, or those of `predictions.data`.

    Raises
    ------
    NoChampion, ModelRefused
        If there is no champion, or it can't be loaded. The table keeps its last version.
    ParameterError, UserCodeError, ContractError, CannotPredict, TableNotFound, StoreError, TrackingError
        The table keeps its last version.
    """
    wanted = names.resolve(declaration, names.PREDICTIONS, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    import pandas as pd

    from mlops_dagster.modeling.drift import MIDDLE
    from mlops_dagster.modeling.quality import HORIZON, identity_of

    table, origin_of_rows = table_to_predict(declaration, partition, tables, limits, read_asset, spark_session)
    model, champion = load_champion(partition, tables, tracker.registry, declaration)
    try:
        learned = training_set_of(champion, tables)
    except (StoreError, ValueError) as error:
        who = called(partition, declaration)
        raise NoChampion(
            f"{who.name}: what champion version {champion.version} has learned from can't be read: {error} Bring that "
            f"table back, or train again: mlops build-model {who.options}."
        ) from None
    frame, asked = rows_to_predict(declaration, table, learned)
    if wanted.get("catch_up") and learned.time is not None:
        earlier, _ = what_is_there(names.PREDICTIONS, partition, store)
        late = late_rows(declaration, table, learned, frame, earlier, wanted["catch_up"])
        asked = pd.concat([late, asked])
    made, assumed = _predicted(declaration.predictions, model, learned, asked, wanted)
    counted = None
    if learned.horizon is not None and learned.time is not None:
        then, counted = truth_times(declaration, table, learned)
        made[[*then]] = then.loc[asked.index].reset_index(drop=True)
    made = made.assign(
        model_version=champion.version,
        model_digest=champion.model_digest,
        inputs_digest=digests_of(asked, learned),
        made_at=datetime.now(timezone.utc).replace(tzinfo=None),
        by=origin.orchestrator,
        run_id=origin.run_id,
    ).astype({"made_at": "datetime64[us]"})
    same = [*identity_of(declaration), HORIZON, "interval", "model_digest", "inputs_digest"]

    def grow(earlier: pd.DataFrame | None) -> tuple[pd.DataFrame, int]:
        whole, added = add_rows(earlier, made, [*dict.fromkeys(same)])
        # Of a prediction that was made before it was written down nobody knows that it was late.
        return whole.assign(late=whole["late"].eq(True)) if "late" in whole else whole, added

    whole, grown, added = append_rows(names.PREDICTIONS, partition, store, grow)
    facts: dict[str, Any] = {
        "rows_predicted": len(made),
        "rows_appended": added,
        "champion": champion.version,
        "model_digest": champion.model_digest,
        "origin": origin_of_rows,
        "summary": _summary(declaration, made, added),
    }
    if counted is not None:
        facts["truth_time_counted"] = counted
    if assumed is not None:
        facts["interval"] = assumed
    metrics: dict[str, float] = {}
    shares, count = drift_in(declaration, learned, frame, asked)
    if shares:
        name, most = next(iter(shares.items()))
        metrics["most_drift"] = most
        facts["drift"] = dict([*shares.items()][:_DRIFT_SHOWN])
        facts["drift_summary"] = (
            f"{name} has drifted most: {most:.0%} of its last {count:,} values are none of the usual "
            f"{MIDDLE:.0%} of those in training."
            if most
            else f"No feature has drifted: all of the last {count:,} values are as usual in training."
        )
    report = StepReport(
        step=names.PREDICTIONS,
        symbol=partition,
        data_version=grown.digest,
        table=grown,
        **table_summary(whole),
        facts=facts,
        inputs=tables.used,
        metrics=metrics,
        mlflow_run_id=champion.run_id,
        mlflow_url=tracker.version_url(partition, champion.version),
        model_uri=champion.uri,
        model=declaration.name,
    )
    drawn = {}
    if plots == "always":
        from mlops_dagster.modeling.prediction_plots import pngs_of_predictions

        drawn = pngs_of_predictions(declaration, called(partition, declaration).name, table, whole)
    return with_pictures(report, champion, tracker, drawn)


def predict_rows(
    declaration: Declaration, partition: str, frame: pd.DataFrame, *, store: Store, tracker: Tracker
) -> pd.DataFrame:
    """Let the champion predict rows as the data has them; nothing is written.

    Raises
    ------
    NoChampion, ModelRefused, ContractError, CannotPredict, TableNotFound, StoreError, TrackingError
        As for :func:`predictions`.
    """
    from mlops_dagster.modeling.contract import check_contract

    tables = Inputs(partition, store, known=names.steps_of(declaration))
    model, champion = load_champion(partition, tables, tracker.registry, declaration)
    learned = training_set_of(champion, tables)
    kind: Any = "value" if learned.classes is None else "class"
    said = declaration.predictions or Predictions(output=[kind])
    column = declaration.target.column
    rows = frame if learned.horizon else frame.drop(columns=column, errors="ignore")
    table = check_contract(without_target(declaration, rows), rows, source="the rows to predict")
    _, asked = rows_to_predict(declaration, table, learned)
    return _predicted(said, model, learned, asked, {"interval": said.interval})[0]


def next_predictions(
    declaration: Declaration, model: Any, learned: TrainingSet, tables: Inputs, given: Mapping[str, object]
) -> list[dict[str, Any]]:
    """Return what a champion says of the newest rows, as JSON values; nothing is written.

    Parameters
    ----------
    model, learned : estimator, TrainingSet
        The champion, and what it has learned from.
    given : mapping
        As the step `predictions` takes it: how sure the interval is.

    Raises
    ------
    ParameterError, MlopsError, TableNotFound, StoreError
        As for :func:`predictions`.
    """
    wanted = names.resolve(declaration, names.PREDICTIONS, given)
    table, _ = table_to_predict(declaration, tables.symbol, tables)
    _, asked = rows_to_predict(declaration, table, learned)
    made, _ = _predicted(declaration.predictions, model, learned, asked, wanted)
    return [{str(name): _as_json(value) for name, value in row.items()} for row in made.to_dict("records")]


def _as_json(value: Any) -> Any:
    if value is None or value != value:  # also NaT
        return None
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("T00:00:00")
    return value.item() if hasattr(value, "item") else value


def prediction_quality(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker | None = None,
    inputs: Pins | None = None,
    plots: Plots = "always",
) -> StepReport:
    """Put beside each prediction the truth, if the data has it by now, and keep that as a table.

    The table is made anew each time, so that it always says what today's data says.

    Raises
    ------
    ParameterError, TableNotFound, StoreError
        The table keeps its last good version.
    """
    names.resolve(declaration, names.PREDICTION_QUALITY, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.quality import identity_of, measure, score
    from mlops_dagster.steps.kept import Kept
    from mlops_dagster.steps.state import state_in_short

    metrics = metrics_of(declaration)
    made, _ = tables.read(names.PREDICTIONS)
    frame, _ = tables.read(names.DATA)
    scored = score(declaration, made, frame)
    trained = store.current(names.TRAINING_SET, partition)
    said = {} if trained is None else {name: json.loads(trained.metadata[name]) for name in ("classes", "positive")}
    classes = tuple(said["classes"]) if said.get("classes") else None
    numbers, failed = measure(scored, metrics, classes, said.get("positive"), declaration.baseline.kind)
    newest = made.drop_duplicates([*identity_of(declaration), *({"horizon"} & set(made))])
    waiting = len(newest) - len(scored)
    table = store.write(names.PREDICTION_QUALITY, partition, scored, metadata={"metrics": json.dumps(numbers)})
    used = tables.used
    state = {} if tracker is None else {"state": state_in_short(Kept(tables, tracker.registry, declaration))}
    report = StepReport(
        step=names.PREDICTION_QUALITY,
        symbol=partition,
        data_version=table.digest,
        table=table,
        **table_summary(scored),
        facts={
            "summary": _quality(
                numbers, metrics[0].name, waiting, int(scored["late"].eq(True).sum()) if "late" in scored else 0
            ),
            **state,
            "rows_waiting": waiting,
            **({"not_measured": failed} if failed else {}),
        },
        inputs=used,
        metrics=numbers,
        model=declaration.name,
    )
    champion = champion_in(tables.newest(names.CHAMPION_MODEL))
    drawn = {}
    if plots == "always":
        from mlops_dagster.modeling.prediction_plots import pngs_of_quality

        drawn = pngs_of_quality(declaration, called(partition, declaration).name, scored)
    return report if champion is None else with_pictures(report, champion, tracker, drawn)


# ------------------------------------------------------------------------------------------------ what is said of them


def _predicted(
    said: Predictions | None, model: Any, learned: TrainingSet, rows: pd.DataFrame, wanted: Mapping[str, Any]
) -> tuple[pd.DataFrame, str | None]:
    """Return the columns that say which row it is and what the model says of it; and what intervals assume."""
    from mlops_dagster.modeling.evaluation import probability_names
    from mlops_dagster.modeling.intervals import intervals
    from mlops_dagster.modeling.quality import HORIZON

    output, assumed = (said.output if said else []), None
    named = [name for name in (*learned.key, learned.time, learned.group) if name is not None and name in rows]
    made = rows[[*dict.fromkeys(named)]].reset_index(drop=True)
    if learned.horizon is not None:
        made[HORIZON] = learned.horizon
        # What the prediction began with: data may be adjusted later.
        made["current"] = rows["current"].to_numpy() if "current" in rows else math.nan
    outputs = answers_of(model, learned, rows) if len(rows) else None
    if learned.classes is None:
        made["value"] = [] if outputs is None else outputs.predicted
        made = made.astype({"value": "float64"})
        if "interval" in output:
            level = wanted["interval"]
            made["lower"], made["upper"], made["interval"] = math.nan, math.nan, float(level)
            if outputs is not None:
                made["lower"], made["upper"], assumed = intervals(
                    model, learned, rows, level, by_leaves_alone=said is not None and said.interval_from == "leaves"
                )
        return made, assumed
    made["class"] = learned.targets(learned.rows("train")).iloc[:0] if outputs is None else outputs.predicted
    if "probabilities" in output:
        if outputs is not None and outputs.probabilities is None:
            cure = "leave probabilities out of predictions.output, or choose an estimator that has them."
            raise MlopsError(f"{type(model).__name__} has no predict_proba; {cure}")
        for place, name in enumerate(probability_names(learned.classes)):
            made[name] = (
                math.nan if outputs is None or outputs.probabilities is None else outputs.probabilities[:, place]
            )
    return made, None


# ------------------------------------------------------------------------------------------------------- in words


def _summary(declaration: Declaration, made: pd.DataFrame, added: int) -> str:
    asked = len(made)
    if not asked:
        column = declaration.target.column
        return f"Nothing to predict: every row's {column} is known. Add rows without it, or give predictions.data."
    times = made["truth_time"].dropna() if "truth_time" in made else ()
    ends = [written(one) for one in (min(times), max(times))] if len(times) else []
    when = f" for {' to '.join(dict.fromkeys(ends))}" if ends else ""
    there = f", {asked - added:,} {'was' if asked - added == 1 else 'were'} there already" if added < asked else ""
    return f"{added:,} prediction{'s'[: added != 1]} made{when}{there}."


def _quality(numbers: Mapping[str, float], metric: str, waiting: int, late: int) -> str:
    wait = f" {waiting:,} wait{'s'[: waiting == 1]} for {'its' if waiting == 1 else 'their'} truth." if waiting else ""
    count = int(numbers["rows_scored"])
    if not count:
        return f"Nothing to score yet: no truth has come.{wait}"
    said = f"Of {count:,} prediction{'s'[: count != 1]} the truth has come"
    if metric in numbers:
        said += f": {metric} is {numbers[metric]:.4g}"
    if "coverage" in numbers:
        said += f"; {numbers['coverage']:.0%} lay inside their interval, {numbers['interval']:.0%} were meant to"
    if late:
        said += f". {late:,} {'was' if late == 1 else 'were'} made late, when the truth was known"
    return f"{said}.{wait}"
