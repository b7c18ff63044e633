"""Two assets that hand a value on, the first of them on Databricks: a step launcher's worst case."""

from typing import Any

import dagster as dg

from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.resources import resources_of
from mlops_dagster.stack.deployment_files import load_deployment


@dg.asset(partitions_def=SYMBOLS)
def answer(compute: dg.ResourceParam[Any]) -> int:
    return 42


@dg.asset(partitions_def=SYMBOLS)
def question(answer: int) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"answer": answer})


deployment = load_deployment()
defs = dg.Definitions(
    assets=[answer, question],
    resources=resources_of(deployment),
    jobs=[dg.define_asset_job("values", selection=[answer, question])],
    executor=dg.in_process_executor,
)
