import json
import subprocess
import sys

import dagster as dg
import pytest

from mlops_dagster import pipelines
from mlops_dagster.assets.config import ForestConfig, PricesConfig, TrainingSetConfig
from mlops_dagster.definitions import defs

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


def test_the_job_has_the_articles_name_and_its_steps_are_the_assets():
    job = defs.resolve_job_def(pipelines.BUILD_MODEL.name)
    steps = {step.name for step in pipelines.BUILD_MODEL.steps}
    assert steps <= {node.name for node in job.nodes}


@pytest.mark.parametrize(
    ("config", "step"),
    [
        (TrainingSetConfig, pipelines.TRAINING_SET),
        (ForestConfig, pipelines.TRAINED_MODEL),
        (PricesConfig, pipelines.PRICES),
    ],
)
def test_the_launchpad_asks_for_exactly_the_parameters_of_the_step(config, step):
    assert set(config.model_fields) == {parameter.name for parameter in step.parameters}


def test_the_launchpad_explains_every_parameter():
    fields = ForestConfig.to_config_schema().as_field().config_type.fields
    assert "from 1 to 1000" in fields["max_depth"].description
    assert "Not given: 80." in fields["max_depth"].description
    assert all(field.description for field in fields.values())


def test_every_asset_says_what_it_is_and_whose():
    for asset in defs.assets:
        spec = next(iter(asset.specs))
        assert spec.description
        assert spec.group_name != "default"
        assert spec.owners
        assert spec.kinds
        assert spec.code_version
        assert isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)
