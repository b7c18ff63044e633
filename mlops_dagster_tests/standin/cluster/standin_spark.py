"""The cluster's Spark: a real one, started before the task's own code, as on Databricks."""

import atexit
import importlib.util
import os
import socket
import subprocess
import time
from pathlib import Path


def session(task):
    """Return the task's globals `spark` and `sc`, as far as its engine has them."""
    if task["engine"] == "classic":
        return _classic(task)
    if task["engine"] == "connect":
        return _connect(task)
    return {"spark": None, "sc": None}


def _settings(task):
    # dbfs:/ in Spark's own I/O leads to the same folder that the API writes to.
    dbfs = "file:///dbfs" if task["mapping"] == "namespace" else f"file://{task['root']}/dbfs"
    yield "spark.ui.enabled", "false"
    yield "spark.driver.host", "127.0.0.1"
    yield "spark.driver.bindAddress", "127.0.0.1"
    yield "spark.sql.shuffle.partitions", "2"
    yield "spark.sql.warehouse.dir", str(Path.cwd() / "warehouse")
    yield "spark.databricks.clusterUsageTags.clusterId", task["cluster_id"]
    yield "spark.databricks.clusterUsageTags.clusterLogDeliveryEnabled", ""
    yield "spark.hadoop.fs.dbfs.impl", "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
    yield "spark.hadoop.fs.viewfs.overload.scheme.target.dbfs.impl", "org.apache.hadoop.fs.LocalFileSystem"
    yield "spark.hadoop.fs.viewfs.mounttable.default.linkFallback", dbfs
    yield from task["spark_conf"].items()


def _classic(task):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("Databricks Shell")
    for name, value in _settings(task):
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    return {"spark": spark, "sc": spark.sparkContext}


def _connect(task):
    # A server of its own: in PySpark's local mode the client's process would have a JVM, and with it `sc`.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{probe.getsockname()[1]}"
    home = Path(importlib.util.find_spec("pyspark").origin).parent
    command = [str(home / "bin" / "spark-submit"), "--master", "local[2]"]
    binding = {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": url[10:]}
    for name, value in [*_settings(task), *binding.items()]:
        command += ["--conf", f"{name}={value}"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    log = Path("spark-connect-server.log")
    with log.open("wb") as output:
        environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_CONNECT_MODE": "0"}
        server = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    atexit.register(server.terminate)
    while "Spark Connect server started" not in log.read_text():
        if server.poll() is not None:
            raise RuntimeError(f"The Spark Connect server did not start:\n{log.read_text()}")
        time.sleep(0.1)
    os.environ["SPARK_REMOTE"] = f"sc://{url}"
    from pyspark.sql import SparkSession

    return {"spark": SparkSession.builder.remote(f"sc://{url}").getOrCreate()}
