"""What Dagster checks about each symbol's data and model, and says in words: no gate depends on them."""

import json
from collections.abc import Sequence

import dagster as dg

from mlops_dagster.assets.step_assets import champion_model, prices, trained_model, training_set
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.stack.registry import CHAMPION, ModelRefused, Registry
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.champion import TABLE, champion_in
from mlops_dagster.steps.findings import Finding

LONGEST_GAP_DAYS = 7  # A weekend with two bank holidays is 5; New York closed for 7 days after 11 September 2001.
WILDEST_DAY = 0.25  # No index here ever moved by a quarter in a day; an unadjusted split moves a price by a half.


@check_of_each_partition(prices, blocking=True, severity=dg.AssetCheckSeverity.ERROR)
def prices_keep_the_contract(tables: Inputs, registry: Registry) -> Finding:
    """The stored prices satisfy the contract that they were written under, read back from the table."""
    from mlops_dagster.ml.prices import PriceDataError, validate_prices

    frame, table = tables.read("prices")
    try:
        validate_prices(frame, source=f"table {table.uri}, version {table.version}")
    except PriceDataError as error:
        return Finding(False, str(error))
    return Finding(True, "They do.", {"rows": table.rows, "table_version": table.version})


@check_of_each_partition(prices)
def prices_have_no_long_gap(tables: Inputs, registry: Registry) -> Finding:
    """No two neighbouring trading days lie more than a week apart."""
    frame, _ = tables.read("prices")
    gaps = frame["Date"].diff().dt.days.fillna(0)
    longest = int(gaps.max())
    before = frame["Date"].iloc[int(gaps.argmax())].date()
    return Finding(
        longest <= LONGEST_GAP_DAYS,
        f"The longest gap is {longest} days, before {before}; up to {LONGEST_GAP_DAYS} are usual.",
        {"longest_gap_days": longest, "days_of_long_gaps": int((gaps > LONGEST_GAP_DAYS).sum())},
    )


@check_of_each_partition(prices)
def prices_have_no_wild_day(tables: Inputs, registry: Registry) -> Finding:
    """No price moves by a quarter in a day, as it does when a split wasn't adjusted for."""
    frame, _ = tables.read("prices")
    moves = frame["AdjClose"].pct_change().abs().fillna(0)
    wildest = float(moves.max())
    day = frame["Date"].iloc[int(moves.argmax())].date()
    return Finding(
        wildest <= WILDEST_DAY,
        f"The largest move is {wildest:.1%}, on {day}; up to {WILDEST_DAY:.0%} passes.",
        {"largest_move": wildest, "wild_days": int((moves > WILDEST_DAY).sum())},
    )


@check_of_each_partition(training_set)
def training_set_leaks_nothing(tables: Inputs, registry: Registry) -> Finding:
    """No training row knows anything of the test rows' time. The article's recipe fails this, as it must."""
    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.recipes import TrainingSet

    frame, table = tables.read("training_set")
    data = TrainingSet.from_table(frame, table.metadata)
    leaks = find_leaks(data)
    said = " ".join(leaks) or "Every training row's truth is known before the first test row."
    return Finding(not leaks, said, {"recipe": data.recipe, "leaks": len(leaks)})


def _skill(tables: Inputs, metric: str, rival: str) -> Finding:
    _, table = tables.read("trained_model")
    skill = json.loads(table.metadata["metrics"])[metric]
    verdict = "smaller" if skill > 0 else "no smaller"
    return Finding(
        skill > 0,
        f"The model's squared error on the test rows is {verdict} than that of {rival}: skill {skill:.5f}.",
        {metric: skill, "recipe": table.metadata["recipe"]},
    )


@check_of_each_partition(trained_model)
def model_beats_persistence(tables: Inputs, registry: Registry) -> Finding:
    """The model forecasts better than "the price stays as it is"."""
    return _skill(tables, "skill_vs_persistence", "'the price stays as it is'")


@check_of_each_partition(trained_model)
def model_beats_training_mean(tables: Inputs, registry: Registry) -> Finding:
    """The model forecasts better than the training rows' mean."""
    return _skill(tables, "skill_vs_training_mean", "the training rows' mean")


@check_of_each_partition(champion_model, severity=dg.AssetCheckSeverity.ERROR)
def champion_is_what_was_registered(tables: Inputs, registry: Registry) -> Finding:
    """The champion has the alias, can be loaded, and is the very forest that was registered."""
    return as_registered(tables, registry)


def as_registered(tables: Inputs, registry: Registry, trusted: Sequence[str] = ()) -> Finding:
    """Whether the champion has the alias and can be loaded."""
    champion = champion_in(tables.newest(TABLE))
    if champion is None:
        return Finding(None, "there is no champion; no model has been good enough so far.")
    try:
        registry.load(tables.symbol, *champion, trusted=trusted)
    except ModelRefused as error:
        return Finding(False, str(error))
    holder = registry.holder(tables.symbol, CHAMPION)
    if holder != champion:
        other = "nobody has the alias" if holder is None else f"the alias has version {holder.version}"
        said = f"The table says version {champion.version}, {other}: decide again (mlops promote)."
        return Finding(False, said)
    numbers = {"model_version": champion.version, "model_digest": champion.model_digest}
    return Finding(True, f"Version {champion.version} was loaded.", numbers)


CHECKS = [
    prices_keep_the_contract,
    prices_have_no_long_gap,
    prices_have_no_wild_day,
    training_set_leaks_nothing,
    model_beats_persistence,
    model_beats_training_mean,
    champion_is_what_was_registered,
]
