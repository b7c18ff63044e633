import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import dagster as dg
import pytest

import mlops_dagster
from mlops_dagster.assets.config import config_of
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.definitions import defs
from mlops_dagster.spec.project import find_model

STOCK = OfModel(find_model("stock_price"))
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
    job = defs.resolve_job_def(pipeline.name)
    assert {node.name for node in job.nodes} >= {STOCK.op(step.name) for step in pipeline.steps}
    assert pipeline.name in ("build_model_pipeline", "search_model_pipeline", "cluster_search_model_pipeline") or (
        pipeline.name == "predict_pipeline"
    )


@pytest.mark.parametrize("step", STOCK.steps.values(), ids=lambda step: step.name)
def test_the_launchpad_asks_for_exactly_the_parameters_of_the_step(step):
    asset = next(asset for asset in defs.assets if asset.key == STOCK.key(step.name))
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
    for asset in defs.assets:
        spec = next(iter(asset.specs))
        assert spec.description
        assert spec.group_name != "default"
        assert spec.owners
        assert spec.kinds
        assert spec.code_version
        of_each = spec.key.path[-1] != "fleet_report"
        assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition) == of_each


@pytest.mark.slow
def test_the_package_works_without_the_models_that_come_with_it(tmp_path):
    """A copy of it without `examples`, in a folder with a model of somebody's."""
    ignored = shutil.ignore_patterns("examples", "__pycache__")
    shutil.copytree(Path(mlops_dagster.__file__).parent, tmp_path / "mlops_dagster", ignore=ignored)
    shutil.copytree(Path(__file__).parents[1] / "examples/defs/breast_cancer", tmp_path / "defs/breast_cancer")
    code = "import json; from mlops_dagster.definitions import defs; print(json.dumps([job.name for job in defs.jobs]))"
    settings = {**os.environ, "MLOPS_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)}
    for command in (["-c", code], ["-m", "mlops_dagster.cli", "build-model", "--json"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "breast_cancer_build_model_pipeline"  # the only model, so that is the one meant
