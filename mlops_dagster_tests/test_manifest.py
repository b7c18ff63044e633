"""The manifest: Airflow's project has today's, and its schemas refuse what the checks refuse."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mlops_dagster.errors import ParameterError
from mlops_dagster.manifest import manifest
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import steps_of
from mlops_dagster.steps.checking import resolve
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = pytest.mark.examples

ROOT = Path(__file__).parents[1]
COPY = ROOT / "airflow" / "include" / "manifest.json"
SHIPPED = ("article", "stock_price")
DECLARED = ("breast_cancer", "house_value", "demand")
PLAIN = (
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    80,
    10**6,
    10**12,
    0.5,
    0.05,
    0.0001,
    2.5,
    "80",
    "spark",
    "small",
    "",
    [],
    [80],
    {},
)
RANGES = (
    {"start": a, "stop": b, "step": c} for a in (1, 2.5, "1") for b in (3, 0.1, None) for c in (1, 0, -1, 0.5, "1")
)
VALUES = (
    *PLAIN,
    *([one] for one in PLAIN),
    *RANGES,
    {"start": 1, "stop": 3},
    {"start": 1, "stop": 3, "step": 1, "x": 1},
)
# What no schema can say: which end is the larger, and what lies between them; which scores there are. And an empty grid
# is let through, since that is how Airflow's form shows none.
BEYOND = ("ends before it starts", "grid.max_features=1.5", "at least one of", "there is no such score")


def test_airflow_has_a_copy():
    assert json.loads(COPY.read_text()) == manifest(map(find_model, SHIPPED)), "renew it: make -C airflow manifest"


def _agree(schema, check, given):
    Draft202012Validator.check_schema(schema)
    for parameters in ({}, {"max_deph": 80}, *given):
        try:
            check(parameters)
            refused = ""
        except ParameterError as error:
            refused = str(error)
        beyond = any(words in refused for words in BEYOND)
        assert Draft202012Validator(schema).is_valid(parameters) == (not refused or beyond), (parameters, refused)


@pytest.mark.parametrize("name", [*SHIPPED, *DECLARED])
def test_a_schema_refuses_what_the_check_refuses(name):
    model = find_model(name, ROOT / "examples" / "defs" if name in DECLARED else None)
    made = manifest([model])["steps"]
    for step in steps_of(model).values():
        given = [{one.name: value} for one in step.parameters for value in PLAIN]
        if any(one.kind == "grid" for one in step.parameters):
            given += [{"grid": {one: value}} for one in (*model.parameters, "folds") for value in VALUES]
        schema = made[f"{name}/{step.name}"]["parameters"]
        _agree(schema, lambda parameters, of=step.name: resolve(model, of, parameters), given)


@pytest.mark.parametrize(
    "symbol", ["GSPC", "^GSPC", "BRK-B", "0700.HK", "A" * 33, "a..b", "../x", ".a", "", "é", "a b", 7]
)
def test_so_does_that_of_a_symbol(symbol):
    made = manifest([shipped("stock_price")])["pipelines"]["predict_pipeline"]["partition"]
    valid = Draft202012Validator(made).is_valid(symbol)
    try:
        assert valid == (check_partition(symbol) == symbol)
    except ParameterError:
        assert not valid
