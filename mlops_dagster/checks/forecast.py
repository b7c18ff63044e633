"""What Dagster checks about each symbol's forecasts.

All of these warn: a forecast is made all the same, and what to do about it is for people, or for the sensor
`poor_forecasts`, to say.
"""

import dagster as dg

from mlops_dagster.assets.step_assets import forecast_quality, price_forecast
from mlops_dagster.checks.each_symbol import check_of_each_symbol, not_judged, warning
from mlops_dagster.compute.inputs import tables_of_run
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Tracker


@check_of_each_symbol(price_forecast)
def forecast_is_fresh(context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    """The newest forecast was made from the newest price."""
    tables = tables_of_run(context, store)
    (forecasts, _), (prices, _) = tables.read("price_forecast"), tables.read("prices")
    made, newest = forecasts["Date"].max(), prices["Date"].iloc[-1]
    late = int((prices["Date"] > made).sum())
    behind = f": {late} day{'s' if late != 1 else ''} behind; run forecast_pipeline." if late else "."
    return warning(
        made == newest,
        f"The newest forecast is from {made:%Y-%m-%d}, the newest price of {newest:%Y-%m-%d}{behind}",
        days_behind=late,
        forecast_from=f"{made:%Y-%m-%d}",
        newest_price=f"{newest:%Y-%m-%d}",
    )


@check_of_each_symbol(price_forecast)
def features_have_not_drifted(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store], tracker: dg.ResourceParam[Tracker]
) -> dg.AssetCheckResult:
    """At least half of each feature's values of the last month lie in the range that the champion learned from."""
    from mlops_dagster.ml.drift import MIDDLE, MOST_OUTSIDE, RECENT_ROWS, share_outside
    from mlops_dagster.ml.forecasting import rows_learned_from
    from mlops_dagster.steps.champion import by_its_recipe, champion_of

    symbol = context.partition_key
    champion = champion_of(symbol, store)
    if champion is None:
        return not_judged(f"there is no champion of {symbol} to compare with.")
    registered = tracker.registry.get(symbol, *champion)
    prices, _ = tables_of_run(context, store).read("prices")
    data, knows_until = by_its_recipe(registered, prices), registered.tags["knows_until"]
    learned = rows_learned_from(data, knows_until)
    if learned.empty:
        return warning(
            False, f"Today's prices have none of the rows up to {knows_until} that the champion learned from."
        )
    features = list(data.features)
    shares = share_outside(learned[features], data.frame[features].tail(RECENT_ROWS))
    name, most = next(iter(shares.items()))
    return warning(
        most <= MOST_OUTSIDE,
        f"{name} has drifted most: {most:.0%} of its last {RECENT_ROWS} values lie outside the middle {MIDDLE:.0%} of "
        f"those in training; up to {MOST_OUTSIDE:.0%} pass.",
        **{f"outside_{feature}": share for feature, share in shares.items()},
    )


@check_of_each_symbol(forecast_quality)
def forecast_error_has_not_drifted(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """The rmse of the last month is at most 1.5 times the champion's on rows that it hasn't learned from."""
    from mlops_dagster.ml.drift import MOST_ERROR, RECENT_ROWS, error_drift
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    scored, _ = tables_of_run(context, store).read("forecast_quality")
    drift = error_drift(of_newest_horizon(scored))
    if drift.days < RECENT_ROWS:
        return _too_few(drift.days, RECENT_ROWS)
    if not drift.expected > 0:
        return not_judged("the champion has learned from all days, so there is no error to expect.")
    return warning(
        drift.ratio <= MOST_ERROR,
        f"The rmse of the last {drift.days} scored days is {drift.recent:.3%} of the price, {drift.ratio:.2f} times "
        f"the champion's {drift.expected:.3%} on rows unseen in training; up to {MOST_ERROR} times pass.",
        recent_rmse_of_price=drift.recent,
        expected_rmse_of_price=drift.expected,
        times=drift.ratio,
        days=drift.days,
    )


@check_of_each_symbol(forecast_quality)
def interval_covers_the_truth(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """The last quarter's prices lie inside their interval as often as was meant, or chance explains the difference."""
    from mlops_dagster.ml.drift import COVERAGE_DAYS, RECENT_ROWS, UNLIKELY, chance_of_so_few_inside
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    scored, _ = tables_of_run(context, store).read("forecast_quality")
    last = of_newest_horizon(scored).tail(COVERAGE_DAYS)
    if len(last) < RECENT_ROWS:
        return _too_few(len(last), RECENT_ROWS)
    chance, inside, meant = chance_of_so_few_inside(last), float(last["inside"].mean()), float(last["interval"].mean())
    return warning(
        chance >= UNLIKELY,
        f"Of the last {len(last)} scored days {inside:.0%} lie inside their interval, {meant:.0%} were expected "
        f"to. The chance of so few is {chance:.2g}; {UNLIKELY} or more passes.",
        coverage=inside,
        interval=meant,
        chance=chance,
        days=len(last),
    )


def _too_few(days: int, needed: int) -> dg.AssetCheckResult:
    return not_judged(f"{days} days are scored, {needed} are needed.", days=days)


CHECKS = [
    forecast_is_fresh,
    features_have_not_drifted,
    forecast_error_has_not_drifted,
    interval_covers_the_truth,
]
