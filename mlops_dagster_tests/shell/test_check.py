"""`mlops check`: what was forgotten or can't work gets a sentence with file and line, before anything is trained."""

import numpy as np
import pandas as pd
import pytest

RIGHT = """\
type: mlops_dagster.SklearnModel
attributes:
  task: classification
  data: {files: {path: ../../people.csv}}
  contract:
    person: {type: integer, unique: true}
    age: {type: number, minimum: 0}
    city: {type: text}
    left: {type: integer, nullable: true, allowed: [0, 1]}
  key: [person]
  features: [age]
  target: left
  split: {kind: stratified, test_size: 0.3, seed: 0}
  estimator: {class: sklearn.ensemble.RandomForestClassifier, arguments: {random_state: 0}}
  parameters: {n_estimators: {default: 5, maximum: 100}}
  metrics: [roc_auc]
  baseline: prior
  search:
    presets: {small: {n_estimators: [2, 4]}}
    cv: {kind: stratified, folds: 3}
"""


@pytest.fixture
def check(mlops, tmp_path):
    """Check a declaration that differs from the right one, on 300 people; whoever is older leaves more often."""
    draws = np.random.default_rng(0)
    age = draws.uniform(18, 80, 300).round(1)
    left = (draws.random(300) < age / 100).astype(int)
    people = pd.DataFrame({"person": range(300), "age": age, "city": draws.choice(["a", "b"], 300), "left": left})
    folder = tmp_path / "defs" / "leaving"
    folder.mkdir(parents=True)

    def of(*changes: tuple[str, str], python: str = "", rows: pd.DataFrame = people):
        rows.to_csv(tmp_path / "people.csv", index=False)
        text = RIGHT
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / "defs.yaml").write_text(text)
        (folder / "own.py").write_text(python)
        done = mlops("check", "leaving")
        return done.returncode, " ".join((done.stdout + done.stderr).split()), people

    return of


def test_the_right_one_is_fine(check):
    status, said, people = check()
    assert status == 0, said
    assert "leaks: none found" in said
    assert "fit: 210 rows" in said
    # Rows whose target isn't known yet are to be predicted, and no error.
    status, said, _ = check(rows=people.assign(left=people["left"].astype(object).where(people["person"] > 9, None)))
    assert status == 0, said
    assert "10 unknown rows" in said


FORGOTTEN = [
    ([("{n_estimators: {default: 5, maximum: 100}}", "{n_estimators: {maximum: 100}}")], "", 15, "default is missing"),
    (
        [("presets: {small: {n_estimators: [2, 4]}}", "presets: {small: {}}")],
        "",
        19,
        "give values for at least one of n_estimators",
    ),
    ([("presets: {small: {n_estimators: [2, 4]}}", "presets: {}")], "", 19, "search.presets"),
    (
        [("features: [age]", "features: .own:drop")],
        "def drop(table):\n    return table[['age']].iloc[1:]\n",
        11,
        "rows",
    ),
    ([("features: [age]", "features: .own:gone")], "def gone(table):\n    return table[['agee']]\n", 11, "own.py:2"),
    ([("features: [age]", "features: .own:nothing")], "", 11, "write it there"),
    (
        [
            (
                "class: sklearn.ensemble.RandomForestClassifier, arguments: {random_state: 0}",
                "class: sklearn.svm.LinearSVC",
            ),
            ("{n_estimators: {default: 5, maximum: 100}}", "{C: {default: 1.0}}"),
            ("metrics: [roc_auc]", "metrics: [neg_log_loss]"),
            ("{small: {n_estimators: [2, 4]}}", "{small: {C: [0.1, 1.0]}}"),
        ],
        "",
        15,
        "small letters",
    ),
    (
        [
            (
                "class: sklearn.ensemble.RandomForestClassifier, arguments: {random_state: 0}",
                "class: sklearn.svm.LinearSVC",
            ),
            ("{n_estimators: {default: 5, maximum: 100}}", "{c: {default: 1.0, argument: C}}"),
            ("metrics: [roc_auc]", "metrics: [neg_log_loss]"),
            ("{small: {n_estimators: [2, 4]}}", "{small: {c: [0.1, 1.0]}}"),
        ],
        "",
        16,
        "it needs probabilities, and LinearSVC has no predict_proba",
    ),
    ([("sklearn.ensemble.RandomForestClassifier", "os.system")], "", 14, "os.system"),
    ([("sklearn.ensemble.RandomForestClassifier", "sklearn.ensemble.RandomForestRegressor")], "", 14, "classif"),
    ([("features: [age]", "features: [age, city]")], "", 14, "texts: city"),
    ([("path: ../../people.csv", "path: ../../nobody.csv")], "", 4, "nobody.csv"),
    ([("age: {type: number, minimum: 0}", "age: {type: number, minimum: 40}")], "", 5, "age"),
    ([("metrics: [roc_auc]", "metrics: [rocauc]")], "", 16, "did you mean roc_auc?"),
]


@pytest.mark.parametrize(("changes", "python", "line", "what"), FORGOTTEN, ids=range(len(FORGOTTEN)))
def test_what_was_forgotten_has_a_line(check, changes, python, line, what):
    status, said, _ = check(*changes, python=python)

    assert status == 2, said
    assert f"defs.yaml:{line}:" in said
    assert what in said
    assert "Traceback" not in said


def test_one_class_only_is_refused(check):
    _, _, people = check()
    status, said, _ = check(rows=people.assign(left=1))
    assert status == 2
    assert "all rows with a known target are of one class" in said
