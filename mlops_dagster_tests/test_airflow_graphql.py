"""The example that runs a Dagster job from Airflow: its queries are ones that this Dagster understands."""

import ast
from pathlib import Path

import pytest
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from mlops_dagster.instance import WORKSPACE_YAML

FILE = Path(__file__).parents[1] / "airflow" / "include" / "dagster_run.py"
CODE = FILE.read_text()
QUERIES = {
    node.targets[0].id: node.value.value
    for node in ast.parse(CODE).body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
}


@pytest.fixture(scope="module")
def schema():
    return create_schema().graphql_schema


@pytest.mark.parametrize("name", ["LAUNCH", "STATUS", "ERRORS", "TERMINATE"])
def test_a_query_fits_the_schema(schema, name):
    assert validate(schema, parse(QUERIES[name])) == []


def test_it_knows_the_name_of_the_code_location():
    assert "location_name: mlops_dagster\n" in WORKSPACE_YAML
    assert 'location: str = "mlops_dagster"' in CODE
