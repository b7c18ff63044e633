"""What benchmarks learn from: the training sets of the models that ship, made of the bundled prices."""

from __future__ import annotations

from typing import Any


def table_of(model: Any, symbol: str) -> Any:
    """Return the rows of a symbol, checked against the contract."""
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.stack.table_sources import read_table

    raw, source = read_table(model, symbol)
    return check_contract(model, raw, source=source)


def training_set_of(model: Any, table: Any) -> Any:
    """Return a model's training set of some rows."""
    from mlops_dagster.modeling.training_set import make_training_set
    from mlops_dagster.spec.functions import function_of

    return make_training_set(model, table, features=function_of(model, model.features))


def fitted(model: Any, training_set: Any, **changed: Any) -> Any:
    """Return a model's estimator, fitted, with the declared defaults unless others are given."""
    from mlops_dagster.modeling.estimators import make_estimator

    parameters = {name: one.default for name, one in model.parameters.items()} | changed
    return make_estimator(model, parameters, n_jobs=-1).fit(training_set.X_train, training_set.y_train)
