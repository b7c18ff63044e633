"""What a run of many partitions costs on Databricks, beside a submission for each step and symbol.

python -m benchmarks.databricks_chunk [symbols] [runs of one]

On the stand-in workspace, whose clusters are processes of this machine and need no time to start:
`build_model_pipeline` by Pipes, for a range of symbols in one run of Dagster's, and for a few symbols in a run of one
each. Five shallow trees, 400 rows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from mlops_dagster.spec.project import find_model
from mlops_dagster_tests.contracts.databricks_stack import stack_of
from mlops_dagster_tests.contracts.servers import mlflow_server
from mlops_dagster_tests.contracts.workspace import workspace

ROWS = 400


def main() -> None:
    count, ones = (int(sys.argv[at]) if len(sys.argv) > at else given for at, given in ((1, 50), (2, 3)))
    symbols = [f"S{number:03d}" for number in range(count + ones)]
    with tempfile.TemporaryDirectory(prefix="databricks_chunk_") as temporary:
        folder = Path(temporary)
        shipped = find_model("stock_price").folder / "../prices/GSPC.csv"
        (folder / "prices.csv").write_text("".join(shipped.open().readlines()[: 1 + ROWS]))
        with mlflow_server(folder / "served") as mlflow, workspace(folder / "workspace") as ws:
            stack = stack_of("pipes-new", folder / "chunk", ws, mlflow, folder / "prices.csv")
            os.environ.update(stack.environment)
            volume = ws.volumes / "main/mlops/data" / stack.name
            for symbol in symbols:
                (volume / f"{symbol}.csv").write_bytes((folder / "prices.csv").read_bytes())
            with stack.instance() as instance:
                instance.add_dynamic_partitions("prices_symbol", symbols)
            many, single = symbols[:count], symbols[count:]
            ends = {"start": many[0], "end": many[-1]}
            launches = [{f"dagster/asset_partition_range_{end}": one for end, one in ends.items()}]
            launches += [{"dagster/partition": one} for one in single]
            for tags in launches:
                submitted, began = len(ws.runs()), time.monotonic()
                made = stack.launch(tags=tags)
                seconds = time.monotonic() - began
                assert made.success, made.failures
                print(f"{tags}: {len(ws.runs()) - submitted} runs on Databricks, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
