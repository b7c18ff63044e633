"""Declared models in Dagster: as a component of anybody's project, and merged into anybody's definitions."""

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from mlflow import MlflowClient

import mlops_dagster
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.definitions import definitions_of
from mlops_dagster.errors import ParameterError
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster.steps.champion import NoChampion
from mlops_dagster_tests.test_build_model import failure
from mlops_dagster_tests.test_definitions import HEAVY

STEPS = {
    *("data", "training_set", "trained_model", "champion_model", "grid_search_results"),
    *("predictions", "prediction_quality"),
}
CHURN = """\
type: mlops_dagster.SklearnModel
attributes:
  task: classification
  data:
    files: {path: customers.csv}
  contract:
    id: {type: integer, unique: true}
    shop: {type: text}
    age: {type: number, minimum: 0, maximum: 120, description: "[years]"}
    churned: {type: text, nullable: true, allowed: ["no", "yes"]}
  key: [id]
  features: [age]
  target: churned
  split: {kind: stratified}
  estimator:
    class: sklearn.tree.DecisionTreeClassifier
    arguments: {random_state: 0}
  parameters:
    max_depth: {default: 3, maximum: 20, description: How deep it grows.}
    criterion: {default: gini, choices: [gini, entropy]}
  metrics: [roc_auc, accuracy]
  baseline: prior
  search:
    presets: {small: {max_depth: [2, 3, 4]}}
    cv: {kind: stratified, folds: 2}
  predictions:
    output: [class, probabilities]
    schedule: "0 6 * * *"
"""
BY_SHOP = CHURN.replace("  features:", "  partitions: {name: shop}\n  features:")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a model of all customers, and one of each shop's."""
    draws = np.random.default_rng(0)
    age = draws.uniform(18, 80, 300).round(1)
    churned = np.where(draws.random(300) < 1 / (1 + np.exp((50 - age) / 5)), "yes", "no").astype(object)
    churned[-30:] = None
    shop = np.tile(["north", "south"], 150)
    table = pd.DataFrame({"id": range(300), "shop": shop, "age": age, "churned": churned})
    for name, declaration in (("churn", CHURN), ("churn_by_shop", BY_SHOP)):
        folder = tmp_path / "defs" / name
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(declaration)
        table.to_csv(folder / "customers.csv", index=False)
    monkeypatch.chdir(tmp_path)
    # Nobody listens there: whoever asks for Spark is told so at once.
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "spark://127.0.0.1:1")
    monkeypatch.setenv("MLOPS_SPARK__CONNECT_TIMEOUT", "0.5")
    return tmp_path


MINE = {"job": "data", "report": "report"}


@pytest.fixture
def declared(home, project):
    """The definitions of both models, beside those of somebody else."""

    @dg.asset(ins={name: dg.AssetIn(key=[name, "data"]) for name in ("churn", "churn_by_shop")})
    def report(churn: pd.DataFrame, churn_by_shop: dict[str, pd.DataFrame]) -> dg.MaterializeResult[None]:
        by_shop = {shop: len(rows) for shop, rows in churn_by_shop.items()}
        return dg.MaterializeResult(metadata={"rows": len(churn), "by_shop": by_shop})

    mine = dg.Definitions(
        assets=[dg.asset(name="data")(lambda: None), report],
        resources={"compute": "mine", "store": "mine"},
        jobs=[
            dg.define_asset_job("my_job", selection=["data"]),
            dg.define_asset_job("my_report", selection=["report"]),
        ],
        executor=dg.multiprocess_executor,
    )
    return dg.Definitions.merge(mine, mlops_dagster.model_definitions("churn", "churn_by_shop"))


def run(defs, job, config=None, **how):
    ops = {
        f"{job.split('_build')[0].split('_predict')[0]}__{step}": {"config": one}
        for step, one in (config or {}).items()
    }
    return defs.resolve_job_def(job).execute_in_process({"ops": ops}, raise_on_error=False, **how)


def test_the_deployments_parameters_hold_until_a_run_says_others(home, project, monkeypatch):
    parameters = "parameters: {rows: {default: 300, minimum: 1, maximum: 300}}"
    said = CHURN.replace("files: {path: customers.csv}", f"function: .data:load\n    {parameters}")
    (project / "defs" / "churn" / "defs.yaml").write_text(said)
    code = "import pandas as pd\nfrom pathlib import Path\n\n\ndef load(rows):\n"
    code += "    return pd.read_csv(Path(__file__).parent / 'customers.csv').head(rows)\n"
    (project / "defs" / "churn" / "data.py").write_text(code)
    monkeypatch.setenv("MLOPS_DATA__CHURN__ROWS", "200")
    (asset,) = (one for one in mlops_dagster.model_definitions("churn").assets if one.key.path == ["churn", "data"])
    resources = mlops_dagster.model_definitions("churn").resources
    for given, rows in ({}, 200), ({"rows": 300}, 300):
        config = {"ops": {"churn__data": {"config": given}}}
        done = dg.materialize([asset], resources=resources, run_config=config)
        (made,) = done.asset_materializations_for_node("churn__data")
        assert made.metadata["dagster/row_count"].value == rows
    monkeypatch.setenv("MLOPS_DATA__CHURN__ROWS", "301")
    with pytest.raises(ParameterError, match=r"data\.churn\.rows=301 \(int\): give an integer from 1 to 300"):
        mlops_dagster.model_definitions("churn")


def test_models_stand_beside_each_other_and_beside_what_is_others(declared):
    keys = {key.to_user_string() for asset in declared.assets for key in asset.keys}
    steps = {f"{model}/{step}" for model in ("churn", "churn_by_shop") for step in STEPS}
    assert keys == {"data", "report", "churn_by_shop/fleet_report"} | steps
    assert {sensor.name for sensor in declared.sensors} == {
        "churn_by_shop_partitions",
        "churn_by_shop_inbox",
        *(
            f"{model}_{sensor}"
            for model in ("churn", "churn_by_shop")
            for sensor in ("mlflow_runs", "keep_predictions_current", "poor_predictions", "best_parameters_to_model")
        ),
    }
    assert declared.resources["compute"] == "mine"
    assert {"mlops_dagster_churn", "mlops_dagster_churn_by_shop"} <= set(declared.resources)
    assert declared.resolve_job_def("my_job").executor_def is dg.multiprocess_executor
    assert declared.resolve_job_def("churn_build_model_pipeline").executor_def.name == "in_process"
    (link,) = [
        link
        for asset in declared.assets
        for spec in asset.specs
        if spec.key == dg.AssetKey(["churn", "data"])
        for link in spec.metadata["dagster/code_references"].code_references
        if "defs.yaml" in str(link.label)
    ]
    assert link.file_path.endswith("defs/churn/defs.yaml")


def test_a_run_makes_every_table_and_its_checks(declared, home):
    with dg.DagsterInstance.ephemeral() as instance:
        asked, cursor = to_be_remade(declared, instance)
        assert not asked
        built = run(declared, "churn_build_model_pipeline", {"trained_model": {"max_depth": 2}}, instance=instance)
        assert built.success, failure(built)
        checks = {one.check_name: one.passed for one in built.get_asset_check_evaluations()}
        assert checks == dict.fromkeys(
            (
                "data_keep_the_contract",
                "training_set_leaks_nothing",
                "model_beats_baseline",
                "champion_is_what_was_registered",
            ),
            True,
        )
        made = {
            one.asset_key.path[-1]: one.materialization.metadata for one in built.get_asset_materialization_events()
        }
        assert "| roc_auc | 0." in made["trained_model"]["summary"].value
        assert made["trained_model"]["parameters"].value["max_depth"] == 2
        columns = {one.name: one.description for one in made["data"]["dagster/column_schema"].value.columns}
        assert columns["age"] == "[years]"
        assert columns["churned"] == "text, one of no, yes, may be missing"
        for step in ("training_set", "trained_model"):
            assert all(one.description for one in made[step]["dagster/column_schema"].value.columns)

        asked, cursor = to_be_remade(declared, instance, cursor)
        assert asked == {"predictions", "prediction_quality"}
        predicted = run(declared, "churn_predict_pipeline", instance=instance)
        assert predicted.success, failure(predicted)
        (event,) = predicted.asset_materializations_for_node("churn__predictions")
        assert event.metadata["rows_appended"].value == 30
        (event,) = predicted.asset_materializations_for_node("churn__prediction_quality")
        assert "| Are the predictions up to date? yes |" in event.metadata["state"].value
        asked = {one.check_name: one.passed for one in predicted.get_asset_check_evaluations()}
        assert asked == dict.fromkeys(
            (
                "data_keep_the_contract",
                "predictions_are_current",
                "features_have_not_drifted",
                "predictions_beat_baseline",
            ),
            True,
        )

        refused = run(declared, "churn_build_model_pipeline", {"trained_model": {"max_depth": 0}}, instance=instance)
        step, said = failure(refused)
        assert step == "churn__data"
        assert "max_depth=0 (int): give an integer from 1 to 20." in said
        assert_a_run_left_open_is_ended(declared, instance, built.run_id)
        instance.add_dynamic_partitions("churn_by_shop_shop", ["north", "south"])
        by_shop = store_of(load_deployment(), find_model("churn_by_shop"))
        by_shop.write("data", "north", pd.DataFrame({"age": [30.0]}))
        reported = declared.resolve_job_def("my_report").execute_in_process(instance=instance)
        (event,) = reported.get_asset_materialization_events()
        assert event.materialization.metadata["rows"].value == 300
        assert event.materialization.metadata["by_shop"].value == {"north": 1}
        assert_poor_predictions_lead_to_a_build(declared, instance)


def to_be_remade(defs, instance, cursor=None):
    """What the conditions of churn ask for now, and the cursor for the next look."""
    keys = [dg.AssetKey(["churn", step]) for step in ("predictions", "prediction_quality")]
    result = dg.evaluate_automation_conditions(
        defs=defs,
        instance=instance,
        cursor=cursor,
        asset_selection=dg.AssetSelection.assets(*keys),
    )
    return {key.path[-1] for key in keys if result.get_num_requested(key)}, result.cursor


def sensor_of(defs, name):
    return next(one for one in defs.sensors if one.name == name)


def assert_a_run_left_open_is_ended(defs, instance, run_id):
    others = defs.resolve_job_def("my_job").execute_in_process(instance=instance)
    client, experiment = MlflowTracker(**load_deployment().tracker_settings(find_model("churn"))).connect()
    opened = {
        one: client.create_run(experiment, tags={"orchestrator_run_id": one}).info.run_id
        for one in (run_id, others.run_id)
    }
    began = datetime.now(timezone.utc) - timedelta(hours=1)
    resources = {one: defs.resources[one] for one in OfModel(find_model("churn")).tool_keys}
    context = dg.build_sensor_context(instance, cursor=began.isoformat(), resources=resources)
    result = sensor_of(defs, "churn_mlflow_runs").evaluate_tick(context)
    assert result.skip_message == f"FINISHED now: {opened[run_id]}"
    assert client.get_run(opened[run_id]).info.status == "FINISHED"
    assert client.get_run(opened[others.run_id]).info.status == "RUNNING"  # it is nobody's of ours


def assert_poor_predictions_lead_to_a_build(defs, instance):
    sensor = sensor_of(defs, "churn_poor_predictions")
    watched = sensor(dg.build_sensor_context(instance))
    store = store_of(load_deployment(), find_model("churn"))
    scored, _ = store.read("prediction_quality", "all")
    for measured, reason in (
        ({"rows_scored": 19.0, "roc_auc": 0.4, "roc_auc_last_100": 0.4}, None),
        ({"rows_scored": 300.0, "roc_auc": 0.4, "roc_auc_last_100": 0.6}, None),
        ({"rows_scored": 300.0, "roc_auc": 0.6, "roc_auc_last_100": 0.4}, "roc_auc is 0.4, that of the baseline"),
    ):
        store.write("prediction_quality", "all", scored, metadata={"metrics": json.dumps(measured)})
        instance.report_runless_asset_event(dg.AssetMaterialization(["churn", "prediction_quality"]))
        asked = sensor(dg.build_sensor_context(instance, cursor=watched.cursor))
        assert [reason in one.tags["built_because"] for one in asked.run_requests or []] == [True] * bool(reason)
    (request,) = asked.run_requests
    assert set(request.asset_selection) == {
        dg.AssetKey(["churn", step]) for step in ("training_set", "trained_model", "champion_model")
    }


def test_a_search_runs_where_its_job_the_run_or_the_deployment_says(declared, monkeypatch):
    searched = run(declared, "churn_search_model_pipeline")
    assert searched.success, failure(searched)
    (event,) = searched.asset_materializations_for_node("churn__grid_search_results")
    assert event.metadata["engine"].value == "here"
    assert "3 candidates on 2 folds: 6 fits" in event.metadata["shared"].value
    job = declared.resolve_job_def("churn_cluster_search_model_pipeline")
    opens_with = job.run_config["ops"]["churn__grid_search_results"]["config"]
    assert opens_with == {"engine": "spark", "preset": "small", "folds": 2, "scoring": "roc_auc", "candidates": "table"}
    _, said = failure(run(declared, "churn_cluster_search_model_pipeline"))  # also with that config wiped out
    assert "no Spark answers at spark://127.0.0.1:1" in said
    config = {"churn__grid_search_results": {"config": {"engine": "spark"}}}
    job = declared.resolve_job_def("churn_search_model_pipeline")
    _, said = failure(job.execute_in_process({"ops": config}, raise_on_error=False))
    assert "no Spark answers at spark://127.0.0.1:1" in said
    monkeypatch.setenv("MLOPS_SPARK__SEARCH", "true")
    defs = mlops_dagster.model_definitions("churn")
    _, said = failure(run(defs, "churn_search_model_pipeline"))
    assert "no Spark answers at spark://127.0.0.1:1" in said
    config = {"churn__grid_search_results": {"config": {"engine": "here"}}}
    job = defs.resolve_job_def("churn_search_model_pipeline")
    assert job.execute_in_process({"ops": config}, raise_on_error=False).success


@pytest.mark.slow
def test_what_happens_to_partitions_by_itself(declared, instance, project):
    sensor = next(one for one in declared.sensors if one.name == "churn_by_shop_partitions")
    (request,) = sensor(dg.build_sensor_context(instance)).dynamic_partitions_requests
    assert request.partition_keys == ["north", "south"]
    instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    assert isinstance(sensor(dg.build_sensor_context(instance)), dg.SkipReason)
    schedule = next(one for one in declared.schedules if one.name == "churn_by_shop_predictions")
    assert "no champion" in schedule(dg.build_schedule_context(instance)).skip_message
    config = {"trained_model": {"criterion": "entropy"}}
    built = run(declared, "churn_by_shop_build_model_pipeline", config, instance=instance, partition_key="south")
    assert built.success, failure(built)
    (data,) = built.asset_materializations_for_node("churn_by_shop__data")
    assert (data.partition, data.metadata["dagster/row_count"].value) == ("south", 150)
    due = pd.Timestamp("2026-01-05 06:00", tz="UTC").to_pydatetime()
    (request,) = schedule(dg.build_schedule_context(instance, scheduled_execution_time=due))
    assert request.partition_key == "south"
    assert_a_search_leads_to_a_build(declared, instance)
    assert_a_file_of_the_inbox_leads_to_a_model(declared, instance, project)


def assert_a_search_leads_to_a_build(defs, instance):
    sensor = sensor_of(defs, "churn_by_shop_best_parameters_to_model")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    turned_on = sensor(dg.build_sensor_context(instance))
    job = defs.resolve_job_def("churn_by_shop_search_model_pipeline")
    config = {"ops": {"churn_by_shop__training_set": {"config": {"test_size": 0.4}}}}
    searched = job.execute_in_process(config, instance=instance, partition_key="south", raise_on_error=False)
    assert searched.success, failure(searched)
    found = sensor(dg.build_sensor_context(instance, cursor=turned_on.cursor))
    (request,) = found.run_requests
    (event,) = searched.asset_materializations_for_node("churn_by_shop__grid_search_results")
    best = {"criterion": "gini", **event.metadata["best_parameters"].value}
    assert request.run_config["ops"] == {
        "churn_by_shop__training_set": {"config": {"test_size": 0.4}},
        "churn_by_shop__trained_model": {"config": best},
    }
    assert (request.partition_key, request.run_key) == ("south", f"south/{searched.run_id}")
    event = instance.get_latest_materialization_event(dg.AssetKey(["churn_by_shop", "grid_search_results"]))
    instance.report_runless_asset_event(event.asset_materialization)  # as a search in the shell does
    again = sensor(dg.build_sensor_context(instance, cursor=found.cursor))
    assert again.skip_reason.skip_message == "No new search."
    assert not again.run_requests
    asked_for(defs, request, instance)


def assert_a_file_of_the_inbox_leads_to_a_model(defs, instance, project):
    sensor = sensor_of(defs, "churn_by_shop_inbox")
    inbox = Path(load_deployment().inbox.path)
    inbox.mkdir(exist_ok=True)
    first = sensor(dg.build_sensor_context(instance))
    assert "Nothing new in" in first.skip_reason.skip_message
    rows = pd.read_csv(project / "defs" / "churn" / "customers.csv").assign(shop="west")
    file = inbox / "churn_by_shop" / "west.csv"
    rows.to_csv(file, index=False)
    cursor = sensor(dg.build_sensor_context(instance, cursor=first.cursor)).cursor
    arrived = sensor(dg.build_sensor_context(instance, cursor=cursor))
    (request,) = arrived.run_requests
    (added,) = arrived.dynamic_partitions_requests
    instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
    assert request.job_name == "churn_by_shop_build_model_pipeline"
    built = asked_for(defs, request, instance)
    (data,) = built.asset_materializations_for_node("churn_by_shop__data")
    assert (data.partition, data.metadata["origin"].value) == ("west", str(file))
    rows.head(290).to_csv(file, index=False)  # after it was seen
    said = failure(run_of(defs, request, instance))[1]
    assert "has changed since it was seen" in said
    # It has a champion, whose rows the schedule wouldn't find.
    schedule = next(one for one in defs.schedules if one.name == "churn_by_shop_predictions")
    due = pd.Timestamp("2026-01-06 06:00", tz="UTC").to_pydatetime()
    asked = schedule(dg.build_schedule_context(instance, scheduled_execution_time=due))
    assert [one.partition_key for one in asked] == ["south"]
    cursor = sensor(dg.build_sensor_context(instance, cursor=arrived.cursor)).cursor
    (request,) = sensor(dg.build_sensor_context(instance, cursor=cursor)).run_requests
    assert request.job_name == "churn_by_shop_predict_pipeline"
    asked_for(defs, request, instance)


def run_of(defs, request, instance):
    job = defs.resolve_job_def(request.job_name or "churn_by_shop_build_model_pipeline")
    how = {"instance": instance, "partition_key": request.partition_key, "raise_on_error": False}
    return job.execute_in_process(request.run_config, **how)


def asked_for(defs, request, instance):
    """Run what a sensor asks for."""
    done = run_of(defs, request, instance)
    assert done.success, failure(done)
    return done


def test_what_cant_travel_to_databricks_is_refused_before_any_work(declared, monkeypatch):
    monkeypatch.delenv("MLOPS_SPARK__MASTER")
    defs = mlops_dagster.model_definitions("churn", deployment="databricks_serverless")
    step, said = failure(run(defs, "churn_build_model_pipeline", {"data": {"path": "/data/customers.csv"}}))
    assert step == "churn__data"
    assert "data.files.path='/data/customers.csv': /data/customers.csv stays on this machine" in said
    # On the cluster no file says what a deployment of that name is: its settings are in the environment.
    monkeypatch.setenv("MLOPS_INSIDE", "true")
    assert mlops_dagster.model_definitions("churn", deployment="mine_alone").resources


def test_the_component_is_scaffolded_and_loaded(home):
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(mlops_dagster.SklearnModel, "churn")
        file = folder / "defs.yaml"
        with sandbox.load_component_and_build_defs(folder) as (component, defs):
            assert component.declaration.name == "churn"
            assert defs.resolve_job_def("churn_build_model_pipeline")
        file.write_text(file.read_text().replace("  task:", "  tusk:"))
        with pytest.raises(Exception, match=r"churn") as wrong, sandbox.load_component_and_build_defs(folder):
            pass
        assert f"{file}:4: tusk: there is no such setting; did you mean task?" in str(
            wrong.value.__cause__ or wrong.value
        )


def test_the_schema_takes_what_a_declaration_may_say():
    schema = mlops_dagster.SklearnModel.get_model_cls().model_json_schema()
    assert {one.get("type") for one in schema["properties"]["target"]["anyOf"]} >= {"string"}
    assert "split" in schema["required"]


def test_the_code_location_has_the_projects_models_and_imports_nothing_heavy(home, project):
    code = (
        "import json, sys; from mlops_dagster.definitions import defs;"
        "print(json.dumps([[job.name for job in defs.jobs], sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    jobs, modules = json.loads(done.stdout)
    assert {"churn_build_model_pipeline", "churn_by_shop_predict_pipeline"} <= set(jobs)
    assert {name.split(".")[0] for name in modules}.isdisjoint(HEAVY)


def test_a_wrong_declaration_is_said_with_its_line(home, project):
    file = project / "defs" / "churn" / "defs.yaml"
    file.write_text(CHURN.replace("max_depth: {default: 3", "max_depth: {defalt: 3"))
    with pytest.raises(ParameterError, match=rf"{file}:19: parameters.max_depth.defalt: there is no such setting"):
        definitions_of(load_deployment())


def test_the_rows_may_be_another_assets_value(home, project, tmp_path):
    rows = pd.read_csv(project / "defs" / "churn" / "customers.csv")
    file = project / "defs" / "churn" / "defs.yaml"
    said = CHURN.replace("files: {path: customers.csv}", "asset: raw/customers")
    file.write_text(said.replace("  predictions:", "  predictions:\n    data: {asset: raw/customers}"))
    mine = dg.Definitions(
        assets=[dg.asset(key=["raw", "customers"])(lambda: rows)],
        jobs=[dg.define_asset_job("whole", selection=["raw/customers", "key:churn/*"])],
        resources={"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path / "values"))},
    )
    defs = dg.Definitions.merge(mine, mlops_dagster.model_definitions("churn"))
    with dg.DagsterInstance.ephemeral() as instance:
        alone = run(defs, "churn_build_model_pipeline", instance=instance)
        assert "asset raw/customers can't be loaded" in failure(alone)[1]
        both = run(defs, "whole", instance=instance)
        assert both.success, failure(both)
        (predicted,) = both.asset_materializations_for_node("churn__predictions")
        assert predicted.metadata["rows_appended"].value == len(rows)
        checked = {one.check_name for one in both.get_asset_check_evaluations()}
        assert "data_keep_the_contract" in checked
        assert "features_have_not_drifted" not in checked  # a check doesn't read another asset's value
        (data,) = both.asset_materializations_for_node("churn__data")
        assert data.metadata["origin"].value == "asset raw/customers"
        assert data.metadata["dagster/row_count"].value == len(rows)


def test_a_session_does_the_same_from_python(home, project, monkeypatch):
    with mlops_dagster.Session.of("churn") as churn:
        with pytest.raises(NoChampion):
            churn.champion()
        assert churn.train(max_depth=2).facts["parameters"]["max_depth"] == 2
        assert churn.promote().facts["promoted"]
        rows = pd.read_csv(project / "defs" / "churn" / "customers.csv").tail(3)
        said = churn.predict(rows.drop(columns="churned"))
        assert said["class"].tolist() == churn.champion().predict(rows[["age"]]).tolist()
        assert churn.predict(rows.assign(churned="yes")).equals(said)  # what is known is left aside
        assert churn.table("training_set")["split"].isin(["train", "test", "unknown"]).all()
        with pytest.raises(ParameterError, match="max_dept"):
            churn.train(max_dept=2)
        kept_out, trained = churn.promote(), churn.train(max_depth=3)
        assert (kept_out.facts["promoted"], [*kept_out.plots]) == (False, ["champion_history"])
        assert "confusion_matrix" in trained.plots

        # Drawn only if somebody will look: the model's pictures come with its promotion.
        churn.plots = "champion"
        churn.model = churn.model.model_copy(update={"gate": churn.model.gate.model_copy(update={"mode": "disabled"})})
        assert churn.train(max_depth=4).plots == {}
        champion = churn.promote()
        assert {*champion.plots} == {"champion_history", *trained.plots}
        assert champion.plots_folder == f"plots/champion_model-{champion.table.version}"
        kept = {one.path for one in MlflowClient(churn.tracker.tracking_uri).list_artifacts(
            champion.mlflow_run_id, champion.plots_folder)}  # fmt: skip
        assert kept == {f"{champion.plots_folder}/{name}.png" for name in champion.plots}
        again = churn.promote()
        assert (again.plots, again.mlflow_run_id) == ({}, champion.mlflow_run_id)
    assert [load_deployment().plots_of(some) for some in (10, 11)] == ["always", "champion"]
    monkeypatch.setenv("MLOPS_PLOTS", "never")
    with mlops_dagster.Session.of("churn") as churn:
        assert (churn.train().plots, churn.promote().plots) == ({}, {})
    with mlops_dagster.Session.of("churn_by_shop") as by_shop:
        assert by_shop.train("north").symbol == "north"
