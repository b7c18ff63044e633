"""Tasks with Spark: classic with `sc`, and Connect without."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mlops_dagster_tests.contracts.workspace import Workspace, workspace
from mlops_dagster_tests.standin.submitting import ENVIRONMENT, NEW, script_body, states, submit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]

CLASSIC = """
    import json, os
    from pyspark.sql import SparkSession
    from databricks.sdk.runtime import spark as same, sc as same_sc
    assert SparkSession.builder.getOrCreate() is spark is same and same_sc is sc
    assert sc.parallelize(range(10)).map(lambda x: x * 2).sum() == 90
    spark.range(5).write.parquet("dbfs:/tables/five")
    spark.range(7).write.parquet("/Volumes/a/b/c/seven")
    tag = spark.conf.get("spark.databricks.clusterUsageTags.clusterId")
    conf = spark.conf.get("spark.sql.session.timeZone")
    print(json.dumps([spark.version[0], os.listdir("/dbfs/tables"), spark.read.parquet("dbfs:/tables/five").count(),
                      tag[:2].isdigit(), conf]))
"""
CONNECT = """
    import json, os
    from pyspark.sql import SparkSession
    from databricks.sdk.runtime import spark as same
    assert SparkSession.builder.getOrCreate() is spark is same
    assert os.environ["SPARK_REMOTE"].startswith("sc://")
    found = ["sc" in globals(), type(spark).__module__]
    for name in ("sparkContext", "_jvm"):
        try:
            getattr(spark, name)
            found.append(name)
        except Exception as error:
            found.append(None)
    spark.range(7).write.parquet("/Volumes/a/b/c/connect")
    print(json.dumps([*found, spark.range(5).count()]))
"""


def result(ws: Workspace, body: dict[str, Any]) -> Any:
    run = ws.ended(submit(ws, body))
    assert states(run) == ("TERMINATED", "SUCCESS"), ws.stderr(run["run_id"])
    assert not ws.live_processes()
    return json.loads(ws.stdout(run["run_id"]).splitlines()[-1])


def test_classic(tmp_path: Path) -> None:
    conf = {"spark.sql.session.timeZone": "Asia/Tokyo"}
    with workspace(tmp_path, engine="classic") as ws:
        found = result(ws, script_body(ws, textwrap.dedent(CLASSIC), new_cluster={**NEW, "spark_conf": conf}))
        assert found == ["4", ["five"], 5, True, "Asia/Tokyo"]
        assert list((ws.volumes / "a/b/c/seven").glob("*.parquet"))


def test_connect_is_what_serverless_tasks_get(tmp_path: Path) -> None:
    with workspace(tmp_path, engine="classic") as ws:
        (ws.volumes / "connect.py").write_text(textwrap.dedent(CONNECT))
        body = script_body(ws, "", environment_key="e", run={"environments": [ENVIRONMENT]})
        body["tasks"][0]["spark_python_task"]["python_file"] = "/Volumes/connect.py"
        found = result(ws, body)
        assert found == [False, "pyspark.sql.connect.session", None, None, 5]
        assert list((ws.volumes / "a/b/c/connect").glob("*.parquet"))
