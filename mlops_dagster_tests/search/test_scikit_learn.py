"""scikit-learn's own tests: its checks of estimators, and what it demands of its searches."""

import inspect
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
import sklearn.model_selection
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._test_common.instance_generator import PER_ESTIMATOR_XFAIL_CHECKS
from sklearn.utils.estimator_checks import parametrize_with_checks

from mlops_dagster.search import (
    SharedGridSearchCV,
    SharedHalvingGridSearchCV,
    SharedHalvingRandomSearchCV,
    SharedRandomizedSearchCV,
)

GRID = {"n_estimators": [2, 4]}


def expected_to_fail(search):
    """Return what GridSearchCV itself fails, with reasons."""
    if isinstance(search, SharedHalvingGridSearchCV):
        return PER_ESTIMATOR_XFAIL_CHECKS[HalvingGridSearchCV]
    last = search.estimator.steps[-1][1] if hasattr(search.estimator, "steps") else search.estimator
    if isinstance(last, Ridge):
        return {"check_supervised_y_2d": "Ridge takes a column for a target without a warning; listed by scikit-learn"}
    if "n_estimators" in last.get_params():
        return {"check_estimators_nan_inf": "forests do take missing values; GridSearchCV doesn't hand on their tag"}
    return {}


@parametrize_with_checks(
    [
        SharedGridSearchCV(RandomForestRegressor(random_state=0), GRID, cv=2),
        SharedGridSearchCV(RandomForestClassifier(random_state=0), GRID, cv=2),
        SharedGridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
        SharedGridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        SharedGridSearchCV(
            make_pipeline(StandardScaler(), ExtraTreesClassifier(random_state=0)),
            {"extratreesclassifier__n_estimators": [2, 4]},
            cv=2,
        ),
        SharedRandomizedSearchCV(RandomForestRegressor(random_state=0), GRID, n_iter=2, cv=2),
        SharedHalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
    ],
    expected_failed_checks=expected_to_fail,
)
def test_checks_of_estimators(estimator, check):
    check(estimator)


OURS = {
    "GridSearchCV": SharedGridSearchCV,
    "RandomizedSearchCV": SharedRandomizedSearchCV,
    "HalvingGridSearchCV": SharedHalvingGridSearchCV,
    "HalvingRandomSearchCV": SharedHalvingRandomSearchCV,
}
EXCEPTIONS = {
    "test_custom_run_search": "compares all attributes with those of a class of its own, which has no plan_ and work_",
    "test_base_estimator_inputs": "counts calls of set_params, which are more where a plan reads candidates beforehand",
}


def with_ours(name):
    """Return scikit-learn's module of tests, loaded again with our searches in place of its own."""
    spec = spec_from_file_location(f"{name}_of_ours", find_spec(f"sklearn.model_selection.tests.{name}").origin)
    module = sys.modules[spec.name] = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for its_name, ours in OURS.items():
            patch.setattr(sklearn.model_selection, its_name, ours)
        spec.loader.exec_module(module)
    return module


for _module in ("test_search", "test_successive_halving"):
    for _name, _function in vars(with_ours(_module)).items():
        if _name.startswith("test") and _name not in EXCEPTIONS and "Search" in inspect.getsource(_function):
            globals()[f"{_name}_of_{_module[5:]}"] = _function
