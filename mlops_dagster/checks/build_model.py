"""What Dagster checks about each symbol's data and model, and says in words: no gate depends on them."""

import json

import dagster as dg

from mlops_dagster.assets.step_assets import champion_model, prices, trained_model, training_set
from mlops_dagster.checks.each_symbol import check_of_each_symbol, not_judged, warning
from mlops_dagster.compute.inputs import tables_of_run
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Tracker

LONGEST_GAP_DAYS = 7  # A weekend with two bank holidays is 5; New York closed for 7 days after 11 September 2001.
WILDEST_DAY = 0.25  # No index here ever moved by a quarter in a day; an unadjusted split moves a price by a half.


@check_of_each_symbol(prices, blocking=True)
def prices_keep_the_contract(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """The stored prices satisfy the contract that they were written under, read back from the table."""
    from mlops_dagster.ml.prices import PriceDataError, validate_prices

    frame, table = tables_of_run(context, store).read("prices")
    try:
        validate_prices(frame, source=f"table {table.uri}, version {table.version}")
    except PriceDataError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    return dg.AssetCheckResult(passed=True, metadata={"rows": table.rows, "table_version": table.version})


@check_of_each_symbol(prices)
def prices_have_no_long_gap(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """No two neighbouring trading days lie more than a week apart."""
    frame, _ = tables_of_run(context, store).read("prices")
    gaps = frame["Date"].diff().dt.days.fillna(0)
    longest = int(gaps.max())
    before = frame["Date"].iloc[int(gaps.argmax())].date()
    return warning(
        longest <= LONGEST_GAP_DAYS,
        f"The longest gap is {longest} days, before {before}; up to {LONGEST_GAP_DAYS} are usual.",
        longest_gap_days=longest,
        days_of_long_gaps=int((gaps > LONGEST_GAP_DAYS).sum()),
    )


@check_of_each_symbol(prices)
def prices_have_no_wild_day(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """No price moves by a quarter in a day, as it does when a split wasn't adjusted for."""
    frame, _ = tables_of_run(context, store).read("prices")
    moves = frame["AdjClose"].pct_change().abs().fillna(0)
    wildest = float(moves.max())
    day = frame["Date"].iloc[int(moves.argmax())].date()
    return warning(
        wildest <= WILDEST_DAY,
        f"The largest move is {wildest:.1%}, on {day}; up to {WILDEST_DAY:.0%} passes.",
        largest_move=wildest,
        wild_days=int((moves > WILDEST_DAY).sum()),
    )


@check_of_each_symbol(training_set)
def training_set_leaks_nothing(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """No training row knows anything of the test rows' time. The article's recipe fails this, as it must."""
    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.recipes import TrainingSet

    frame, table = tables_of_run(context, store).read("training_set")
    data = TrainingSet.from_table(frame, table.metadata)
    leaks = find_leaks(data)
    said = " ".join(leaks) or "Every training row's truth is known before the first test row."
    return warning(not leaks, said, recipe=data.recipe, leaks=len(leaks))


def _skill(context: dg.AssetCheckExecutionContext, store: Store, metric: str, rival: str) -> dg.AssetCheckResult:
    _, table = tables_of_run(context, store).read("trained_model")
    skill = json.loads(table.metadata["metrics"])[metric]
    verdict = "smaller" if skill > 0 else "no smaller"
    return warning(
        skill > 0,
        f"The model's squared error on the test rows is {verdict} than that of {rival}: skill {skill:.5f}.",
        **{metric: skill, "recipe": table.metadata["recipe"]},
    )


@check_of_each_symbol(trained_model)
def model_beats_persistence(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """The model forecasts better than "the price stays as it is"."""
    return _skill(context, store, "skill_vs_persistence", "'the price stays as it is'")


@check_of_each_symbol(trained_model)
def model_beats_training_mean(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    """The model forecasts better than the training rows' mean."""
    return _skill(context, store, "skill_vs_training_mean", "the training rows' mean")


@check_of_each_symbol(champion_model)
def champion_is_what_was_registered(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store], tracker: dg.ResourceParam[Tracker]
) -> dg.AssetCheckResult:
    """The champion has the alias, can be loaded, and is the very forest that was registered."""
    from mlops_dagster.stack.registry import CHAMPION, ModelRefused
    from mlops_dagster.steps import champion_of

    symbol, registry = context.partition_key, tracker.registry
    champion = champion_of(symbol, store)
    if champion is None:
        return not_judged("there is no champion; no model has been good enough so far.")
    try:
        registry.load(symbol, *champion)
    except ModelRefused as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    holder = registry.holder(symbol, CHAMPION)
    if holder != champion:
        other = "nobody has the alias" if holder is None else f"the alias has version {holder.version}"
        description = f"The table says version {champion.version}, {other}: decide again (mlops promote)."
        return dg.AssetCheckResult(passed=False, description=description)
    return dg.AssetCheckResult(
        passed=True,
        description=f"Version {champion.version} was loaded.",
        metadata={"model_version": champion.version, "model_digest": champion.model_digest},
    )


CHECKS = [
    prices_keep_the_contract,
    prices_have_no_long_gap,
    prices_have_no_wild_day,
    training_set_leaks_nothing,
    model_beats_persistence,
    model_beats_training_mean,
    champion_is_what_was_registered,
]
