"""The gate of any model: what is compared, on which rows, and what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.modeling import resampling
from mlops_dagster.modeling.gate import (
    Answers,
    NotComparable,
    Rules,
    decide,
    rows_as_champion_knows_them,
    rows_to_judge_on,
    with_mode,
)
from mlops_dagster.modeling.metrics import metric_of
from mlops_dagster.modeling.outputs import Outputs
from mlops_dagster.modeling.resampling import Resamples, Units, units_of
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import declare, lagged


def rows_of(count):
    return Units([np.array([place]) for place in range(count)], 1, "rows")


def errors(*columns, **rows):
    """Answers that are wrong by so much, to a truth of 0: the challenger's, the champion's, the baseline's."""
    challenger, champion, baseline = (Outputs(value=np.asarray(one, dtype=float)) for one in columns)
    count = len(challenger)
    return Answers(
        pd.DataFrame(rows, index=range(count)), np.zeros(count), rows_of(count), challenger, baseline, champion
    )


def judge(answers, metric="neg_mean_absolute_error", problem=None, leaks=(), **rules):
    declaration = declare(pd.DataFrame({"x": [1.0], "y": [1.0]}), "y", metrics=[metric])
    champion = "3" if answers.champion is not None else None
    return decide(
        answers,
        metric_of(metric, declaration),
        Rules(**{"beat_baseline": False, **rules}),
        baseline="mean",
        leaks=leaks,
        champion=champion,
        champion_problem=problem,
    )


def said(decision):
    return decision.promote, decision.outcome, decision.reason


def test_what_it_says():
    draws = np.random.default_rng(0)
    good, fair, bad = draws.normal(0, 1.0, 200), draws.normal(0, 1.02, 200), draws.normal(0, 3, 200)
    assert said(judge(errors(good, bad, bad), confidence=0.95)) == (
        True,
        "better",
        "mean_absolute_error 0.781 against 2.38 of champion version 3: better in 100 % of 2,000 resamples; 95 % are "
        "needed.",
    )
    unsure = judge(errors(good, fair, bad), confidence=0.95)
    assert (unsure.promote, unsure.outcome) == (False, "not_better")
    assert 0.5 < unsure.confidence < 0.95
    assert f"better in {np.floor(unsure.confidence * 1000) / 10:g} % of 2,000 resamples; 95 %" in unsure.reason
    assert judge(errors(good, fair, bad)).promote
    assert said(judge(errors(good, fair, bad), margin=0.5)) == (
        False,
        "not_better",
        "mean_absolute_error 0.781 against 0.833 of champion version 3; it has to be more than 0.5 smaller.",
    )
    assert judge(errors(good, fair, bad), margin=0.06, margin_in="share").promote
    assert not judge(errors(good, fair, bad), margin=0.07, margin_in="share").promote
    # A tie is no win, nor is a difference that only rounding makes more than the margin.
    assert said(judge(errors(good, good, bad), confidence=0.6))[:2] == (False, "not_better")
    assert not judge(errors([0.92] * 10, [0.93] * 10, [1] * 10), margin=0.01).promote
    assert said(judge(errors(fair, good, good), beat_baseline=True, confidence=0.95))[1:] == (
        "not_better_than_baseline",
        "mean_absolute_error 0.833 against 0.781 of the baseline (mean); it has to be smaller.",
    )
    assert judge(errors(good, fair, bad), leaks=["x is y."]).reason == "Its training set leaks: x is y."
    first = judge(replace(errors(good, fair, bad), champion=None), beat_baseline=True, confidence=0.95)
    assert (first.outcome, first.confidence) == ("first", 1.0)
    gone = judge(errors(good, good, bad), problem="its file is gone.")
    assert said(gone) == (True, "champion_unusable", "Champion version 3 can't be used: its file is gone.")


def test_few_rows_say_nothing_about_confidence():
    eleven = replace(
        errors([1] * 11, [2] * 11, [3] * 11), units=Units([np.array([at]) for at in range(11)], 3, "blocks of 3 times")
    )
    assert said(judge(eleven, confidence=0.9))[1:] == (
        "not_sure",
        "mean_absolute_error 1 against 2 of champion version 3, but 11 test rows are only 3 blocks of 3 times; 10 are "
        "needed to say how sure that is: test on more, or give no confidence.",
    )
    assert judge(eleven).promote


def test_scores_that_are_no_numbers():
    flat, truth = np.zeros(12), np.zeros(12)
    same = Outputs(value=flat)
    answers = Answers(pd.DataFrame(index=range(12)), truth, rows_of(12), same, same, same)
    constant = judge(answers, metric="r2", confidence=0.9)
    assert constant.outcome == "not_better"
    strange = Outputs(value=np.full(12, -1.0))  # whose logarithm isn't one
    answers = replace(answers, truth=np.ones(12))
    mine = judge(replace(answers, challenger=strange), metric="neg_mean_squared_log_error")
    assert mine.outcome == "not_a_number"
    assert "neg_mean_squared_log_error can't be measured" in mine.reason
    theirs = judge(replace(answers, champion=strange), metric="neg_mean_squared_log_error")
    assert (theirs.promote, theirs.outcome) == (True, "champion_unusable")


def test_no_slice_may_become_worse():
    where = ["north"] * 30 + ["south"] * 30 + ["few"] * 5
    mine = np.r_[np.full(30, 0.1), np.full(30, 1.5), np.full(5, 4)] + np.linspace(0, 0.1, 65)
    theirs = np.r_[np.full(30, 3.0), np.full(30, 1.0), np.full(5, 3)] + np.linspace(0, 0.1, 65)
    answers = errors(mine, theirs, theirs, region=where)
    assert judge(answers).promote
    for confidence, how in ((None, ""), (0.9, " in 100 % of 2,000 resamples")):
        decision = judge(answers, slices=("region",), confidence=confidence)
        assert (decision.promote, decision.outcome) == (False, "worse_slice")
        assert decision.reason.startswith(
            f"It is worse{how} where region is south (30 rows): mean_absolute_error 1.57 against 1.07 of champion "
            "version 3. Over all rows: mean_absolute_error 1.1 against 2.13 of champion version 3"
        )
    noisy = errors(mine * 0.5, theirs, theirs, region=np.where(np.arange(65) % 2, "odd", None))
    assert judge(noisy, slices=("region",)).promote


def test_modes():
    better, worse = judge(errors([1] * 10, [2] * 10, [3] * 10)), judge(errors([2] * 10, [1] * 10, [3] * 10))
    dry = with_mode(better, "dry_run")
    assert said(dry) == (
        False,
        "would_promote",
        "A dry run, the champion stays; it would be promoted (better): mean_absolute_error 1 against 2 of champion "
        "version 3; it has to be smaller.",
    )
    assert with_mode(worse, "dry_run") == with_mode(worse, "enabled") == worse
    off = with_mode(worse, "disabled")
    assert (off.promote, off.outcome) == (True, "gate_disabled")
    assert "would have been kept out (not_better): mean_absolute_error 2 against 1" in off.reason


@pytest.mark.parametrize("metric", resampling._QUICK)
def test_the_quick_way_to_measure_says_what_scikit_learn_says(metric):
    draws, rows = np.random.default_rng(1), 80
    if metric in ("roc_auc", "accuracy", "neg_log_loss"):
        truth = draws.choice(["yes", "no"], rows)
        sure = draws.integers(0, 9, rows) / 8  # with ties
        outputs = Outputs(
            classes=np.where(sure > 0.5, "no", "yes"),
            probabilities=np.c_[sure, 1 - sure],
            labels=("no", "yes"),
            positive="no",
        )
        declaration = declare(pd.DataFrame({"x": [1.0, 2], "y": ["yes", "no"]}), "y", metrics=[metric])
    else:
        truth, outputs = draws.normal(size=rows), Outputs(value=draws.normal(size=rows))
        declaration = declare(pd.DataFrame({"x": [1.0], "y": [1.0]}), "y", metrics=[metric])
    measure, units = metric_of(metric, declaration), rows_of(rows)
    resampled = Resamples(units, truth, measure).measure(outputs)
    for drawn, value in zip(units.draw(20), resampled[:20], strict=True):
        assert value == pytest.approx(measure.measure(outputs, truth, drawn), rel=1e-9)
    assert resampling._quick(measure, outputs, truth) is not None


def test_the_bootstrap_finds_the_spread_of_a_mean():
    """The standard error of a mean of n independent errors is their deviation / sqrt(n); in blocks of a walk more."""
    draws = np.random.default_rng(2)
    metric = metric_of("neg_mean_squared_error", declare(pd.DataFrame({"x": [1.0], "y": [1.0]}), "y"))
    independent = np.sqrt(draws.exponential(size=400))
    spread = Resamples(rows_of(400), np.zeros(400), metric).measure(Outputs(value=independent)).std()
    assert spread == pytest.approx((independent**2).std() / 20, rel=0.05)
    slow = np.repeat(independent[:40], 10)
    single = [np.array([at]) for at in range(400)]
    apart, together = (
        Resamples(Units(single, length, ""), np.zeros(400), metric).measure(Outputs(value=slow)).std()
        for length in (1, 10)
    )
    assert together > 2 * apart


# ------------------------------------------------------------------------------------------------------- which rows


def keyed(table, **said):
    table = table.assign(id=np.arange(len(table)))
    declaration = declare(table, "outcome", key=["id"], **said)
    return make_training_set(declaration, table)


def test_rows_that_the_champion_has_learned_from_dont_count(cancer):
    mine = keyed(cancer)
    assert rows_to_judge_on(mine, None).equals(mine.rows("test"))
    theirs = keyed(cancer.iloc[:400], split={"kind": "random", "seed": 1})
    rows = rows_to_judge_on(mine, theirs, "3")
    assert set(rows["id"]) == set(mine.rows("test")["id"]) - set(theirs.rows("train")["id"])
    everything = replace(theirs, frame=mine.frame.assign(split="train"))
    with pytest.raises(NotComparable, match=r"Only 0 test rows are new to both it and champion version 3; 10 are"):
        rows_to_judge_on(mine, everything, "3")
    anonymous = replace(mine, key=()), replace(theirs, key=())
    with pytest.raises(NotComparable, match=r"give key, the columns that identify a row"):
        rows_to_judge_on(*anonymous, "3")
    other = replace(theirs, classes=("benign", "malignant", "unclear"))
    with pytest.raises(NotComparable, match="champion version 3 knows the classes 'benign', 'malignant', 'unclear'"):
        rows_to_judge_on(mine, other, "3")


def test_a_forecast_is_judged_after_all_that_the_champion_knows(demand):
    said = {"time": "day", "group": "shop", "features": ".f:lagged", "split": {"kind": "chronological"}}
    declaration = declare(demand, {"column": "sales", "horizon": 7}, key=["shop", "day"], **said)
    mine, theirs = (make_training_set(declaration, demand, features=lagged, test_size=size) for size in (0.3, 0.15))
    rows = rows_to_judge_on(mine, theirs, "3")
    last = theirs.truth_times()[theirs.frame["split"] == "train"].max()
    assert rows["day"].min() == last + pd.Timedelta("1D")
    assert rows["day"].is_monotonic_increasing
    with pytest.raises(NotComparable, match=r"It looks 7 rows ahead, champion version 3 looks 14 rows ahead\."):
        rows_to_judge_on(mine, make_training_set(declaration, demand, features=lagged, horizon=14), "3")
    units = units_of(mine, rows)
    assert (units.length, units.said) == (7, "blocks of 7 times")  # two shops are too few to draw
    assert {len(one) for one in units.members} <= {1, 2}
    assert sum(map(len, units.members)) == len(rows)


def test_groups_are_drawn_whole(cancer):
    table = cancer.assign(clinic=np.arange(len(cancer)) % 60)
    made = make_training_set(declare(table, "outcome", group="clinic", split={"kind": "group"}), table)
    rows = rows_to_judge_on(made, None)
    units = units_of(made, rows)
    assert (units.said, units.blocks) == ("groups", rows["clinic"].nunique())
    drawn = rows["clinic"].to_numpy()[next(units.draw(20))]
    sizes = rows["clinic"].value_counts()
    assert all(count % sizes[clinic] == 0 for clinic, count in pd.Series(drawn).value_counts().items())


def test_features_that_are_no_longer_made_come_from_the_champions_own_table(cancer):
    theirs = keyed(cancer)
    mine = keyed(cancer.drop(columns="mean_radius").iloc[:500], split={"kind": "random", "seed": 1})
    rows = rows_to_judge_on(mine, theirs, "3")
    kept, known = rows_as_champion_knows_them(theirs, rows, "3")
    assert (kept["id"].to_numpy() == known["id"].to_numpy()).all()
    assert len(kept) == len(rows)
    assert "mean_radius" in known
    assert rows_as_champion_knows_them(theirs, theirs.rows("test"), "3")[1] is not None
    elsewhere = replace(theirs, frame=theirs.frame.assign(id=-theirs.frame["id"] - 1))
    with pytest.raises(NotComparable, match=r"no longer made \(mean_radius\), and its own training set has 0 of"):
        rows_as_champion_knows_them(elsewhere, rows, "3")
