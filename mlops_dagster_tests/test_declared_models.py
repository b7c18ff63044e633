"""Declared models from end to end: the examples that ship, by the commands that their users type."""

import json
import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.examples

EXAMPLES = Path(__file__).parents[1] / "examples" / "defs"

# Of each: what makes it quick enough, the partition, what its metrics are, and which of them has to be how good.
MODELS = {
    "breast_cancer": (["--n-estimators", "20"], None, "roc_auc", 0.95),
    "house_value": (["--max-iter", "50"], None, "r2", 0.7),
    "demand": ([], "shop_00", "skill_vs_baseline", 0.1),
    "demand_global": (["--n-estimators", "5", "--max-depth", "8"], None, "skill_vs_baseline", 0.05),
}


@pytest.fixture
def project(tmp_path):
    """A project with the examples, where the commands are run."""
    shutil.copytree(EXAMPLES, tmp_path / "defs")
    return tmp_path


def of(partition):
    return [] if partition is None else ["--partition", partition]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_an_example_goes_from_its_table_to_a_champion(mlops, project, model):
    options, partition, metric, good = MODELS[model]

    checked = mlops("check", model)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = mlops("build-model", model, *of(partition), *options, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = json.loads(done.stdout)["symbols"].values()

    trained, champion = made["trained_model"], made["champion_model"]
    assert trained["metrics"][metric] > good
    assert champion["promoted"], champion["reason"]
    assert trained["plots"]
    # The same again is the same model, to the last bit, and no better than itself.
    again = mlops("build-model", model, *of(partition), *options, "--json")
    (repeated,) = json.loads(again.stdout)["symbols"].values()
    assert repeated["trained_model"]["model_digest"] == trained["model_digest"]
    assert not repeated["champion_model"]["promoted"]
    runs = [f"local@{json.loads(one.stdout)['run_id']}" for one in (done, again)]
    (compared,) = json.loads(mlops("parity", *runs, "--model", model, "--json").stdout)["symbols"].values()
    differing = {one["what"]: one["differences"] for one in compared if one["differences"]}
    # The champion's pictures are with the run that trained it.
    assert [*differing] == ["MLflow run of trained_model", "table champion_model"], differing
    only = "1 artifact is in A only: plots/champion_model/champion_history.png."
    assert differing["MLflow run of trained_model"] == [only]
    assert {"table data", "table training_set", "MLflow run of trained_model"} < {one["what"] for one in compared}


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
@pytest.mark.parametrize("model", ["breast_cancer", "house_value"])
def test_an_examples_search_finds_the_same_on_spark(mlops, project, model, monkeypatch):
    name = {"breast_cancer": "n_estimators", "house_value": "max_iter"}[model]

    grid = ["--grid", f"{name}=10,20", "--folds", "3", "--json"]
    done = mlops("search-model", model, *grid)

    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = json.loads(done.stdout)["symbols"].values()
    assert made["grid_search_results"]["candidates"] == 2
    assert made["grid_search_results"]["best_parameters"][name] in (10, 20)
    assert made["grid_search_results"]["shared"]

    pytest.importorskip("pyspark")
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "local[2]")
    mlops("cache", "prune", "--older-than-days", "0")  # nothing is there already
    on_spark = {"breast_cancer": ["search-model", model, "--engine", "spark"]}
    done = mlops(*on_spark.get(model, ["cluster-search-model", model]), *grid, "--candidates", "children")
    assert done.returncode == 0, done.stdout + done.stderr
    (there,) = json.loads(done.stdout)["symbols"].values()
    assert (made["grid_search_results"]["engine"], there["grid_search_results"]["engine"]) == ("here", "spark")
    for fact in ("best_parameters", "trees_grown", "candidates"):
        assert there["grid_search_results"][fact] == made["grid_search_results"][fact]
    score, same = (one["grid_search_results"]["metrics"]["best_score"] for one in (made, there))
    assert score == pytest.approx(same, rel=1e-12)

    # A forest grows there to the same last bit; what has no trees of its own never asks for Spark.
    builds = [mlops("build-model", model, "--json")]
    monkeypatch.setenv("MLOPS_SPARK__TRAIN", "true")
    if model == "house_value":
        monkeypatch.setenv("MLOPS_SPARK__MASTER", "spark://127.0.0.1:1")
    builds.append(mlops("build-model", model, "--json"))
    digests = {json.loads(one.stdout)["symbols"]["all"]["trained_model"]["model_digest"] for one in builds}
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "estimator", "argument"),
    [("xgboost", "XGBClassifier", "min_child_weight"), ("lightgbm", "LGBMClassifier", "min_child_samples")],
)
def test_two_lines_make_it_another_librarys(mlops, project, family, estimator, argument):
    pytest.importorskip(family)
    file = project / "defs" / "breast_cancer" / "defs.yaml"
    said = file.read_text().replace("sklearn.ensemble.RandomForestClassifier", f"{family}.{estimator}")
    file.write_text(said.replace("min_samples_leaf: {", f"min_samples_leaf: {{argument: {argument}, "))

    assert mlops("check", "breast_cancer").returncode == 0
    done = mlops("build-model", "breast_cancer", "--n-estimators", "10", "--min-samples-leaf", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = json.loads(done.stdout)["symbols"].values()
    assert made["champion_model"]["promoted"], made["champion_model"]["reason"]
    # The next gate opens what was stored, and finds no better one.
    again = json.loads(
        mlops("build-model", "breast_cancer", "--n-estimators", "10", "--min-samples-leaf", "2", "--json").stdout
    )
    (repeated,) = again["symbols"].values()
    assert repeated["trained_model"]["model_digest"] == made["trained_model"]["model_digest"]
    assert not repeated["champion_model"]["promoted"]

    done = mlops("search-model", "breast_cancer", "--grid", "min_samples_leaf=1,3", "--folds", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_predictions_grow_and_meet_their_truth(mlops, project):
    mlops("build-model", "demand", "--partition", "shop_00")

    done = mlops("predict", "demand", "--partition", "shop_00", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    first = json.loads(done.stdout)["symbols"]["shop_00"]["predictions"]
    assert first["rows_appended"] == 14
    again = mlops("predict", "demand", "--partition", "shop_00", "--json")
    assert json.loads(again.stdout)["symbols"]["shop_00"]["predictions"]["rows_appended"] == 0

    in_brief = " ".join(mlops("report").stdout.replace("│", " ").split())
    assert "version 1 since" in in_brief
    assert "Are the predictions up to date?" not in in_brief
    named = " ".join(mlops("report", "shop_00").stdout.replace("│", " ").split())
    assert "version 1 became champion: root_mean_squared_error 16.75, baseline 19.85" in named
    assert "Are the predictions up to date? yes" in named
    assert re.search(r" for \d{4}-\d\d-\d\d \(day \d{4}-\d\d-\d\d \+ 14 rows\); 90%: ", named)
    (reported,) = json.loads(mlops("report", "demand", "--json").stdout)["predictions"]
    assert (reported["partition"], reported["rows"], reported["quality"]) == ("shop_00", 14, {"rows_scored": 0.0})
    mlops("report", "--html", "state.html")
    assert "<span>demand of shop_00</span>" in (project / "state.html").read_text()
    nothing = mlops("report", "demend")
    assert nothing.returncode == 2
    assert "model='demend' (str): nothing is kept of it; there are" in " ".join(nothing.stderr.split())


def test_rows_that_an_estimator_refuses_would_be_refused_again(mlops, project):
    folder = project / "defs" / "breast_cancer"
    said = (folder / "defs.yaml").read_text().replace("RandomForest", "GradientBoosting")
    (folder / "defs.yaml").write_text(said.replace("mean_radius: {", "mean_radius: {nullable: true, "))
    with (folder / "data.py").open("a") as code:
        code.write("\n\nwhole = load\n\n\ndef load():\n    return whole().replace({'mean_radius': {17.99: None}})\n")

    done = mlops("build-model", "breast_cancer")

    assert done.returncode == 2  # nobody tries that again
    assert "GradientBoostingClassifier can't be fitted to 398 rows: ValueError: " in " ".join(done.stderr.split())
    assert "missing values: mean_radius; encode or fill them" in " ".join(done.stderr.split())


def test_help_and_refusals_are_the_models_own(mlops, project):
    said = mlops("build-model", "house_value", "--help").stdout
    assert "--max-leaf-nodes" in said
    assert "--symbol" not in said
    assert "--partition" not in said
    assert "--partition" in mlops("build-model", "demand", "--help").stdout

    too_many = mlops("build-model", "house_value", "--max-leaf-nodes", "5000")
    assert too_many.returncode == 2
    assert "max_leaf_nodes=5000 (int): give an integer from 2 to 1000." in " ".join(too_many.stderr.split())
    unknown = mlops("build-model", "house_vale")
    assert "did you mean house_value?" in " ".join(unknown.stderr.split())
    without = mlops("build-model", "demand")
    assert "say which --series, or --all; there are shop_00" in " ".join(without.stderr.split())
