"""What a training set of any table holds, row by row, that it survives being stored, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.modeling.features import features_that_look_at_other_rows
from mlops_dagster.modeling.training_set import TrainingSet, make_training_set
from mlops_dagster.stack.store import Store
from mlops_dagster_tests.modeling.conftest import FORECAST, ahead, declare, forecast, scaled


def test_rows_are_split_and_seen_as_scikit_learn_does_it(cancer, diabetes):
    said = {"column": "outcome", "positive": "malignant"}
    made = make_training_set(declare(cancer, said, split={"kind": "stratified", "seed": 3}), cancer, test_size=0.2)
    inputs, outcome = cancer.drop(columns="outcome"), cancer["outcome"]
    X_train, X_test, y_train, y_test = train_test_split(
        inputs, outcome, test_size=0.2, random_state=3, stratify=outcome
    )
    for got, expected in ((made.X_train, X_train), (made.X_test, X_test)):
        pd.testing.assert_frame_equal(got, expected, check_exact=True)
    assert (made.y_train.tolist(), made.y_test.tolist()) == (y_train.tolist(), y_test.tolist())
    assert (made.classes, made.positive) == (("benign", "malignant"), "malignant")

    ages = diabetes.assign(decade=(diabetes["age"] * 50).round())
    made = make_training_set(declare(ages, "outcome", group="decade", split={"kind": "group", "seed": 1}), ages)
    train, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=1).split(ages, groups=ages["decade"]))
    assert (made.X_train.index.tolist(), made.X_test.index.tolist()) == (train.tolist(), test.tolist())
    assert made.rows("train")["decade"].tolist() == ages["decade"].iloc[train].tolist()


def test_a_column_says_which_rows_are_tested_on_and_isnt_kept(iris):
    split = np.where(np.arange(150) % 5, "train", "test")
    table = iris.assign(part=split)
    made = make_training_set(declare(table, "outcome", split={"kind": "column", "column": "part"},
                                     features=[*iris.columns[:4]]), table)  # fmt: skip
    assert (made.frame["split"] == split).all()
    assert "part" not in made.frame


def test_a_forecast_of_several_series_keeps_to_each_of_them(demand):
    made = forecast(demand)
    sales = demand.set_index(["shop", "day"])["sales"]
    rows = made.frame[made.frame["split"] != "unknown"]
    later = pd.MultiIndex.from_arrays([rows["shop"], rows["day"] + pd.Timedelta(days=7)])
    np.testing.assert_array_equal(rows["truth"], sales.reindex(later))
    # What each row's target says is turned back into what will be; a change that can't be computed is left out.
    learned = rows[rows["target"].notna()]
    np.testing.assert_allclose(made.to_value(learned["target"], learned), learned["truth"])
    assert (made.frame["split"] == "unknown").sum() == 2 * 7 + 1
    assert made.left_out == 2 * 7  # week_ago, in the first week of each shop

    begin, last = made.rows("test")["day"].min(), made.rows("train")["day"].max()
    assert (made.rows("gap")["day"] < begin).all()
    assert last == begin - pd.Timedelta(days=8)  # its truth was known the day before the test begins
    assert made.rows("train")["day"].is_monotonic_increasing
    assert forecast(demand, split={"kind": "chronological", "gap": 0}).rows("train")["day"].max() > last
    shorter = forecast(demand, given={"horizon": 1, "test_size": 0.1})
    assert (shorter.horizon, len(shorter.rows("unknown"))) == (1, 3)


@pytest.mark.parametrize("learn", ["value", "return"])
def test_what_is_learned_is_turned_back(learn, demand):
    made = forecast(demand, FORECAST | {"learn": learn})
    rows = made.rows("test")
    np.testing.assert_allclose(made.to_value(rows["target"], rows), made.truth(rows))


def test_rows_without_a_target_are_to_be_predicted_and_survive_the_store(tmp_path, iris):
    table = iris.assign(
        flower=[f"no {row}" for row in range(150)],
        colour=pd.Series(["red", None, "blue"] * 50, dtype=object),
        wild=pd.Series([True, False, None] * 50, dtype=object),
        count=np.arange(150) % 9,
    )
    table.loc[::10, "outcome"] = None
    declaration = declare(table, "outcome", key=["flower"], features=["colour", "wild", "count", "petal_length"])
    made = make_training_set(declaration, table)
    assert made.rows("unknown").index.tolist() == [*range(0, 150, 10)]
    assert made.X_train.dtypes.map(str).tolist() == ["object", "float64", "int64", "float64"]

    store = Store(tmp_path)
    store.write("training_set", "all", made.frame, metadata=made.metadata())
    frame, version = store.read("training_set", "all")
    again = TrainingSet.from_table(frame, version.metadata)
    for part in ("X_train", "X_test"):
        pd.testing.assert_frame_equal(getattr(again, part), getattr(made, part), check_exact=True)
    assert again.y_train.tolist() == made.y_train.tolist()
    assert again.metadata() == made.metadata()
    # scikit-learn's imputers and encoders know NaN as missing, not None.
    assert not any(value is None for value in again.X_train["colour"])
    with pytest.raises(ValueError, match="lacks \\['classes'\\]"):
        TrainingSet.from_table(frame, {k: v for k, v in version.metadata.items() if k != "classes"})


def test_the_example_has_a_value_of_each_column(diabetes):
    table = diabetes.assign(bmi=diabetes["bmi"].where(diabetes.index > 400), s6=np.nan)
    made = make_training_set(declare(table, "outcome"), table)
    assert len(made.X_train.head(5)["bmi"].dropna()) == 0
    assert set(made.example.columns[made.example.isna().all()]) == {"s6"}
    assert len(made.example) <= 6


def test_classes_keep_their_type_where_a_missing_one_makes_them_floats(iris):
    for values, kind, classes in (([0.0, 1.0, None], float, (0, 1)), ([True, False, None], object, (False, True))):
        table = iris.assign(outcome=pd.Series(values * 50, dtype=kind))
        declaration = declare(table, "outcome", task="classification", metrics=["accuracy"], baseline="prior")
        made = make_training_set(declaration, table)
        assert repr(made.classes) == repr(classes)
        assert made.y_train.dtype == type(classes[0])
        assert repr(made.positive) == repr(classes[1])


def test_features_that_look_at_other_rows_are_refused_or_said(demand, diabetes):
    with pytest.raises(ParameterError, match=r"features='next' .*looks at the future.*from the row and those before"):
        forecast(demand, function=ahead)
    allowed = forecast(demand, function=ahead, gate={"allow_leaks": True})
    assert allowed.looks_at_other_rows == ("next",)
    assert forecast(demand).looks_at_other_rows == ()

    declaration = declare(diabetes, "outcome", features=".features:scaled")
    with pytest.raises(ParameterError, match=r"'bmi, bp' .*other rows, also those that are tested on.*Pipeline"):
        make_training_set(declaration, diabetes, features=scaled)
    # Rows of a group may know each other, if a group is as a whole in one part.
    ages = diabetes.assign(decade=(diabetes["age"] * 50).round())
    grouped = declare(ages, "outcome", features=".features:made", group="decade", split={"kind": "group"})
    mates = ages[["decade", "bmi"]]
    relative = lambda table: table[["bmi"]] / table.groupby("decade")[["bmi"]].transform("mean")  # noqa: E731
    assert features_that_look_at_other_rows(grouped, mates, relative, relative(mates)) == ()


def fails(table):
    return table[["bmi"]] / table["height"].mean()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda table: table[["bmi", "bp"]].dropna().iloc[1:], r"makes 441 rows of 442; keep every row"),
        (lambda table: table[["bmi"]].sort_values("bmi"), "another order or index; return the features with the index"),
        (lambda table: table["bmi"], "returns a Series; return a pandas.DataFrame"),
        (lambda table: table[["bmi", "bmi"]], "'bmi' .*named only once"),
        (lambda table: table, "features='outcome' .*made from outcome, the target"),
        (lambda table: table[["bmi"]].assign(hint=table["outcome"].rank() // 40 + table["bp"]), "features='hint'"),
        (lambda table: table[["bmi"]] / 0, r"features.bmi=inf .*in row 1; an estimator can't learn"),
        (lambda table: table[["bmi"]].rename(columns={"bmi": "Split"}), "'Split' .*column of its own"),
        (
            lambda table: table[["bmi"]] * np.random.default_rng().random(),
            "'bmi' .*another each time .*seed its random",
        ),
        (fails, r"features .f:f: .*test_training_set.py:\d+: KeyError: 'height'"),
    ],
)
def test_a_bad_feature_function_is_refused(function, said, diabetes):
    with pytest.raises(MlopsError, match=said):
        make_training_set(declare(diabetes, "outcome", features=".f:f"), diabetes, features=function)


def _single(iris):
    return iris[iris["outcome"] == "setosa"], {}


def _rare(iris):
    table = iris.copy()
    table.loc[0, "outcome"] = "rose"
    return table, {"split": {"kind": "stratified"}}


def _apart(iris):
    return iris.assign(part=np.where(iris["outcome"] == "setosa", "test", "train")), {
        "split": {"kind": "column", "column": "part"},
        "features": ["petal_length"],
    }


def _untested(iris):
    return iris.assign(part="train"), {"split": {"kind": "column", "column": "part"}, "features": ["petal_length"]}


def _other_part(iris):
    return iris.assign(part="valid"), {"split": {"kind": "column", "column": "part"}, "features": ["petal_length"]}


def _one_group(iris):
    return iris.assign(garden=1), {"group": "garden", "split": {"kind": "group"}}


def _fraction(iris):
    return iris.assign(outcome=iris["petal_length"]), {"task": "classification", "features": ["petal_width"]}


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (_single, "'setosa' .*all rows with a known target are of one class"),
        (_rare, "class 'rose' has a single row"),
        (_apart, "all test rows are of class 'setosa': .*use split: stratified"),
        (_untested, "no row with a known target says test"),
        (_other_part, "row 1 has 'valid'; each row has to say train or test"),
        (_one_group, "all rows are of one garden"),
        (_fraction, "target=1.4 .*give task: regression"),
        (lambda iris: (iris[::3], {}), "test_size=0.25 .*of 50 rows 50 have a known target, at least 50 are needed"),
        (lambda iris: (iris, {"features": ["petal_lenght"]}), "'petal_lenght' .*did you mean petal_length"),
        (lambda iris: (iris, {"target": {"column": "outcome", "positive": "rose"}}), "positive='rose' .*more than two"),
        (lambda iris: (iris, {"task": "regression"}), "'setosa' .*outcome is no number.*give task: classification"),
    ],
)
def test_rows_that_nothing_can_be_learned_from_are_refused(spoilt, said, iris):
    table, more = spoilt(iris)
    declaration = declare(table, **({"target": "outcome"} | more))
    with pytest.raises(ParameterError, match=said):
        make_training_set(declaration, table.reset_index(drop=True))


def test_parameters_of_a_run_are_checked(demand, diabetes):
    with pytest.raises(ParameterError, match=r"horizon=3 .*outcome isn't forecast"):
        make_training_set(declare(diabetes, "outcome"), diabetes, horizon=3)
    with pytest.raises(ParameterError, match=r"test_size=1.5 .*above 0 and below 1"):
        make_training_set(declare(diabetes, "outcome"), diabetes, test_size=1.5)
    with pytest.raises(ParameterError, match=r"'return' .*sales is 0 in row 6, .*give difference or value"):
        forecast(demand.assign(sales=demand["sales"].mask(demand.index == 5, 0.0)), FORECAST | {"learn": "return"})
    with pytest.raises(ParameterError, match=r"0 have a known target.*a smaller horizon"):
        forecast(demand, given={"horizon": 400})
