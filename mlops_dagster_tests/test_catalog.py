"""What the catalog shows of assets: where columns come from, links to code, tags."""

import dagster as dg
import pytest

from mlops_dagster import catalog, pipelines
from mlops_dagster.definitions import defs as project
from mlops_dagster.stack.store import Store
from mlops_dagster_tests.test_build_model import SMALL

TABLES = [step.name for pipeline in pipelines.PIPELINES for step in pipeline.steps]
MADE_HERE = sorted({*TABLES} - {"spark_grid_search_results"})
RUNS = {
    "build_model_pipeline": {"trained_model": SMALL, "champion_model": {"beat_persistence": False}},
    "search_model_pipeline": {"grid_search_results": {"grid": {"max_depth": [2], "n_estimators": [2]}, "folds": 2}},
    "forecast_pipeline": {"price_forecast": {"catch_up": 5}},
}


@pytest.mark.slow
def test_every_column_that_lineage_names_is_in_a_table_that_was_written(defs, instance, home):
    for job, given in RUNS.items():
        ops = {step: {"config": config} for step, config in given.items()}
        if job != "forecast_pipeline":
            ops["training_set"] = {"config": {"recipe": "article"}}  # its features aren't the default's
        if "champion_model" in ops:
            ops["champion_model"]["config"] = {"beat_persistence": False, "allow_leaks": True}
        ran = defs.resolve_job_def(job).execute_in_process({"ops": ops}, instance, partition_key="ACME")
        assert ran.success
    store = Store(home / "store")
    columns = {table: set(store.read(table, "ACME")[0].columns) for table in MADE_HERE}
    for table in set(MADE_HERE) - {"prices"}:
        event = instance.get_latest_materialization_event(dg.AssetKey(table)).asset_materialization
        deps = event.metadata["dagster/column_lineage"].value.deps_by_column
        assert set(deps) <= columns[table]
        for column, sources in deps.items():
            for source in sources:
                where = (table, column, source.asset_key.to_user_string(), source.column_name)
                assert source.column_name in columns[source.asset_key.to_user_string()], where
        assert deps
    assert (
        "dagster/column_lineage"
        not in instance.get_latest_materialization_event(dg.AssetKey("prices")).asset_materialization.metadata
    )


def specs():
    return {spec.key.to_user_string(): spec for asset in project.assets for spec in asset.specs}


def test_every_asset_links_to_its_step(monkeypatch):
    monkeypatch.setattr(catalog, "code_url", lambda: None)
    (asset,) = catalog.with_code_and_tags([a for a in project.assets if a.key == dg.AssetKey("price_forecast")])
    links = next(iter(asset.specs)).metadata["dagster/code_references"].code_references
    assert [link.label for link in links] == ["its step: steps/forecast.py"]
    for link in links:
        lines = catalog.PACKAGE.joinpath(link.label.split(": ")[1]).read_text().splitlines()
        below = lines[link.line_number - 1 : link.line_number + 12]
        assert any(line.startswith("def price_forecast(") for line in below)


def test_links_lead_to_where_the_code_was_pushed(monkeypatch):
    monkeypatch.setattr(catalog, "code_url", lambda: "https://github.com/me/it/blob/abc/mlops_dagster")
    (asset,) = catalog.with_code_and_tags([a for a in project.assets if a.key == dg.AssetKey("prices")])
    links = next(iter(asset.specs)).metadata["dagster/code_references"].code_references
    assert links[0].url.startswith("https://github.com/me/it/blob/abc/mlops_dagster/steps/build_model.py#L")


def test_assets_can_be_filtered_by_their_pipelines():
    for pipeline in pipelines.PIPELINES:
        tagged = {name for name, spec in specs().items() if pipeline.name in spec.tags}
        assert tagged == {step.name for step in pipeline.steps}
