"""Work saved is counted where it is done: calls of the function that grows one tree."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster_tests.contracts.article import ARTICLE


def search(rows, grid, *, cv=2, forest=None, **arguments):
    forest = RandomForestRegressor(random_state=0) if forest is None else forest
    return SharedGridSearchCV(forest, grid, cv=cv, refit=False, **arguments).fit(*rows)


def test_the_articles_preset(rows, grown):
    # Asked for: 1 x 4 x 2 x 3 x 3 = 72 combinations on 3 folds, each with 100 + 200 + 300 + 1000 = 1,600 trees:
    #     72 x 3 x 1,600 = 345,600.
    # The smaller forests are part of the largest: 1,000 of 1,600. The depth limits are met by no tree: 1 of 4.
    # Of the 3 x 3 pairs of min_samples_leaf and min_samples_split, only max(split, 2 x leaf) matters beside the leaf:
    #     leaf 3: 8, 10, 12; leaf 4: 8, 10, 12; leaf 5: 10, 10, 12: 8 of 9.
    # 2 x 8 = 16 groups on 3 folds, 1,000 trees each: 48,000.
    plan = SharedGridSearchCV(RandomForestRegressor(random_state=0), ARTICLE, cv=3).plan(*rows)
    assert (plan.candidates, plan.fits) == (288, 864)
    assert (plan.trees_asked, plan.trees_needed) == (345_600, 48_000)
    assert grown.take() <= 10  # a few are grown to measure one

    # A thousandth of it is really grown: n_estimators 1, 2, 3, 10 (not 0.1, 0.2, ...), so
    #     asked 72 x 3 x 16 = 3,456, needed 16 x 3 x 10 = 480.
    tenth = search(rows, {**ARTICLE, "n_estimators": [1, 2, 3, 10]}, cv=3)
    assert tenth.work_["trees_asked"] == 3_456
    assert tenth.work_["trees_needed"] == tenth.work_["trees_grown"] == grown.take() == 480


def test_what_scikit_learn_grows_is_what_the_plan_calls_asked(rows, grown):
    grid = {"n_estimators": [2, 5], "max_depth": [3, None]}
    GridSearchCV(RandomForestRegressor(random_state=0), grid, cv=2, refit=False).fit(*rows)
    # (2 + 5) x 2 depths x 2 folds
    assert grown.take() == 28 == search(rows, grid).work_["trees_asked"]


def test_fewer_trees_are_part_of_more(rows, grown):
    # The largest of 3, 7, 20, once per fold; listing 7 twice changes nothing.
    assert search(rows, {"n_estimators": [3, 7, 20, 7]}).work_["trees_grown"] == grown.take() == 2 * 20


def test_a_depth_limit_that_every_tree_meets(rows, grown):
    # Nothing but n_estimators is shared: 5 trees under each of 3 limits, on 2 folds.
    work = search(rows, {"n_estimators": [2, 5], "max_depth": [1, 2, 3]}).work_
    assert work["trees_grown"] == grown.take() == 2 * 3 * 5
    assert work["trees_needed"] == 2 * 5  # if no limit bound


def test_a_depth_limit_that_some_trees_meet(rows, grown):
    X, y = rows
    folds = list(KFold(2).split(X))
    depths = [
        [
            tree.get_depth()
            for tree in RandomForestRegressor(n_estimators=20, random_state=0).fit(X[t], y[t]).estimators_
        ]
        for t, _ in folds
    ]
    limit = int(np.median(depths))
    reached = sum(depth >= limit for fold in depths for depth in fold)
    assert 0 < reached < 40
    grown.take()
    # 20 trees on 2 folds without a limit, and those again that reach the limit.
    work = search(rows, {"n_estimators": [20], "max_depth": [None, limit]}, cv=folds).work_
    assert work["trees_grown"] == grown.take() == 40 + reached


def test_trees_that_nobody_scores_are_not_grown(rows, grown):
    # Depths 1 and 2 bind, and each wants its own number of trees: 10 under one limit, 3 under the other, on 2 folds;
    # trees 4 to 10 aren't grown under the larger limit.
    grids = [{"max_depth": [1], "n_estimators": [10]}, {"max_depth": [2], "n_estimators": [3]}]
    assert search(rows, grids).work_["trees_grown"] == grown.take() == 2 * (10 + 3)


def test_parameters_that_come_to_the_same(rows, grown):
    # 60 training rows: 0.05 of them are 3. 4 features: "sqrt", "log2", 0.5 and 2 are all two of them.
    grid = {
        "min_samples_leaf": [3, 0.05],
        "min_samples_split": [2, 3, 6, 0.1],
        "max_features": ["sqrt", "log2", 0.5, 2],
        "n_jobs": [None, 1],
        "n_estimators": [4],
    }
    assert search(rows, grid).work_["trees_grown"] == grown.take() == 2 * 4


def test_parameters_that_do_not(rows, grown):
    # 1 feature and all of them; a seed each.
    assert search(rows, {"max_features": [1, 1.0], "n_estimators": [4]}).work_["trees_grown"] == grown.take() == 16
    assert search(rows, {"random_state": [0, 1], "n_estimators": [4]}).work_["trees_grown"] == grown.take() == 16


def test_depth_is_not_shared_where_the_finished_tree_does_not_show_it(rows, grown):
    # Limits that no tree can meet: 4 trees, 2 of them, 2 folds.
    work = search(rows, {"max_depth": [100, 200], "n_estimators": [4], "max_leaf_nodes": [8]}).work_
    assert work["trees_grown"] == grown.take() == 16


def test_trees_are_grown_whole_and_pruned_for_each_alpha(rows, grown):
    grid = {
        "ccp_alpha": [0.0, 0.001, 0.1],
        "max_depth": [100, None],
        "n_estimators": [3, 8],
        "oob_score": [True, False],
    }
    # Asked for: 3 alphas x 2 depths x (3 + 8) trees x 2 x 2 folds = 264. No whole tree is 100 deep: 8 trees on 2 folds.
    work = search(rows, grid).work_
    assert (work["trees_asked"], work["trees_needed"]) == (264, 16)
    assert work["trees_grown"] == grown.take() == 16


def test_depth_limits_and_alphas_that_go_on_from_what_the_cache_has(rows, grown, tmp_path):
    grid = {"ccp_alpha": [0.0, 0.001], "max_depth": [2, None], "n_estimators": [5]}
    # Every tree meets the limit of 2: twice 5 trees on 2 folds, each sum four times; then the 4 that are missing.
    assert search(rows, grid, cache=tmp_path).work_["trees_grown"] == grown.take() == 2 * 2 * 5
    more = {**grid, "n_estimators": [5, 9]}
    assert search(rows, more, cache=tmp_path).work_["trees_grown"] == grown.take() == 2 * 2 * 4
    found = search(rows, {**more, "ccp_alpha": [0.001, 0.002]}, cache=tmp_path)  # 0.002 is new
    assert found.work_["trees_grown"] == grown.take() == 2 * 2 * 9


def test_more_metrics_and_train_scores_cost_no_tree(classes, grown):
    forest = ExtraTreesClassifier(random_state=0)
    scoring = ["accuracy", "neg_log_loss", "roc_auc_ovr"]
    work = search(classes, {"n_estimators": [3, 6]}, forest=forest, scoring=scoring, return_train_score=True).work_
    assert work["trees_grown"] == grown.take() == 2 * 6


def test_the_refit_is_counted_apart(rows, grown):
    found = SharedGridSearchCV(RandomForestRegressor(random_state=0), {"n_estimators": [3, 6]}, cv=2).fit(*rows)
    best = found.best_params_["n_estimators"]
    assert (found.work_["trees_grown"], found.work_["refit_trees_grown"]) == (12, best)
    assert grown.take() == 12 + best


@pytest.mark.parametrize("own", [{"warm_start": True}, {"oob_score": r2_score}])
def test_trees_of_plain_fits_are_counted_too(rows, grown, own):
    # 4 + 25 trees on 2 folds, nothing shared.
    work = search(rows, {"n_estimators": [4, 25]}, forest=RandomForestRegressor(random_state=0, **own)).work_
    assert work["plain_fits"] == 4
    assert work["trees_grown"] == grown.take() == 58
