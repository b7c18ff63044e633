import pytest
from mlops_dagster.pipelines import check_parameters, check_symbol, resolve_forest

from mlops_dagster import pipelines
from mlops_dagster.errors import ParameterError


@pytest.mark.parametrize("symbol", ["GSPC", "^GSPC", "BRK-B", "EURUSD=X", "0700.HK", "A", "A" * 32])
def test_yahoos_symbols_are_taken(symbol):
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "../x",
        "/x",
        "a,b",
        "",
        "A" * 300,
        "A" * 33,
        "a b",
        "a/b",
        "a\\b",
        "a..b",
        ".a",
        "-a",
        "a\n",
        "é",
        "a%2Fb",
        None,
        7,
    ],
)
def test_a_symbol_that_could_be_something_else_is_refused(symbol):
    with pytest.raises(ParameterError, match=r"symbol=.*give 1 to 32 letters"):
        check_symbol(symbol)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_depth", 0),
        ("max_depth", -1),
        ("max_depth", 2.5),
        ("max_depth", 80.0),
        ("max_depth", "80"),
        ("max_depth", True),
        ("max_depth", 10**9),
        ("n_estimators", 0),
        ("n_estimators", float("nan")),
        ("n_estimators", [100]),
        ("max_features", float("inf")),
        ("max_features", 0),
        ("max_features", 2.5),
        ("bootstrap", 1),
        ("random_state", -1),
    ],
)
def test_a_bad_hyper_parameter_is_refused_by_name_value_and_type(name, value):
    with pytest.raises(ParameterError) as raised:
        resolve_forest("honest", {name: value})
    said = str(raised.value)
    assert said.startswith(f"{name}=")
    assert f"({type(value).__name__})" in said
    assert "give" in said


def test_an_unknown_parameter_names_those_that_exist():
    with pytest.raises(ParameterError, match=r"max_deph=80 \(int\): there is no such parameter; .*max_depth"):
        resolve_forest("honest", {"max_deph": 80})


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ParameterError, match=r"recipe='blog' .*one of honest, article"):
        resolve_forest("blog", {})


def test_none_means_the_recipes_default():
    assert resolve_forest("article", {"min_samples_leaf": None})["min_samples_leaf"] == 1
    assert check_parameters(pipelines.FOREST, {"max_depth": None}) == {}


@pytest.mark.parametrize(("given", "meant"), [(1, 1.0), (0.5, 0.5), (3.0, 3), (3, 3)])
def test_max_features_is_a_share_up_to_one_and_a_count_above(given, meant):
    resolved = resolve_forest("honest", {"max_features": given})["max_features"]
    assert (resolved, type(resolved)) == (meant, type(meant))


@pytest.mark.parametrize("recipe", pipelines.RECIPES)
def test_every_default_is_within_its_own_bounds(recipe):
    assert set(pipelines.RECIPE_DEFAULTS[recipe]) == {parameter.name for parameter in pipelines.FOREST}
    assert resolve_forest(recipe, pipelines.RECIPE_DEFAULTS[recipe]) == pipelines.RECIPE_DEFAULTS[recipe]
