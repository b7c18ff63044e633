"""Spark's Java classes, loaded once and shared by the JVMs of all tests: each then starts with a quarter of the work.

`make pytest` makes the archive. Where it is missing, or another Java's, a JVM loads its classes as always, and says
nothing: what is tested is the same.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

# Below the environment, since that is what the stand-in's tasks see of this machine.
ARCHIVE = Path(sys.prefix) / "spark-classes.jsa"
# Tests end before the second compiler and a parallel collector are worth their threads.
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
_USED = {
    "SPARK_SUBMIT_OPTS": "the driver, a Connect server",
    "SPARK_DAEMON_JAVA_OPTS": "master and worker",
}
_SESSION = """
import tempfile
from pyspark.sql import SparkSession
with tempfile.TemporaryDirectory() as folder:
    conf = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.sql.warehouse.dir": folder}
    spark = SparkSession.builder.master("local[2]").config(map=conf).getOrCreate()
    spark.sparkContext.parallelize(range(9), 2).mapPartitions(lambda part: [sum(part)]).collect()
    spark.createDataFrame([(1, "a"), (2, "b")], ["x", "y"]).selectExpr("sum(x)").collect()
    spark.stop()
"""


def use_archive() -> None:
    """Let the JVMs that come from this process share their classes."""
    shared = f"{shlex.quote(f'-XX:SharedArchiveFile={ARCHIVE}')} -Xshare:auto -Xlog:disable -Xlog:all=error:stderr"
    options = f"{_QUICK} {shared}"
    for name in _USED:
        os.environ.setdefault(name, options if ARCHIVE.is_file() else _QUICK)


def archive_options() -> dict[str, str]:
    """Return the environment variables that say so, for processes that are given an environment of their own."""
    return {name: os.environ[name] for name in _USED if name in os.environ}


def make_archive() -> None:
    """Start Spark once, and keep the classes that it has loaded; without a Java for it, there is none."""
    from mlops_dagster.stack.spark import SparkError
    from mlops_dagster.stack.spark_java import java_home

    unfinished = ARCHIVE.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    try:
        java = java_home(ARCHIVE.parent)
    except SparkError:
        return
    options = f"{_QUICK} {shlex.quote(f'-XX:ArchiveClassesAtExit={unfinished}')} -Xlog:disable"
    own = {"JAVA_HOME": str(java), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_SUBMIT_OPTS": options}
    subprocess.run([sys.executable, "-c", _SESSION], env={**os.environ, **own}, check=True, capture_output=True)
    if unfinished.is_file():
        unfinished.replace(ARCHIVE)


if __name__ == "__main__" and not ARCHIVE.is_file():
    make_archive()
