from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from typer.testing import CliRunner

from mlops_dagster.cli import app
from mlops_dagster.modeling.contract import check_contract
from mlops_dagster.modeling.training_set import TrainingSet, make_training_set
from mlops_dagster.spec.functions import load_function
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.table_sources import partitions_of, read_table


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLOPS_DEPLOYMENT", raising=False)


def new(*arguments: str, fails: bool = False) -> str:
    ended = CliRunner().invoke(app, ["new", *arguments], catch_exceptions=False)
    assert ended.exit_code == (2 if fails else 0), ended.output
    return ended.output


def training_set(declaration: Declaration) -> TrainingSet:
    """What the model would learn from, by what was written."""
    keys = partitions_of(declaration)
    rows, source = read_table(declaration, keys[0] if keys else None)
    features = load_function(declaration, declaration.features) if isinstance(declaration.features, str) else None
    return make_training_set(declaration, check_contract(declaration, rows, source=source), features=features)


def fitted(declaration: Declaration) -> Any:
    """The estimator that was proposed, fitted as its users would."""
    said = declaration.estimator
    defaults = {name: one.default for name, one in declaration.parameters.items()}
    if said.function is not None:
        estimator = load_function(declaration, said.function)(**defaults)
    else:
        where, _, name = str(said.class_).rpartition(".")
        estimator = load_function(declaration, f"{where}:{name}")(**said.arguments, **defaults)
    made = training_set(declaration)
    return estimator.fit(made.X_train, made.y_train).score(made.X_test, made.y_test)


def test_a_table_of_classes(tmp_path: Path) -> None:
    table = load_breast_cancer(as_frame=True)
    rows = table.frame.assign(target=table.target_names[table.frame["target"]])
    rows.to_csv("cancer.csv")  # with an index that has no name
    said = new("cancer", "--data", "cancer.csv", "--target", "target")
    assert "569: benign 357, malignant 212" in said
    assert "Wrote " in said
    declaration = find_model("cancer")
    assert declaration.data.files is not None
    assert (declaration.data.files.path, declaration.data.files.index) == ("../../cancer.csv", True)
    assert (declaration.task, declaration.split.kind, declaration.metrics[0]) == (
        "classification",
        "stratified",
        "roc_auc",
    )
    assert [one.name for one in declaration.folder.iterdir()] == ["defs.yaml"]  # numbers need no Python
    assert fitted(declaration) > 0.9


def test_a_table_of_numbers(tmp_path: Path) -> None:
    load_diabetes(as_frame=True, scaled=False).frame.to_csv("d.csv.gz", index=False)
    new("diabetes", "--data", str(tmp_path / "d.csv.gz"), "--target", "target")
    declaration = find_model("diabetes")
    assert (declaration.task, declaration.split.kind, declaration.baseline.kind) == ("regression", "random", "mean")
    assert fitted(declaration) > 0.2


def test_two_columns_that_identify_a_row_unless_that_is_chance() -> None:
    days = pd.date_range("2024-01-01", periods=150)
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"heat": random.integers(50, 90, 150), "flag": np.arange(150) % 2, "month": days.month})
    rows = rows.assign(day=days.day, amount=np.where(np.arange(150) % 5, random.random(150), np.nan))
    rows.to_csv("days.csv", index=False)
    rows.assign(day=days.dayofyear).to_csv("chance.csv", index=False)
    new("days", "--data", "days.csv", "--target", "amount")
    assert (find_model("days").key, find_model("days").features) == (["month", "day"], ["heat", "flag", "month", "day"])
    assert fitted(find_model("days")) < 0.5
    said = new("chance", "--data", "chance.csv", "--target", "amount")
    assert find_model("chance").key == []
    assert "Nothing says which row is which" in said


def test_numbers_may_be_classes_or_amounts() -> None:
    load_iris(as_frame=True).frame.to_parquet("iris.parquet")
    said = new("iris", "--data", "iris.parquet", "--target", "target")
    assert "target: its 3 different numbers are taken for classes; if they are amounts, use --task regression." in said
    assert find_model("iris").task == "classification"
    assert find_model("iris").parameters["min_samples_leaf"].default == 10
    new("amounts", "--data", "iris.parquet", "--target", "target", "--task", "regression")
    assert find_model("amounts").task == "regression"


def houses() -> pd.DataFrame:
    """As a German spreadsheet writes it: every trap at once."""
    random = np.random.default_rng(0)
    area = random.gamma(4, 25, 300).round(1)
    amount = area * 4000 + random.normal(0, 9000, 300)
    price, tax = (
        [f"{one:,.2f}".translate(str.maketrans(",.", ".,")) for one in cells] for cells in (amount, amount / 5)
    )
    return pd.DataFrame(
        {
            "": range(1, 301),
            "Objekt-Nr": [f"H{at:04d}" for at in range(300)],
            "PLZ": random.choice(["01067", "80331"], 300),
            "Stadt": random.choice(["München", "Köln", "yes"], 300),
            "Fläche": [str(one).replace(".", ",") for one in area],
            "verkauft": pd.date_range("2020-01-01", periods=300).strftime("%d.%m.%Y"),
            "Baujahr": random.choice(["1950", "1999", "?"], 300),
            "Notiz": [f'a; "{at}"\nb' for at in range(300)],
            "Währung": "EUR",
            "Steuer": tax,
            "Preis": ["" if at >= 290 else one for at, one in enumerate(price)],
        }
    )


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig", "utf-16"])
def test_a_table_with_every_trap(encoding: str) -> None:
    houses().to_csv("Häuser.csv", sep=";", index=False, encoding=encoding)
    said = new("houses", "--data", "Häuser.csv", "--target", "Preis")
    assert "Notiz is no feature: it has 300 different texts." in said
    assert "Währung is no feature: it is always 'EUR'." in said
    assert "Steuer is no feature: it is Preis by another name" in said
    declaration = find_model("houses")
    files, contract = declaration.data.files, declaration.contract
    assert files is not None
    assert isinstance(contract, dict)
    assert (files.separator, files.decimal, files.thousands, files.index) == (";", ",", ".", True)
    assert (files.dates, files.missing) == ({"verkauft": "%d.%m.%Y"}, ["", "?"])
    assert (declaration.key, declaration.time) == (["Objekt-Nr"], "verkauft")
    assert contract["PLZ"].allowed == ["01067", "80331"]
    assert contract["Stadt"].allowed == ["Köln", "München", "yes"]
    assert contract["Baujahr"].nullable
    assert not {"Notiz", "Währung"} & set(contract)
    assert declaration.predictions is not None
    assert declaration.predictions.output == ["value", "interval"]
    assert (training_set(declaration).frame["split"] == "unknown").sum() == 10
    if encoding == "latin-1":
        assert fitted(declaration) > 0.5


def test_forecasts_of_many_series() -> None:
    days = pd.date_range("2023-01-01", periods=160)
    rows = [{"shop": f"s{at}", "day": day, "sold": at + day.day % 7} for at in range(3) for day in days]
    pd.DataFrame(rows).to_parquet("sold.parquet")
    new("each", "--data", "sold.parquet", "--target", "sold", "--horizon", "7", "--partition", "shop")
    new("all_shops", "--data", "sold.parquet", "--target", "sold", "--horizon", "7", "--group", "shop")
    for name in ("each", "all_shops"):
        declaration = find_model(name)
        assert (declaration.time, declaration.target.horizon) == ("day", 7)
        assert (declaration.key, declaration.baseline.kind) == (["shop", "day"], "persistence")
        assert training_set(declaration).looks_at_other_rows == ()
    assert partitions_of(find_model("each")) == ["s0", "s1", "s2"]
    for at in range(2):
        pd.DataFrame(rows[160 * at :][:160]).drop(columns="shop").to_csv(f"shop {at}.csv", index=False)
    new("files", "--data", "shop {shop}.csv", "--target", "sold", "--horizon", "7", "--partition", "shop")
    assert partitions_of(find_model("files")) == ["0", "1"]


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
    new("iris", "--data", "iris.csv", "--target", "target")
    before = (tmp_path / "defs" / "iris" / "defs.yaml").read_text()
    assert "is there already, and nothing is overwritten" in new(
        "iris", "--data", "iris.csv", "--target", "target", fails=True
    )
    new("other", "--data", "iris.csv", "--target", "no", fails=True)
    assert [one.name for one in (tmp_path / "defs").iterdir()] == ["iris"]
    assert (tmp_path / "defs" / "iris" / "defs.yaml").read_text() == before


def test_the_proposal_as_json() -> None:
    load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
    said = json.loads(new("iris", "--data", "iris.csv", "--target", "target", "--json"))
    assert said["proposal"]["rows"] == "150: 0 50, 1 50, 2 50"
    assert [Path(one).name for one in said["files"]] == ["defs.yaml"]


def test_a_project_says_where_its_models_are(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "acme"\n')
    (tmp_path / "src" / "acme" / "defs").mkdir(parents=True)
    load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
    new("iris", "--data", "iris.csv", "--target", "target")
    assert (tmp_path / "src" / "acme" / "defs" / "iris" / "defs.yaml").is_file()
    assert len(training_set(find_model("iris")).frame) == 150


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("My Model",), "NAME='My Model' (str): give 1 to 40 small letters, digits and _, beginning with a letter, as"),
        (("../x",), "NAME='../x' (str)"),
        (("x", "--target", "Spezies"), "--target='Spezies' (str): the table has no such column; did you mean species?"),
        (("x", "--target", "always"), "all rows have 'a'; there is nothing to learn"),
        (("x", "--target", "nothing"), "it has no values"),
        (("x", "--target", "name"), "it has 100 values in 100 rows, too many for classes; name another."),
        (("x", "--target", "name", "--task", "regression"), "it holds texts; a regression needs numbers"),
        (("x", "--time", "name"), "--time='name' (str): it holds texts that are no dates"),
        (("x", "--group", "gaps"), "--group='gaps' (str): it is missing in row 3"),
        (("x", "--horizon", "3", "--target", "size"), "a forecast needs a column that orders rows: give --time."),
        (("x", "--partition", "shop"), "--partition='shop' (str): the table has no such column"),
        (("x", "--data", "no.csv"), "there is no such file"),
        (("x", "--data", "few.csv"), "rows of --data=10 (int): so few rows can't be learned from"),
        (("x", "--data", "empty.csv"), "is empty. Give a file with a header and rows."),
        (("x", "--data", "headless.csv"), "has no header: its first line is '1, 2'"),
        (("x", "--data", "page.csv"), "is a web page (HTML or XML)"),
        (("x", "--data", "s3://me:hunter2@b/a.csv"), "--data holds a password in an address"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    rows = pd.DataFrame(
        {
            "species": ["a", "b"] * 50,
            "always": "a",
            "nothing": None,
            "name": [f"n {at}" for at in range(100)],
            "gaps": [at if at != 2 else None for at in range(100)],
            "size": np.linspace(0.5, 9, 100),
        }
    )
    rows.to_csv("rows.csv", index=False)
    rows.head(10).to_csv("few.csv", index=False)
    Path("empty.csv").write_text("")
    Path("headless.csv").write_text("1,2\n3,4\n")
    Path("page.csv").write_text("<!doctype html>")
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    options = {"--data": "rows.csv", "--target": "species", **given}
    said = new(arguments[0], *(word for pair in options.items() for word in pair), fails=True)
    assert words in " ".join(said.split())
    assert not (tmp_path / "defs").exists()
