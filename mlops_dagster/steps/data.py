"""The steps that make a model's tables: its data, and its training set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of
from mlops_dagster.spec.model import Dataset, Declaration
from mlops_dagster.spec.parameters import check_parameters
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, table_summary

if TYPE_CHECKING:
    from mlops_dagster.stack.limits import LimitSettings
    from mlops_dagster.stack.store import Store


def data(
    declaration: Dataset,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    limits: LimitSettings | None = None,
    read_asset: Callable[[str], object] | None = None,
    spark_session: Callable[[], Any] | None = None,
) -> StepReport:
    """Read the rows from where the declaration says, check them against the contract, and keep them as a table.

    Raises
    ------
    ParameterError, UserCodeError, ContractError, StoreError
        The table keeps its last good version.
    """
    step = names.data_step(declaration)
    parameters = {**step.defaults, **check_parameters(step.parameters, given)}

    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.stack.table_sources import read_table

    only = None if declaration.partitions is None else partition
    raw, origin = read_table(
        declaration, only, limits=limits, overrides=parameters, read_asset=read_asset, spark_session=spark_session
    )
    frame = check_contract(declaration, raw, source=origin)
    table = store.write(names.DATA, partition, frame, metadata={"origin": origin})
    facts: dict[str, object] = {"origin": origin}
    if left_out := [str(column) for column in raw.columns if column not in frame.columns]:
        facts["columns_left_out"] = left_out
    if declaration.time is not None:
        times = frame[declaration.time]
        facts |= {"first": str(times.iloc[0]), "last": str(times.iloc[-1])}
    return StepReport(
        step=names.DATA,
        symbol=partition,
        data_version=table.digest,
        table=table,
        **table_summary(frame),
        facts=facts,
        model=declaration.name,
    )


def training_set(
    declaration: Declaration, partition: str, given: Mapping[str, object], *, store: Store, inputs: Pins | None = None
) -> StepReport:
    """Make features, target and split from the data, and keep them as a table.

    Raises
    ------
    ParameterError, UserCodeError, TableNotFound, StoreError
        The table keeps its last good version.
    """
    parameters = names.resolve(declaration, names.TRAINING_SET, given)
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.leaks import find_leaks
    from mlops_dagster.modeling.training_set import make_training_set

    function = function_of(declaration, declaration.features)
    frame, source = tables.read(names.DATA)
    made = make_training_set(declaration, frame, features=function, **parameters)
    metadata = {**made.metadata(), "data_digest": source.digest, "origin": source.metadata["origin"]}
    table = store.write(names.TRAINING_SET, partition, made.frame, metadata=metadata)
    counts = made.frame["split"].value_counts()
    return StepReport(
        step=names.TRAINING_SET,
        symbol=partition,
        data_version=table.digest,
        table=table,
        **table_summary(made.frame),
        facts={
            "target": declaration.target.column,
            "features": list(made.features),
            "rows_per_split": {str(split): int(count) for split, count in counts.items()},
            "leaks": find_leaks(made),
            **parameters,
        },
        inputs=tables.used,
        model=declaration.name,
    )
