"""Models of tables that Spark's catalog knows, read from a real session."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from decimal import Decimal

import pandas as pd
import pytest

pytest.importorskip("pyspark")

from mlops_dagster.stack.file_finding import SourceError
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.spark import SparkSettings, spark_session
from mlops_dagster.stack.table_sources import partitions_of
from mlops_dagster_tests.stack.test_table_sources import declared, read, refused

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]

TYPES = {
    "id": {"type": "integer"},
    "price": {"type": "number", "nullable": True},
    "day": {"type": "date"},
    "seen": {"type": "date"},
    "open": {"type": "boolean"},
    "kind": {"type": "text", "nullable": True},
}

MODEL = """
type: mlops_dagster.SklearnModel
attributes:
  task: regression
  data: DATA
  contract:
    shop: {type: text}
    x: {type: number}
    y: {type: number}
  key: [x]
  partitions: {name: shop, keys: [a, b]}
  features: [x]
  target: y
  split: {kind: random}
  estimator: {class: sklearn.linear_model.Ridge}
  metrics: [r2]
  baseline: mean
"""


@pytest.fixture(scope="module")
def session():
    with spark_session(SparkSettings(master="local[2]")) as session:
        yield session


def test_every_type_comes_as_the_contract_says(session, tmp_path):
    seen = datetime(2024, 5, 1, 12, 30, tzinfo=timezone.utc)
    rows = [
        (number, price, date(2024, 5, number), seen, number > 1, kind)
        for number, price, kind in [(3, None, "b"), (1, Decimal("1.50"), "a"), (2, Decimal("2.25"), None)]
    ]
    schema = "id bigint, price decimal(10, 2), day date, seen timestamp, open boolean, kind string"
    session.createDataFrame(rows, schema).createOrReplaceTempView("typed")
    session.conf.set("spark.sql.session.timeZone", "UTC")
    model = declared(tmp_path, {"table": "typed"}, contract=TYPES, features=["id"], target="price", key=["id"])

    frame = read(model, spark_session=lambda: session)

    assert frame["id"].tolist() == [1, 2, 3]  # sorted by the key, whatever Spark's order
    assert frame["price"].tolist()[:2] == [1.5, 2.25]
    assert frame["price"].isna().tolist() == [False, False, True]
    assert frame["kind"].isna().tolist() == [False, True, False]
    assert frame["day"].tolist() == [pd.Timestamp(2024, 5, number) for number in (1, 2, 3)]
    assert set(frame["seen"]) == {pd.Timestamp(2024, 5, 1, 12, 30)}
    assert frame["open"].tolist() == [False, True, True]


def test_what_cant_be_read_is_refused(session, tmp_path):
    session.range(3).selectExpr("id * 1.5 AS x", "id AS y").createOrReplaceTempView("small")

    def of(table, **more):
        return declared(tmp_path, {"table": table}, **more)

    here = {"spark_session": lambda: session}
    assert "Check data.table, and that spark.master is the Spark that has it" in refused(of("no.such"), **here)
    assert "raise limits.rows" in refused(of("small"), limits=LimitSettings(rows=2), **here)
    assert "raise limits.columns" in refused(of("small"), limits=LimitSettings(columns=1), **here)
    assert "no Spark is here to read it" in refused(of("small"))
    with pytest.raises(SourceError, match=r"Give partitions\.keys"):
        partitions_of(of("small", partitions={"name": "y"}))


def test_a_model_of_a_table_is_that_of_a_file(session, mlops, tmp_path, monkeypatch):
    rows = pd.DataFrame({"shop": ["a", "b"] * 120, "x": [number * 0.1 for number in range(240)]})
    rows["y"] = rows["x"] % 3 + rows["shop"].map({"a": 0, "b": 7})
    rows.to_parquet(tmp_path / "sales.parquet")
    session.createDataFrame(rows.sample(frac=1, random_state=0)).createOrReplaceTempView("sales")
    for name, data in {"of_file": "{files: {path: ../../sales.parquet}}", "of_table": "{table: sales}"}.items():
        place = tmp_path / "defs" / name
        place.mkdir(parents=True)
        (place / "defs.yaml").write_text(MODEL.replace("DATA", data))
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "local[2]")  # the session that is there

    assert mlops("check", "of_table").returncode == 0
    made = {}
    for name in ("of_file", "of_table"):
        done = mlops("build-model", name, "--all", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        made[name] = json.loads(done.stdout)["symbols"]

    for shop in ("a", "b"):
        here, there = (made[name][shop] for name in ("of_file", "of_table"))
        assert there["data"]["data_version"] == here["data"]["data_version"]
        assert there["trained_model"]["model_digest"] == here["trained_model"]["model_digest"]
        assert there["data"]["origin"] == "Spark's table sales"
