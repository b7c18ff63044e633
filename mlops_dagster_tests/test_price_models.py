"""Daily prices as two declarations: the article's numbers, the honest model's, and what a shared dataset means."""

import re
import shutil

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

import mlops_dagster
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.estimators import make_estimator, narrowed_parameters
from mlops_dagster.session import Session
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.reading import read_declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.file_finding import SourceError
from mlops_dagster_tests.conftest import ARTICLE_PRECISION
from mlops_dagster_tests.contracts.shipped import PRICES, shipped
from mlops_dagster_tests.contracts.stock import TEST, Stock
from mlops_dagster_tests.test_build_model import failure

pytestmark = pytest.mark.examples

MODELS = ("stock_price", "article")
GRID = {"grid": {"max_features": [2, 1.0], "n_estimators": [5, 10]}}
UNIT = "[index points or currency]"
# As the pipelines that knew daily prices and nothing else made them, until declarations took their place.
NUMBERS = {
    "stock_price": {
        "trees": {"n_estimators": 10},
        "metrics": {
            "root_mean_squared_error": 17.362364609241908,
            "mean_absolute_error": 11.827558886289479,
            "r2": 0.998213841870035,
            "root_mean_squared_error_baseline": 17.401525228290044,
            "r2_baseline": 0.9982057754640971,
            "train_rows": 3355,
            "test_rows": 1654,
        },
        "outcome": "first",
        "best": {"max_features": 2, "n_estimators": 5},
        "scores": [-0.013637674312873979, -0.013648340445659659, -0.01377916024185865, -0.01371876741378845],
        "predictions": {
            "2018-12-27": (2491.488694587197, 2432.6718110324077, 2549.57523561127),
            "2018-12-28": (2494.5461106412404, 2430.0835959624965, 2549.961969268887),
            "2018-12-31": (2507.9660015769073, 2449.7211523826504, 2565.310761034765),
        },
    },
    "article": {
        "trees": {},
        "metrics": {
            "root_mean_squared_error": 74.47148052856647,
            "mean_absolute_error": 52.59896120023115,
            "r2": 0.9780878033262401,
            "root_mean_squared_error_baseline": 92.25397004427192,
            "r2_baseline": 0.9663739332557624,
            "train_rows": 3336,
            "test_rows": 1644,
        },
        "outcome": "leaks",
        "best": {"max_features": 1.0, "n_estimators": 10},
        "scores": [-85.96917651946053, -80.94748192303497, -83.2998678669967, -79.37250877420011],
        "predictions": {
            "2018-10-17": (2786.852292549998, 2640.870117, 2923.429932),
            "2018-12-04": (2694.9816407599988, 2662.939941, 2853.580078),
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_are_those_of_before(home, model):
    said, stock = NUMBERS[model], Stock(home, model=shipped(model), symbol="GSPC")
    same = {"rel": ARTICLE_PRECISION, "abs": 1e-12}
    stock.prepare()
    trained = stock.run("trained_model", said["trees"])
    assert {name: trained.metrics[name] for name in said["metrics"]} == pytest.approx(said["metrics"], **same)
    assert stock.run("champion_model").facts["outcome"] == said["outcome"]
    assert stock.run("champion_model", {"allow_leaks": True}).facts["champion"] == "1"
    searched = stock.run("grid_search_results", GRID)
    assert searched.facts["best_parameters"] == said["best"]
    assert list(stock.read("grid_search_results")["mean_test_score"]) == pytest.approx(said["scores"], **same)

    # The champion's predictions, those of two days that were missed among them; then dividends are paid.
    drawn = stock.run("predictions", {"interval": 0.8, "catch_up": 2}).plots["predictions"]
    assert drawn.startswith(b"\x89PNG")
    made = stock.read("predictions").set_index("Date")
    assert (len(made) > made["horizon"].iloc[0]) == (model == "stock_price")  # the article has learned from all
    for day, numbers in said["predictions"].items():
        assert tuple(made.loc[day, ["value", "lower", "upper"]]) == pytest.approx(numbers, **same)
    frame, table = stock.store.read("data", "GSPC")
    paid = frame.assign(AdjClose=frame["AdjClose"].where(frame.index == len(frame) - 1, frame["AdjClose"] * 0.97))
    stock.store.write("data", "GSPC", paid, metadata=table.metadata)
    drawn = stock.run("prediction_quality").plots
    scored = stock.read("prediction_quality")
    assert set(drawn) == ({"errors"} if len(scored) else set())
    if model == "stock_price":
        # What came is told by the change since, so that an adjustment of earlier prices is no error.
        before = frame.set_index("Date")["AdjClose"].loc[["2018-12-28", "2018-12-31"]].to_numpy()
        assert list(scored["truth"]) == pytest.approx([before[0], before[1] / 0.97], rel=1e-12)


def test_a_share_of_features_is_told_from_a_number_of_them():
    for model in MODELS:
        declaration = find_model(model, PRICES)
        (features,) = (one for one in narrowed_parameters(declaration) if one.name == "max_features")
        assert features.whole_above == 1
        assert isinstance(make_estimator(declaration, {"max_features": 1}).max_features, float)


def test_wrong_prices_and_sources_are_refused(home, price_rows, tmp_path):
    session = Session(Deployment(home=home), shipped("stock_price"), TEST)
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
    session = Session(mine, session.model, TEST)
    assert session.on_spark("trained_model", {})  # a forest
    with pytest.raises(SourceError, match=r"none_of_GSPC\.csv"):
        session.run("data", "GSPC", {})
    assert session.run("data", "GSPC", {"source": "bundled"}).facts["origin"] == "bundled file GSPC.csv"


def test_one_path_for_several_symbols_is_refused_before_any_work(mlops, tmp_path):
    shutil.copytree(PRICES, tmp_path / "defs")
    done = mlops("build-model", "stock_price", "--partition", "GSPC", "--partition", "IXIC", "--path", "all.csv")
    assert done.returncode == 2
    cure = "every symbol would get the same rows; write {symbol} where the symbol stands in the path."
    assert " ".join(done.stderr.split()) == f"ParameterError path='all.csv' (str): {cure}"
    backfill = dg.DagsterRun(
        "build_model_pipeline",
        tags={"dagster/backfill": "one"},
        run_config={"ops": {"prices__data": {"config": {"path": "all.csv"}}}},
    )
    with pytest.raises(dg.Failure, match=re.escape(cure)):
        OfModel(shipped("stock_price")).refuse_bad_run(backfill, "GSPC")


def test_a_dataset_is_no_model():
    with pytest.raises(ParameterError, match=r"defs.yaml:1: .*name one that shares it"):
        find_model("prices", PRICES)


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
        text = (PRICES / model / "defs.yaml").read_text()
        if "target" in said:
            text = text.replace("  target: {column: AdjClose, horizon: 1, learn: return}\n", "")
        (tmp_path / model / "defs.yaml").write_text(text.replace("data: {dataset: prices}", said))
    with pytest.raises(ParameterError, match=rf"defs.yaml:\d+: .*{wrong}"):
        read_declaration(tmp_path / "stock_price" / "defs.yaml")


@pytest.mark.slow
def test_two_models_share_one_asset(home, monkeypatch):
    monkeypatch.chdir(PRICES.parent)
    defs = mlops_dagster.model_definitions("stock_price", "article")
    (shared,) = (asset for asset in defs.assets if dg.AssetKey(["prices", "data"]) in asset.keys)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("prices_symbol", ["GSPC"])
        for model in MODELS:
            config = {"ops": {f"{model}__trained_model": {"config": {"n_estimators": 5}}}}
            job = defs.resolve_job_def(find_model(model).named("build_model_pipeline"))
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
        for model in ("prices", *MODELS):
            shutil.copytree(PRICES / model, sandbox.defs_folder_path / model)
        with sandbox.build_all_defs() as defs:
            keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
            assert "prices/data" in keys
            assert "article/data" not in keys
            assert "article_build_model_pipeline" in {job.name for job in defs.resolve_all_job_defs()}
