"""The pipelines as Dagster jobs: a name, a selection of assets, and the config that the launchpad opens with."""

import dagster as dg

from mlops_dagster import pipelines
from mlops_dagster.assets import build_model
from mlops_dagster.assets.config import ForestConfig, TrainingSetConfig

build_model_pipeline = dg.define_asset_job(
    pipelines.BUILD_MODEL.name,
    selection=[build_model.prices, build_model.training_set, build_model.trained_model],
    description=pipelines.BUILD_MODEL.description,
    # The launchpad opens with the two hyper-parameters that people change, instead of an empty page.
    config=dg.RunConfig(
        ops={
            "training_set": TrainingSetConfig(recipe="honest"),
            "trained_model": ForestConfig(
                max_depth=pipelines.RECIPE_DEFAULTS["honest"]["max_depth"],
                n_estimators=pipelines.RECIPE_DEFAULTS["honest"]["n_estimators"],
            ),
        }
    ),
)
