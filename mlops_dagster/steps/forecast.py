"""The steps of `forecast_pipeline` that come after the prices: the champion's forecasts, and how good they were.

A forecast, once made, is never rewritten: the table `price_forecast` only grows. The same forecast (the same day,
horizon, model, interval and inputs) isn't made twice, so running a step again changes nothing, not even the table's
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.pipelines import FORECASTING_DEFAULTS
from mlops_dagster.steps.champion import load_champion
from mlops_dagster.steps.growing_tables import add_rows, append_rows
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.price_models import training_set_of
from mlops_dagster.steps.report import StepReport, table_summary, with_pictures

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.stack.registry import RegisteredVersion
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker

TABLE = "price_forecast"
_SAME = ("Date", "horizon", "interval", "model_digest", "inputs_digest")


def price_forecast(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    exchange: str = "XNYS",
) -> StepReport:
    """Forecast the days whose price isn't known yet with the symbol's champion, and add what is new to the table.

    Parameters
    ----------
    given : mapping
        ``interval``, ``catch_up`` as in `pipelines.PRICE_FORECAST`.
    store : Store
        Holds the tables `prices` and `champion_model`; gets the forecasts as the table `price_forecast`.
    tracker : Tracker
        Whose registry holds the champion.
    exchange : str
        On whose days the symbol is traded, see :func:`mlops_dagster.stack.exchanges.next_trading_days`.

    Raises
    ------
    NoChampion, ModelRefused
        If there is no champion, or it can't be loaded. The table keeps its last version.
    ParameterError, TableNotFound, StoreError, TrackingError, ForecastError
        The table keeps its last version.
    """
    pipelines.check_symbol(symbol)
    checked = pipelines.check_parameters(pipelines.PRICE_FORECAST.parameters, given)
    wanted: dict[str, Any] = {**FORECASTING_DEFAULTS, **checked}
    tables = Inputs(symbol, store, inputs)

    from mlops_dagster.ml import forecast_plots
    from mlops_dagster.stack.exchanges import next_trading_days

    price_frame, _ = tables.read("prices")
    model, champion = load_champion(symbol, tables, tracker.registry)
    data = training_set_of(model, champion, price_frame)
    knows_until = champion.tags["knows_until"]
    ahead, counted = next_trading_days(price_frame["Date"], data.horizon, exchange)

    def with_forecasts(earlier: pd.DataFrame | None) -> tuple[pd.DataFrame, tuple[pd.DataFrame, int]]:
        rows = _rows_to_forecast(data, earlier, catch_up=wanted["catch_up"], knows_until=knows_until)
        made = _forecasts(model, champion, data, rows, ahead, wanted["interval"])
        made = made.assign(
            made_at=datetime.now(timezone.utc).replace(tzinfo=None),
            by=origin.orchestrator,
            run_id=origin.run_id,
        )
        before = None if earlier is None else earlier.astype(_COLUMNS)
        whole, added = add_rows(before, made[list(_COLUMNS)].astype(_COLUMNS), _SAME)
        return whole, (made, added)

    # Where nothing is new the table's content is the same, and then the store writes nothing.
    whole, table, (made, added) = append_rows(TABLE, symbol, store, with_forecasts)
    newest = made.iloc[-1]
    plot = forecast_plots.price_forecast_plot(symbol, price_frame, whole, made)
    report = StepReport(
        step="price_forecast",
        symbol=symbol,
        data_version=table.digest,
        table=table,
        **table_summary(whole),
        facts={
            "made_on": str(newest["Date"].date()),
            "target_date": str(newest["TargetDate"].date()),
            "horizon": data.horizon,
            "days_counted": counted,
            "interval": wanted["interval"],
            "champion": champion.version,
            "model_digest": champion.model_digest,
            "rows_appended": added,
        },
        inputs=tables.used,
        metrics={
            **{name: float(newest[name]) for name in ("price", "forecast", "lower", "upper")},
            "change_percent": 100 * (float(newest["forecast"]) / float(newest["price"]) - 1),
        },
    )
    key = (champion.version, champion.model_digest)
    return with_pictures(report, key, tracker, {"forecast_and_price": forecast_plots.to_png(plot)})


def forecast_quality(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker | None = None,
    inputs: Pins | None = None,
) -> StepReport:
    """Put beside each forecast whose day has come the price that came, and keep it as a table.

    The table is made anew each time, so that it always says what today's prices say. As long as no truth has come it
    has no rows.

    Parameters
    ----------
    given : mapping
        Nothing: the step has no parameters.
    store : Store
        Holds the tables `price_forecast` and `prices`; gets the table `forecast_quality`.
    tracker : Tracker, optional
        Whose MLflow keeps the picture, with the model that made the newest of the forecasts.

    Raises
    ------
    ParameterError, TableNotFound, StoreError
        The table keeps its last good version.
    """
    pipelines.check_symbol(symbol)
    pipelines.check_parameters(pipelines.FORECAST_QUALITY.parameters, given)
    tables = Inputs(symbol, store, inputs)

    from mlops_dagster.ml import forecast_plots
    from mlops_dagster.ml.forecast_quality import of_newest_horizon, rolling_metrics, score
    from mlops_dagster.steps.kept import Kept
    from mlops_dagster.steps.state import state_in_short

    forecasts, _ = tables.read(TABLE)
    price_frame, _ = tables.read("prices")
    scored = score(forecasts, price_frame)
    table = store.write("forecast_quality", symbol, scored)
    latest = of_newest_horizon(scored)
    metrics, used = rolling_metrics(latest), tables.used
    days = forecasts.drop_duplicates(["Date", "horizon"])
    report = StepReport(
        step="forecast_quality",
        symbol=symbol,
        data_version=table.digest,
        table=table,
        **table_summary(scored),
        facts={
            "summary": _summary(metrics),
            **({"state": state_in_short(Kept(tables, tracker.registry))} if tracker is not None else {}),
            "days_waiting": len(days) - len(scored),
            "horizon": None if latest.empty else int(latest["horizon"].iloc[-1]),
            "first_day": None if latest.empty else str(latest["Date"].iloc[0].date()),
            "last_day": None if latest.empty else str(latest["Date"].iloc[-1].date()),
        },
        inputs=used,
        metrics=metrics,
    )
    if latest.empty:
        return report
    pictures = {"quality": forecast_plots.to_png(forecast_plots.quality_plot(symbol, latest))}
    newest = latest.iloc[-1]
    return with_pictures(report, (newest["model_version"], newest["model_digest"]), tracker, pictures)


def next_forecast(
    model: RandomForestRegressor,
    champion: RegisteredVersion,
    prices: pd.DataFrame,
    *,
    interval: float = FORECASTING_DEFAULTS["interval"],
    exchange: str = "XNYS",
) -> dict[str, Any]:
    """Return what `price_forecast` would say of the newest price, as JSON values. Nothing is written.

    Parameters
    ----------
    model, champion
        As :func:`mlops_dagster.steps.load_champion` returns them.
    prices : DataFrame
        The table `prices`.
    interval : float
        The share of prices that the interval is meant to hold.
    exchange : str
        As of :func:`price_forecast`.

    Raises
    ------
    ModelRefused, ParameterError, ForecastError
        As :func:`price_forecast` does.
    """
    pipelines.check_parameters(pipelines.FORECASTING, {"interval": interval})

    from mlops_dagster.stack.exchanges import next_trading_days

    data = training_set_of(model, champion, prices)
    ahead, _ = next_trading_days(prices["Date"], data.horizon, exchange)
    newest = _forecasts(model, champion, data, data.frame.tail(1), ahead, interval).iloc[0]
    return newest_as_json(champion.symbol, newest)


def newest_as_json(symbol: str, newest: pd.Series[Any]) -> dict[str, Any]:
    """Return what there is to know about a forecast, a row of the table, as JSON values."""
    return {
        "symbol": symbol,
        "made_on": str(newest["Date"].date()),
        "target_date": str(newest["TargetDate"].date()),
        **{name: float(newest[name]) for name in ("price", "forecast", "lower", "upper", "interval")},
        "model_version": newest["model_version"],
    }


# ------------------------------------------------------------------------------------------------------- the table


def _forecasts(
    model: RandomForestRegressor,
    champion: RegisteredVersion,
    data: TrainingSet,
    rows: pd.DataFrame,
    ahead: pd.DatetimeIndex,
    interval: float,
) -> pd.DataFrame:
    """Forecast some rows; each says which day it is for, by which model, and whether the day had come already."""
    from mlops_dagster.ml.forecasting import make_forecasts

    made = make_forecasts(model, data, rows, knows_until=champion.tags["knows_until"], interval=interval)
    return made.assign(
        TargetDate=_target_dates(data, rows, ahead),
        late=rows["truth"].notna().to_numpy(),
        model_version=champion.version,
        model_digest=champion.model_digest,
    )


def _rows_to_forecast(
    data: TrainingSet, earlier: pd.DataFrame | None, *, catch_up: int, knows_until: str
) -> pd.DataFrame:
    """Return the days whose truth isn't known yet, and before them those that are to be caught up."""
    import pandas as pd

    frame = data.frame
    past = frame[frame["truth"].notna()].tail(catch_up) if catch_up else frame.iloc[:0]
    past = past[past["Date"] > pd.Timestamp(knows_until)]
    if earlier is not None:
        past = past[~past["Date"].isin(earlier.loc[earlier["horizon"] == data.horizon, "Date"])]
    return pd.concat([past, frame[frame["truth"].isna()]])


def _target_dates(data: TrainingSet, rows: pd.DataFrame, ahead: pd.DatetimeIndex) -> Any:
    """Return the days that forecasts are for: as they came, and then as they are expected."""
    import pandas as pd

    days = data.frame["Date"].shift(-data.horizon)
    days[data.frame["truth"].isna()] = pd.Series(ahead, index=data.frame.index[-data.horizon :])
    return days.loc[rows.index].to_numpy()


_COLUMNS = {
    **dict.fromkeys(("Date", "TargetDate"), "datetime64[us]"),
    "horizon": "int64",
    **dict.fromkeys(("price", "forecast", "lower", "upper", "interval", "trees_lower", "trees_upper"), "float64"),
    "expected_rmse": "float64",
    "late": "bool",
    **dict.fromkeys(("model_version", "model_digest", "inputs_digest"), "object"),
    "made_at": "datetime64[us]",
    **dict.fromkeys(("by", "run_id"), "object"),
}


def _summary(metrics: Mapping[str, float]) -> str:
    if not metrics["days_scored"]:
        return "Nothing to score yet: no day that was forecast has come."
    skill = metrics["skill_vs_persistence_20"]
    return (
        f"Of the last {min(metrics['days_scored'], 20):.0f} scored days {metrics['coverage_20']:.0%} lay inside their "
        f"interval, {metrics['interval_20']:.0%} were expected to. The squared error was {abs(skill):.2%} "
        f"{'smaller' if skill > 0 else 'larger'} than that of 'the price stays as it is'."
    )
