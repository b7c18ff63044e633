"""A wheel task's process has no session before it asks for one; with `active` it gets the cluster's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_dagster.stack.spark_java import java_home

CODE = """
from mlops_dagster.stack.spark import SparkError, SparkSettings, spark_session
with spark_session(SparkSettings(master="active")) as session:
    print(session.range(5).count())
print(session.range(6).count())  # it is the cluster's: still there
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_active_on_databricks_joins_the_clusters_spark(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DATABRICKS_RUNTIME_VERSION": "17.3",
        "JAVA_HOME": str(java_home(tmp_path)),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["5", "6"], done.stderr
