"""Daily prices as two declarations: what they make is what the pipelines of prices make, to the last bit."""

import re
import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster.components.testing import create_defs_folder_sandbox

import mlops_dagster
import mlops_dagster.examples
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.errors import ParameterError
from mlops_dagster.session import Session
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.reading import read_declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.file_finding import SourceError
from mlops_dagster.stack.tracking import Origin
from mlops_dagster_tests.test_build_model import failure

DEFS = Path(*mlops_dagster.examples.__path__) / "prices" / "defs"
TEST = Origin("test", "run-1", None)
# Of the old pipelines: the recipe, what its names are called now, and a grid small enough.
RECIPES = {"stock_price": "honest", "article": "article"}
TABLES = {"data": "prices", "grid_search_results": "grid_search_results"}
METRICS = {
    "root_mean_squared_error": "rmse",
    "mean_absolute_error": "mae",
    "r2": "r2",
    "root_mean_squared_error_baseline": "rmse_persistence",
    "r2_baseline": "r2_persistence",
    "train_rows": "train_rows",
    "test_rows": "test_rows",
}
GRID = {"grid": {"max_features": [2, 1.0], "n_estimators": [5, 10]}}
UNIT = "[index points or currency]"
TIMES = ["mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time"]


class Both:
    """The same steps by the pipelines of prices, and by a declaration."""

    def __init__(self, home, model):
        deployment, self.recipe = Deployment(home=home), RECIPES[model]
        self.new = Session(deployment, TEST, model=find_model(model, DEFS))
        self.old = Session(deployment, TEST)

    def run(self, step, given, then=None):
        then = then or step
        return self.new.run(step, "GSPC", given), self.old.run(TABLES.get(step, then), "GSPC", given)

    def tables(self, step):
        return self.new.store.read(step, "GSPC")[0], self.old.store.read(TABLES.get(step, step), "GSPC")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "trees"), [("stock_price", {"n_estimators": 10}), ("article", {})])
def test_a_declaration_makes_what_the_pipelines_make(home, model, trees):
    both = Both(home, model)
    both.new.run("data", "GSPC", {})
    both.old.run("prices", "GSPC", {})
    pd.testing.assert_frame_equal(*both.tables("data"), check_exact=True)

    both.new.run("training_set", "GSPC", {})
    both.old.run("training_set", "GSPC", {"recipe": both.recipe})
    new, old = both.tables("training_set")
    new = new.rename(columns={"current": "price"}).replace({"split": {"unknown": "forecast"}})
    pd.testing.assert_frame_equal(new[list(old)], old, check_exact=True)

    trained, before = both.run("trained_model", trees)
    assert trained.facts["model_digest"] == before.facts["model_digest"]
    assert {ours: trained.metrics[ours] for ours in METRICS} == {
        ours: before.metrics[theirs] for ours, theirs in METRICS.items()
    }
    if model == "article":
        assert trained.metrics["root_mean_squared_error"] == before.metrics["rmse"]
    new, old = both.tables("trained_model")
    called = {"truth_time": "TargetDate", "current": "price", "prediction": "forecast"}
    pd.testing.assert_frame_equal(new.rename(columns=called)[list(old)], old, check_exact=True)

    decided, before = both.run("champion_model", {})
    assert decided.facts["promoted"] == before.facts["promoted"] == (model == "stock_price")
    assert decided.facts["outcome"] == before.facts["outcome"] == {"article": "leaks", "stock_price": "first"}[model]
    leaky, before = both.run("champion_model", {"allow_leaks": True})
    assert leaky.facts["promoted"] == before.facts["promoted"] == (model == "article")

    searched, before = both.run("grid_search_results", GRID)
    assert searched.facts["best_parameters"] == before.facts["best_parameters"]
    new, old = (frame.drop(columns=TIMES) for frame in both.tables("grid_search_results"))
    pd.testing.assert_frame_equal(new[list(old)], old, check_exact=True)

    # The champion's forecasts, those of two days that were missed among them; then dividends are paid.
    both.new.run("predictions", "GSPC", {"interval": 0.8, "catch_up": 2})
    both.old.run("price_forecast", "GSPC", {"interval": 0.8, "catch_up": 2})
    new, old = both.new.store.read("predictions", "GSPC")[0], both.old.store.read("price_forecast", "GSPC")[0]
    called = {"current": "price", "value": "forecast"}
    kept = ["Date", "horizon", "price", "forecast", "lower", "upper", "interval", "model_digest"]
    assert (len(new) > new["horizon"].iloc[0]) == (model == "stock_price")  # the article has learned from all
    pd.testing.assert_frame_equal(new.rename(columns=called)[kept], old[kept], check_exact=True)
    for store, name in ((both.new.store, "data"), (both.old.store, "prices")):
        frame, table = store.read(name, "GSPC")
        paid = frame.assign(AdjClose=frame["AdjClose"].where(frame.index == len(frame) - 1, frame["AdjClose"] * 0.97))
        store.write(name, "GSPC", paid, metadata=table.metadata)
    both.new.run("prediction_quality", "GSPC", {})
    both.old.run("forecast_quality", "GSPC", {})
    new, old = both.new.store.read("prediction_quality", "GSPC")[0], both.old.store.read("forecast_quality", "GSPC")[0]
    kept = ["Date", "price", "truth", "forecast", "error"]
    if model == "stock_price":
        pd.testing.assert_frame_equal(new.rename(columns=called)[kept], old[kept], check_exact=True)
        assert new["inside"].tolist() == old["inside"].tolist()


def test_presets_and_defaults_are_those_of_the_pipelines():
    from mlops_dagster import grids, pipelines
    from mlops_dagster.modeling.estimators import make_estimator, narrowed_parameters
    from mlops_dagster.modeling.search import grid_of
    from mlops_dagster.spec.steps import parameters_of

    for model, recipe in RECIPES.items():
        declaration = find_model(model, DEFS)
        assert {name: one.default for name, one in declaration.parameters.items()} == pipelines.RECIPE_DEFAULTS[recipe]
        for said, known in zip(parameters_of(declaration), pipelines.FOREST, strict=True):
            assert (said.name, said.kind, said.description) == (known.name, known.kind, known.description)
            assert (said.minimum, said.maximum) == (known.minimum, known.maximum)
        (features,) = (one for one in narrowed_parameters(declaration) if one.name == "max_features")
        assert features.whole_above == 1
        assert isinstance(make_estimator(declaration, {"max_features": 1}).max_features, float)
        for preset in grids.PRESET_GRIDS:
            assert grid_of(declaration, preset) == grids.resolve_grid(recipe, {"preset": preset})


def test_wrong_prices_and_sources_are_refused(home, price_rows, tmp_path):
    session = Session(Deployment(home=home), TEST, model=find_model("stock_price", DEFS))
    price_rows.loc[7, "High"] = 1.0
    price_rows.loc[[20, 21], "Date"] = price_rows.loc[[21, 20], "Date"].to_numpy()
    price_rows.head(200).to_csv(tmp_path / "ACME.csv", index=False)

    with pytest.raises(ValueError, match="3 violations") as refused:
        session.run("data", "ACME", {"path": str(tmp_path / "{symbol}.csv")})
    assert "High=1.0 (row 8, Date=" in str(refused.value)
    assert "is below the day's Open, Low or Close; correct it" in str(refused.value)
    assert "is earlier than a row above it; sort the rows by Date" in str(refused.value)
    assert "there are fewer than 250 rows" in str(refused.value)
    with pytest.raises(ParameterError, match=r"path=.*it belongs to source 'files'"):
        session.run("data", "GSPC", {"source": "bundled", "path": "x.csv"})
    with pytest.raises(ParameterError, match=r"source='web'.*bundled, files, yahoo"):
        session.run("data", "GSPC", {"source": "web"})
    # Where a deployment says that the prices are, unless the run says it.
    mine = Deployment(
        home=home, spark={"train": True}, data={"prices": {"path": str(tmp_path / "none_of_{symbol}.csv")}}
    )
    session = Session(mine, TEST, model=session.model)
    assert session.on_spark("trained_model", {})  # a forest
    with pytest.raises(SourceError, match=r"none_of_GSPC\.csv"):
        session.run("data", "GSPC", {})
    assert session.run("data", "GSPC", {"source": "bundled"}).facts["origin"] == "bundled file GSPC.csv"


def test_one_path_for_several_symbols_is_refused_before_any_work(mlops, tmp_path):
    shutil.copytree(DEFS, tmp_path / "defs")
    done = mlops("build-model", "stock_price", "--partition", "GSPC", "--partition", "IXIC", "--path", "all.csv")
    assert done.returncode == 2
    cure = "every symbol would get the same rows; write {symbol} where the symbol stands in the path."
    assert " ".join(done.stderr.split()) == f"ParameterError path='all.csv' (str): {cure}"
    backfill = dg.DagsterRun(
        "stock_price_build_model_pipeline",
        tags={"dagster/backfill": "one"},
        run_config={"ops": {"prices__data": {"config": {"path": "all.csv"}}}},
    )
    with pytest.raises(dg.Failure, match=re.escape(cure)):
        OfModel(find_model("stock_price", DEFS)).refuse_bad_run(backfill, "GSPC")


def test_a_dataset_is_no_model():
    with pytest.raises(ParameterError, match=r"defs.yaml:1: .*name one that shares it"):
        find_model("prices", DEFS)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("data: {dataset: rates}", "data.dataset='rates'.*there are prices"),
        ("data: {dataset: prices}\n  time: Date", "time: the dataset prices says it for all models"),
        ("data: {dataset: prices, table: a}", "exactly one of"),
        ("data: {dataset: prices}\n  target: {column: AdjClose, horizon: 1.5}", "a share of them below 1"),
    ],
)
def test_what_contradicts_a_dataset_is_refused_with_its_line(tmp_path, said, wrong):
    for model in ("prices", "stock_price"):
        (tmp_path / model).mkdir()
        text = (DEFS / model / "defs.yaml").read_text()
        if "target" in said:
            text = text.replace("  target: {column: AdjClose, horizon: 1, learn: return}\n", "")
        (tmp_path / model / "defs.yaml").write_text(text.replace("data: {dataset: prices}", said))
    with pytest.raises(ParameterError, match=rf"defs.yaml:\d+: .*{wrong}"):
        read_declaration(tmp_path / "stock_price" / "defs.yaml")


@pytest.mark.slow
def test_two_models_share_one_asset(home, monkeypatch):
    monkeypatch.chdir(DEFS.parent)
    defs = mlops_dagster.model_definitions("stock_price", "article")
    (shared,) = (asset for asset in defs.assets if dg.AssetKey(["prices", "data"]) in asset.keys)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("prices_symbol", ["GSPC"])
        for model in RECIPES:
            config = {"ops": {f"{model}__trained_model": {"config": {"n_estimators": 5}}}}
            job = defs.resolve_job_def(f"{model}_build_model_pipeline")
            done = job.execute_in_process(config, instance=instance, partition_key="GSPC", raise_on_error=False)
            assert done.success, failure(done)
        made = instance.fetch_materializations(shared.key, limit=10).records
        assert len({one.asset_materialization.tags["dagster/data_version"] for one in made}) == 1
        inputs = instance.get_latest_materialization_event(dg.AssetKey(["article", "training_set"]))
        assert inputs.asset_materialization.tags["dagster/input_data_version/prices/data"]
        columns = made[0].asset_materialization.metadata["dagster/column_schema"].value.columns
        assert next(one for one in columns if one.name == "High").description == "Highest price of the day " + UNIT
    # What any of a run's steps would refuse is refused before the shared table is read.
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("prices_symbol", ["GSPC"])
        config = {"ops": {"article__trained_model": {"config": {"n_estimators": 0}}}}
        job = defs.resolve_job_def("article_build_model_pipeline")
        done = job.execute_in_process(config, instance=instance, partition_key="GSPC", raise_on_error=False)
        assert not done.success
        assert instance.get_latest_materialization_event(shared.key) is None


def test_the_components_of_a_project_are_one_code_location(home):
    with create_defs_folder_sandbox(project_name="ours") as sandbox:
        for model in ("prices", *RECIPES):
            shutil.copytree(DEFS / model, sandbox.defs_folder_path / model)
        with sandbox.build_all_defs() as defs:
            keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
            assert "prices/data" in keys
            assert "article/data" not in keys
            assert "article_build_model_pipeline" in {job.name for job in defs.resolve_all_job_defs()}
