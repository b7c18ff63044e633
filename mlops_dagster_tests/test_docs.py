"""The documents don't lie: their commands run and print what is shown, their links and pictures exist."""

import re
import shutil
import subprocess
import sys

import dagster as dg
import pytest
import yaml

from mlops_dagster.definitions import definitions_of
from mlops_dagster.instance import prepare_instance
from mlops_dagster.modeling.estimators import make_estimator
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster_tests.contracts.documents import (
    LANGUAGES,
    LEFT_OUT,
    ROOT,
    blocks,
    checkout,
    documents,
    name_of,
    run_as_story,
    run_python,
    shell_lines,
    what_differs,
)

pytestmark = pytest.mark.examples

DOCUMENTS = documents()
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)

# What doesn't run of one document, besides LEFT_OUT, and why.
LEFT_OUT_HERE = {
    "docs/airflow.md": {
        r"airflow/\.venv/bin/|TOKEN=|curl ": "Airflow's own environment and server: airflow/tests run them",
        r"pip wheel|mlops databricks-bundle": "for Databricks: airflow/tests do it on the stand-in",
    },
    "README.md": {
        r"pip install mlops_dagster": "search/test_alone.py: in an environment of its own",
        r"mlops (new|check|build-model) churn": "bring_your_model.md does the same with a file that is there",
    },
    "docs/compared.md": {r".": "packages from the internet, an environment for each, half an hour"},
    "docs/exact_search.md": {r"pip install mlops_dagster": "as above"},
    "docs/parity.md": {r"mlops (parity|search-model|cluster-search-model)": "shell/test_parity.py makes two stacks"},
    "docs/performance.md": {r"\.venv/bin/python (-m benchmarks\.|benchmarks/)": "benchmarks, minutes to hours"},
    "docs/spark.md": {
        r"SPARK_LOCAL_IP=": "the tutorial starts master and worker, contracts/spark_servers.py the Connect server"
    },
}
# What Python blocks take for granted.
GIVEN = {
    "README.md": "from sklearn.datasets import make_regression\n"
    "X, y = make_regression(60, 4, noise=1.0, random_state=0)",
    "docs/automation.md": "import dagster as dg\nfrom mlops_dagster.assets.conditions import ThereIsAChampion",
}
PYTHON_LEFT_OUT = {
    "docs/spark.md": "test_spark_engine.py and test_ray_engine.py do the same on each kind of cluster",
    "docs/databricks_standin.md": "a fragment of a test; standin/ is full of whole ones",
}


@every_document
def test_links_and_pictures_exist(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), target


@every_document
def test_links_within_documents_lead_to_a_heading(document):
    for file, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
        headings = re.findall(r"^#+ (.+)$", ((document.parent / file) if file else document).read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
        assert heading in anchors, f"{file}#{heading}"


@every_document
def test_every_make_target_exists(document):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"`?\bmake ([a-z-]+)\b", " ".join([*shell_lines(document), *re.findall(r"`make [^`]+`", document.read_text())])
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@every_document
def test_every_block_says_what_it_is(document):
    """Commands run (bash, python), or are the output of those before (text); what neither is can't be tested."""
    for block in blocks(document):
        assert block.language in LANGUAGES, f"line {block.line}: say one of {', '.join(LANGUAGES)}"
        if block.language == "text" and name_of(document) != "docs/parity.md":  # whose commands are left out
            assert block.follows, f"line {block.line}: output stands right behind its commands"


def test_what_is_left_out_is_there():
    for pattern in LEFT_OUT:
        lines = [line for document in DOCUMENTS for line in shell_lines(document)]
        assert any(re.match(pattern, line) for line in lines), f"nothing is left out by {pattern!r}"
    for name, patterns in LEFT_OUT_HERE.items():
        lines = shell_lines(ROOT / name)
        assert all(any(re.match(pattern, line) for line in lines) for pattern in patterns), name


def test_every_spark_of_the_documents_is_for_this_machine_only():
    """A master or a Connect server runs anybody's code. Those that stories start are looked at while they listen."""
    started = [
        line for document in DOCUMENTS for line in shell_lines(document) if re.search(r"spark-(class|submit)", line)
    ]
    assert len(started) == 5
    for line in started:
        assert line.startswith("SPARK_LOCAL_IP=127.0.0.1 "), line
        assert re.search(r"--host 127\.0\.0\.1 |spark\.connect\.grpc\.binding\.address=127\.0\.0\.1 ", line), line


def test_ci_runs_the_two_commands_of_the_readme():
    asked = [line for line in shell_lines(ROOT / "README.md") if line.startswith("make ")]
    assert asked == ["make demo", "make test"]
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line in asked] == asked


@pytest.fixture
def reader(tmp_path, empty_mlflow, empty_dagster, price_rows, monkeypatch):
    """What a reader has: a checkout that was set up by `make demo`, and a price file of their own."""

    def make(document):
        where = checkout(tmp_path / "checkout")
        (where / ".mlops" / "mlflow").mkdir(parents=True)
        shutil.copy(empty_mlflow, where / ".mlops" / "mlflow" / "mlflow.db")
        monkeypatch.setenv("MLOPS_HOME", str(where / ".mlops"))
        monkeypatch.delenv("MLOPS_DEPLOYMENT", raising=False)
        shutil.copytree(empty_dagster, where / ".mlops" / "dagster")
        prepare_instance(load_deployment())
        (where / "inbox").mkdir()
        price_rows.to_csv(where / "inbox" / "ACME.csv", index=False)
        return where

    return make


@pytest.mark.slow
@pytest.mark.parametrize("document", [file for file in DOCUMENTS if shell_lines(file)], ids=name_of)
def test_the_commands_run_as_they_are_written(document, reader):
    needs = {"curl", "git"} & {line.split()[0] for line in shell_lines(document)}
    missing = [name for name in sorted(needs) if shutil.which(name) is None]
    assert not missing, f"{name_of(document)} needs {', '.join(missing)}: apt-get install {' '.join(missing)}"
    left_out = LEFT_OUT_HERE.get(name_of(document), {})
    ran = run_as_story(document, reader(document), left_out)
    assert ran or document.name != "README.md"


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [
        file
        for file in DOCUMENTS
        if any(block.language == "python" for block in blocks(file)) and name_of(file) not in PYTHON_LEFT_OUT
    ],
    ids=name_of,
)
def test_the_python_runs_as_it_is_written(document, reader):
    assert run_python(document, reader(document), GIVEN.get(name_of(document), ""))


def _declared(said):
    """Read what a document says of a model, in a declaration that has all the rest."""
    rest = {
        "task": "regression",
        "data": {"function": ".data:load"},
        "contract": {"x": {"type": "number"}, "y": {"type": "number"}},
        "features": ["x"],
        "target": "y",
        "split": {"kind": "random"},
        "metrics": ["r2"],
        "baseline": "mean",
    }
    parameters = said.get("parameters", {})
    rest |= {"estimator": {"class": "sklearn.linear_model.Ridge"}, **said}
    if rest["estimator"]["class"].endswith("Classifier"):
        rest |= {"task": "classification", "metrics": ["roc_auc"], "baseline": "prior"}
    make_estimator(Declaration.model_validate(rest), {name: one["default"] for name, one in parameters.items()})


@pytest.mark.parametrize(
    "document", [file for file in DOCUMENTS if any(block.language == "yaml" for block in blocks(file))], ids=name_of
)
def test_the_yaml_is_accepted(document, no_settings, tmp_path):
    for block in blocks(document):
        if block.language == "yaml":
            said = yaml.safe_load(block.text)
            if set(said) <= {"ops", "resources"}:
                problems = [_refused_run_config(said, name) for name in ("local", "databricks_pipes")]
                assert None in problems, f"line {block.line}: {problems}"
            elif set(said) <= set(Declaration.model_fields) - set(Deployment.model_fields):
                _declared(said)
            else:
                assert set(said) <= set(Deployment.model_fields), f"line {block.line}: neither run config nor settings"
                base = yaml.safe_load((ROOT / "deployments" / "databricks_pipes.yaml").read_text())
                whole = base if "databricks" in said else {}
                for section, values in said.items():
                    whole[section] = {**whole.get(section, {}), **values} if isinstance(values, dict) else values
                (tmp_path / "said.yaml").write_text(yaml.safe_dump(whole))
                load_deployment(str(tmp_path / "said.yaml"))


def _refused_run_config(config, deployment_name):
    """Return why no job takes the run config; None if one does."""
    definitions = definitions_of(load_deployment(deployment_name))
    problems = []
    for job in definitions.jobs:
        try:
            dg.validate_run_config(definitions.resolve_job_def(job.name), config)
        except dg.DagsterInvalidConfigError as error:
            problems.append(str(error))
        else:
            return None
    return problems


@pytest.mark.slow
def test_the_reference_is_what_the_code_says(tmp_path):
    asked = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("shown", "printed", "differs"),
    [
        ("a ... c", "a b b\n c", False),
        ("a ...", "a", False),
        ("a c", "a b c", True),
        ("1,234.56", "1,234.57", False),
        ("1,234.56", "1,240.00", True),
        ("0.8 s", "0.8 s", False),
        ("(x) | [y]", "(x) | [y]", False),
        ("GSPC: 3", "GSPC: 4", True),
    ],
)
def test_what_is_printed_is_compared_with_what_is_shown(shown, printed, differs):
    assert (what_differs(shown, printed) is not None) is differs
