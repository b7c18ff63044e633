"""What a plan says, by arithmetic that can be done by hand."""

import json

import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from mlops_dagster.search import SharedGridSearchCV

FOREST = RandomForestRegressor(random_state=0)


def plan(rows, grid, forest=FOREST, cv=2, **arguments):
    return SharedGridSearchCV(forest, grid, cv=cv).plan(*rows, **arguments)


def test_the_numbers(rows):
    grid = {"n_estimators": [10, 20, 50], "max_depth": [5, None], "min_samples_split": [2, 3], "min_samples_leaf": [2]}
    numbers = plan(rows, grid).as_dict()
    assert numbers["candidates"] == 12
    assert numbers["fits"] == 24
    assert numbers["groups"] == 2  # one per fold: min_samples_split of 2 and 3 are both below 2 x min_samples_leaf
    assert numbers["trees_asked"] == 2 * 2 * 2 * (10 + 20 + 50)
    assert numbers["trees_saved"] == {
        "equal forests": 2 * 2 * 80,  # one of two min_samples_split, each with two depths
        "smaller n_estimators": 2 * 2 * (10 + 20),  # two depths on two folds
        "max_depth that no tree reaches": 2 * 50,
    }
    assert numbers["trees_needed"] == 2 * 50
    assert numbers["trees_at_most"] == 2 * 2 * 50  # if every tree is deeper than 5
    assert numbers["trees_plain"] == 0
    assert numbers["not_shared"] == {}
    assert json.loads(json.dumps(numbers)) == numbers


def test_the_words(rows):
    grid = {"n_estimators": [1000, 2000], "max_depth": [5, None]}
    said = str(plan(rows, grid, measure_seconds=False)).splitlines()
    assert [" ".join(line.split()) for line in said] == [
        "4 candidates on 2 folds: 8 fits",
        "trees asked for 12,000",
        "- equal forests 0",
        "- fewer n_estimators 4,000",
        "- max_depth unmet 4,000",
        "trees to grow 4,000 (3.0 times fewer)",
        "at most 8,000 if every tree meets every depth limit",
    ]
    assert len({len(line.split(" (")[0]) for line in said[1:6]}) == 1  # in columns


def test_an_estimate(rows):
    estimate = plan(rows, {"n_estimators": [100]}).as_dict()["estimate"]
    assert estimate["seconds"] > 0
    assert estimate["bytes"] > 0
    assert estimate["slots"] == 1


def test_nothing_is_fitted(rows, grown):
    search = SharedGridSearchCV(FOREST, {"n_estimators": [100, 500]}, cv=2)
    before = search.get_params()
    search.plan(*rows, measure_seconds=False)
    assert grown.take() == 0
    search.plan(*rows)
    assert grown.take() <= 10
    assert search.get_params() == before
    assert set(vars(search)) == set(before) - {name for name in before if "__" in name}
    with pytest.raises(NotFittedError):
        check_is_fitted(search)
    with pytest.raises(NotFittedError):
        search.predict(rows[0])


def test_the_plan_is_what_was_done(rows):
    search = SharedGridSearchCV(FOREST, {"n_estimators": [5, 9], "max_features": [1, 2]}, cv=2)
    planned = search.plan(*rows, measure_seconds=False)
    assert search.fit(*rows).plan_.as_dict() == planned.as_dict()
    assert search.work_["trees_needed"] == planned.trees_needed == search.work_["trees_grown"] == 36


def test_reasons(rows):
    grid = [
        {"n_estimators": [5], "max_depth": [1, 2]},
        {"warm_start": [True], "n_estimators": [7]},
        {"bootstrap": [False], "max_samples": [0.5], "n_estimators": [2, 3]},
        {"max_features": [0], "n_estimators": [4]},
    ]
    its = plan(rows, grid, measure_seconds=False)
    assert {reason: len(candidates) for reason, candidates in its.not_shared.items()} == {
        "warm_start": 1,
        "scikit-learn refuses max_samples with bootstrap=False": 2,
        "scikit-learn refuses max_features=0": 1,
    }
    assert its.trees_plain == 2 * (7 + 2 + 3 + 4)
    assert its.trees_needed == 2 * 5 + its.trees_plain
    assert "  2 candidates fitted plainly: scikit-learn refuses max_samples with bootstrap=False" in str(its)


@pytest.mark.parametrize(
    ("estimator", "grid", "reason"),
    [
        (RandomForestRegressor(), {"n_estimators": [2]}, "random_state isn't an integer"),
        (Ridge(), {"alpha": [1, 2]}, "fits of Ridge share nothing"),
        (
            make_pipeline(PCA(2), FOREST),
            {"pca__whiten": [True, False]},
            "pca__random_state isn't an integer",
        ),
    ],
)
def test_why_nothing_is_shared(rows, estimator, grid, reason):
    (said,) = plan(rows, grid, estimator).not_shared
    assert reason in said


def test_folds_of_different_size_are_read_for_themselves(rows):
    # 0.05 of 60 rows are 3, of 100 rows 5: so 0.05 and 3 are the same on one fold only.
    cv = [(range(60), range(60, 120)), (range(100), range(100, 120))]
    assert len(plan(rows, {"min_samples_leaf": [3, 0.05], "n_estimators": [2]}, cv=cv).groups) == 3


def test_a_hundred_thousand_candidates(rows):
    grid = {
        "n_estimators": list(range(1, 101)),
        "max_depth": [*range(1, 50), None],
        "min_samples_leaf": [1, 2, 3, 4, 5],
        "min_samples_split": [2, 4, 6, 8],
    }
    its = plan(rows, grid, cv=KFold(5), measure_seconds=False)
    # Pairs by max(split, 2 x leaf): leaf 1: 2, 4, 6, 8; leaf 2: 4, 6, 8; leaf 3: 6, 8; leaf 4: 8; leaf 5: 10. 11 of 20.
    assert its.candidates == 100_000
    assert len(its.groups) == 5 * 11
    assert its.trees_asked == 5 * 50 * 20 * 5050
    assert its.trees_needed == 5 * 11 * 100
