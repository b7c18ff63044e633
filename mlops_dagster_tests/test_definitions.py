import json
import subprocess
import sys
from typing import get_args

import dagster as dg
import pytest

from mlops_dagster.assets.config import config_of
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.declared import model_definitions
from mlops_dagster.spec.project import find_model
from mlops_dagster_tests.contracts.stock import OWN

STOCK = OfModel(find_model("stock_price", OWN))
DEFS = model_definitions(STOCK.declaration)
HEAVY = (
    "dagster_databricks",
    "dagster_mlflow",
    "deltalake",
    "matplotlib",
    "mlflow",
    "pandas",
    "pandera",
    "pyarrow",
    "pyspark",
    "sklearn",
    "skops",
    "yfinance",
)


def test_loading_the_code_location_imports_nothing_heavy():
    code = "import json, sys, mlops_dagster.definitions; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "dagster" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_command_line_imports_no_dagster():
    code = "import json, sys, mlops_dagster.cli, mlops_dagster.steps; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"dagster", *HEAVY}.isdisjoint(name.split(".")[0] for name in json.loads(done.stdout))


@pytest.mark.parametrize("pipeline", STOCK.pipelines, ids=lambda pipeline: pipeline.name)
def test_every_pipeline_is_a_job_and_its_steps_are_the_assets(pipeline):
    job = DEFS.resolve_job_def(pipeline.name)
    assert {node.name for node in job.nodes} >= {STOCK.op(step.name) for step in pipeline.steps}
    assert pipeline.name in ("build_model_pipeline", "search_model_pipeline", "cluster_search_model_pipeline") or (
        pipeline.name == "predict_pipeline"
    )


@pytest.mark.parametrize("step", STOCK.steps.values(), ids=lambda step: step.name)
def test_the_launchpad_asks_for_exactly_the_parameters_of_the_step(step):
    asset = next(asset for asset in DEFS.assets if asset.key == STOCK.key(step.name))
    fields = asset.op.config_schema.as_field().config_type.fields
    # Dagster's config has no field that is a list or a range, so a grid's ranges are a field of their own.
    assert set(fields) - {"ranges"} == {parameter.name for parameter in step.parameters}
    for parameter in step.parameters:
        assert fields[parameter.name].description
        assert not fields[parameter.name].is_required
        if parameter.name in step.defaults:
            assert fields[parameter.name].default_value == step.defaults[parameter.name]


def test_the_launchpad_takes_grids_of_lists_and_of_ranges():
    fields = config_of(STOCK.steps["grid_search_results"], STOCK).to_config_schema().as_field().config_type.fields
    forest = {parameter.name for parameter in STOCK.grid}
    assert set(fields["grid"].config_type.inner_type.fields) == forest
    assert set(fields["ranges"].config_type.inner_type.fields) == forest - {"bootstrap"}


@pytest.mark.parametrize("name", ["preset", "candidates"])
def test_the_launchpad_offers_what_a_search_takes(name):
    step = STOCK.steps["grid_search_results"]
    taken = get_args(config_of(step, STOCK).model_fields[name].annotation)
    (parameter,) = (one for one in step.parameters if one.name == name)
    assert taken == parameter.choices


def test_the_launchpad_explains_every_parameter():
    fields = config_of(STOCK.steps["trained_model"], STOCK).to_config_schema().as_field().config_type.fields
    assert "from 1 to 1000" in fields["max_depth"].description
    assert "Default: 80." in fields["max_depth"].description


def test_every_asset_says_what_it_is_and_whose():
    for asset in DEFS.assets:
        spec = next(iter(asset.specs))
        assert spec.description
        assert spec.group_name != "default"
        assert spec.owners
        assert spec.kinds
        assert spec.code_version
        of_each = spec.key.path[-1] != "fleet_report"
        assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition) == of_each
