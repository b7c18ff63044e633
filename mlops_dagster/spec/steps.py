"""From a declaration to its steps and pipelines: what every tool shows and asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_dagster.spec.model import Dataset, Declaration, ModelParameter
from mlops_dagster.spec.parameters import CANDIDATES, Kind, Parameter, Pipeline, Step, check_parameters

ALL = "all"
"""The partition of a model that has none."""

DATA, TRAINING_SET, TRAINED_MODEL, CHAMPION_MODEL = "data", "training_set", "trained_model", "champion_model"
PREDICTIONS, PREDICTION_QUALITY, GRID_SEARCH_RESULTS = "predictions", "prediction_quality", "grid_search_results"

BUILD_MODEL, SEARCH_MODEL = "build_model_pipeline", "search_model_pipeline"
CLUSTER_SEARCH_MODEL, PREDICT = "cluster_search_model_pipeline", "predict_pipeline"

WHERE = ("path", "source")
"""Parameters of data that say where the rows come from: whoever gives one means none of what is said of other rows."""

HERE, SPARK = "here", "spark"
"""Where a search fits its candidates."""

OF_BASELINE = "_baseline"
"""How the name of a metric ends that is the baseline's."""
LAST_ROWS = 100
"""Of so many predictions, the last whose truth has come, there are numbers beside those of all."""
OF_LAST = f"_last_{LAST_ROWS}"
"""How the name of a metric ends that is of those only."""

_KINDS: Mapping[type, Kind] = {bool: "boolean", int: "integer", float: "number", str: "text"}


def pipelines_of(declaration: Declaration) -> tuple[Pipeline, ...]:
    """Return what there is to run for a model, by the article's names behind the model's own, or plain."""
    steps = steps_of(declaration)
    what = declaration.name

    def pipeline(name: str, description: str, *names: str, **chooses: str) -> Pipeline:
        return Pipeline(declaration.named(name), description, tuple(steps[one] for one in names), chooses)

    found = [
        pipeline(
            BUILD_MODEL,
            f"For {what}: its data, the training set, a trained model, and which model is the champion.",
            *(DATA, TRAINING_SET, TRAINED_MODEL, CHAMPION_MODEL),
        )
    ]
    if declaration.search:
        about, searched = f"For {what}: its data, the training set, and a grid search", (DATA, TRAINING_SET)
        on_spark = f"{about} on Spark."
        found += [
            pipeline(SEARCH_MODEL, f"{about}.", *searched, GRID_SEARCH_RESULTS),
            pipeline(CLUSTER_SEARCH_MODEL, on_spark, *searched, GRID_SEARCH_RESULTS, engine=SPARK),
        ]
    if declaration.predictions:
        judged = [PREDICTION_QUALITY] if PREDICTION_QUALITY in steps else []
        more = ", predictions, and how good earlier ones were." if judged else " and predictions."
        about = f"With the champion of {what}: its data{more}"
        found.append(pipeline(PREDICT, about, DATA, PREDICTIONS, *judged))
    return tuple(found)


def steps_of(declaration: Declaration) -> dict[str, Step]:
    """Return the steps of a model by name, in an order in which they can run."""
    target = declaration.target
    what = f"{target.column}" + (f", {rows_ahead(target.horizon)} ahead" if target.horizon else "")
    steps = [
        data_step(declaration),
        Step(
            TRAINING_SET,
            f"Features, target ({what}) and split ({declaration.split.kind}) of each row.",
            *_training_set_parameters(declaration),
        ),
        Step(
            TRAINED_MODEL,
            f"A model that predicts {what}, evaluated on rows it has never seen.\n\n"
            "The model, its parameters, metrics and plots are in MLflow; the predictions of the test rows are a table.",
            parameters_of(declaration),
            {name: one.default for name, one in declaration.parameters.items() if one.default is not None},
        ),
        Step(
            CHAMPION_MODEL,
            "The model that predictions are made with, and every decision that made it so, one row each.\n\n"
            "The newest model takes the place only if it is better than the one before, on the same rows that neither "
            "has learned from, and keeps the rules. The table is the truth; MLflow's alias `champion` follows it.",
            *_gate_parameters(declaration),
        ),
    ]
    if declaration.search:
        steps.append(
            Step(
                GRID_SEARCH_RESULTS,
                "Every candidate of a grid of parameters with its cross-validated scores, one row each.\n\n"
                "The scores are exactly those of scikit-learn's `GridSearchCV`, on the training rows alone.",
                *_search_parameters(declaration),
            )
        )
    if declaration.predictions:
        steps.append(
            Step(
                PREDICTIONS,
                f"What the champion says of {what}, one row per prediction.\n\n"
                "The table only grows: a prediction that was made is never rewritten, nor is the same one made twice.",
                *_prediction_parameters(declaration),
            )
        )
    # Without a key, nothing says which row's truth is which prediction's.
    if declaration.predictions and (declaration.key or declaration.time):
        about = "Each prediction whose truth has come, with the truth, one row each. As long as none has come it has "
        steps.append(Step(PREDICTION_QUALITY, about + "no rows.", ()))
    return {step.name: step for step in steps}


def data_step(declaration: Dataset) -> Step:
    """Return the step that makes the table of a model, or of a dataset that several share."""
    parameters, defaults = _data_parameters(declaration)
    about = (
        f"The rows that {declaration.data_owner} is made from, checked against the contract.\n\n"
        "Rows that break the contract are refused as a whole; nothing is filled in."
    )
    if declaration.data_description:
        about = f"{declaration.data_description.rstrip('.')}.\n\n{about}"
    return Step(DATA, about, parameters, defaults)


def rows_ahead(horizon: float) -> str:
    """Say how far a forecast looks."""
    return f"{horizon} row{'s'[: horizon != 1]}" if horizon >= 1 else f"{100 * horizon:g} % of the rows"


def partition_option(declaration: Declaration) -> str | None:
    """Return what a run calls the partition that it is for, as ``symbol``; None if there are none."""
    said = declaration.partitions
    if said is None:
        return None
    taken = {one.name for step in steps_of(declaration).values() for one in step.parameters}
    return "partition" if said.name in {*taken, "deployment", "json", "all"} else said.name


def parameters_of(declaration: Declaration) -> tuple[Parameter, ...]:
    """Return the parameters of the estimator as they are declared; its own bounds may be narrower."""
    return tuple(_parameter(name, one) for name, one in declaration.parameters.items())


def kind_of(said: ModelParameter) -> Kind:
    """Return the type of a parameter: what is said or, if it isn't, its default's."""
    return said.type or ("text" if said.default is None else _KINDS[type(said.default)])


def _parameter(name: str, said: ModelParameter) -> Parameter:
    return Parameter(
        name,
        kind_of(said),
        said.description,
        minimum=said.minimum,
        maximum=said.maximum,
        choices=None if said.choices is None else tuple(said.choices),
    )


def _data_parameters(declaration: Dataset) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    if declaration.data.files is not None:
        said = "Other files than the declaration's, of the same form: a path, a glob of several, or a URL."
        meant = (
            "The SHA-256 of the bytes that are meant, of several files in the order of their names. Other bytes are "
            "refused."
        )
        return (Parameter("path", "text", said), Parameter("sha256", "text", meant)), {}
    named = declaration.data.parameters
    defaults = {name: one.default for name, one in named.items() if one.default is not None}
    return tuple(_parameter(name, one) for name, one in named.items()), defaults


def _training_set_parameters(declaration: Declaration) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    parameters, defaults = [], {}
    if declaration.split.kind != "column":
        said = "The share of the rows that is kept for testing."
        parameters.append(Parameter("test_size", "number", said, minimum=0.01, maximum=0.9))
        defaults["test_size"] = declaration.split.test_size
    if declaration.target.horizon is not None:
        said = "How many rows ahead the forecast looks."
        if declaration.target.horizon < 1:
            said += f" Default: {rows_ahead(declaration.target.horizon)}, rounded up."
        else:
            defaults["horizon"] = declaration.target.horizon
        parameters.append(Parameter("horizon", "integer", said, minimum=1, maximum=100_000))
    return tuple(parameters), defaults


def _gate_parameters(declaration: Declaration) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    gate = declaration.gate
    metric = (gate.metric or declaration.metrics[0]).removeprefix("neg_")
    much = "what share" if gate.margin_in == "share" else "how much"
    parameters = (
        Parameter("margin", "number", f"By {much} {metric} has to be better than the champion's.", minimum=0),
        Parameter(
            "confidence",
            "number",
            "How sure it has to be that the difference isn't luck, by a paired bootstrap over the test rows. Not "
            "given: the difference itself is enough.",
            minimum=0.5,
            maximum=0.9999,
        ),
        Parameter(
            "beat_baseline",
            "boolean",
            f"Whether the challenger has to be better than the baseline ({declaration.baseline.kind}), too.",
        ),
        Parameter(
            "allow_leaks",
            "boolean",
            "Whether a model may become the champion that has learned from what it is tested on.",
        ),
    )
    defaults = {one.name: getattr(gate, one.name) for one in parameters}
    return parameters, {name: value for name, value in defaults.items() if value is not None}


def _search_parameters(declaration: Declaration) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    search = declaration.search
    if search is None:
        raise LookupError("there is no search")
    presets = tuple(search.presets)
    parameters = [
        Parameter("preset", "text", "A ready-made grid of the declaration.", choices=presets),
        Parameter(
            "grid",
            "grid",
            "A grid of your own in place of a preset: parameters with a list of values, or with a range {start, stop, "
            "step} that includes its stop. Every combination is a candidate.",
        ),
    ]
    defaults: dict[str, Any] = {"preset": presets[0]}
    if search.cv.kind != "splitter":
        said = "How many times each candidate is fitted and scored."
        parameters.append(Parameter("folds", "integer", said, minimum=2, maximum=50))
        defaults["folds"] = search.cv.folds
    scoring = "What makes a candidate good, by scikit-learn's name; the larger the better."
    parameters.append(Parameter("scoring", "text", scoring))
    defaults["scoring"] = search.scoring or declaration.metrics[0]
    engine = (
        "Where candidates are fitted: in the step's own process, or on the deployment's Spark. Default: as the job or "
        "the deployment (spark.search) says."
    )
    parameters += [Parameter("engine", "text", engine, choices=(HERE, SPARK)), CANDIDATES]
    return tuple(parameters), {**defaults, "candidates": "table"}


def _prediction_parameters(declaration: Declaration) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    said, parameters = declaration.predictions, []
    if said is not None and "interval" in said.output:
        about = "How sure the prediction interval is: the share of truths that it is meant to hold."
        parameters.append(Parameter("interval", "number", about, minimum=0.5, maximum=0.99))
    if declaration.target.horizon is not None:
        about = "How many of the last rows to predict late, whose truth is known already, if they have no prediction."
        parameters.append(Parameter("catch_up", "integer", about, minimum=0, maximum=100_000))
    return tuple(parameters), {one.name: getattr(said, one.name) for one in parameters}


def resolve(declaration: Declaration, step: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return a step's parameters, checked, with the declaration's where none is given.

    Raises
    ------
    ParameterError
        For an unknown name or a bad value.
    """
    one = steps_of(declaration)[step]
    return {**one.defaults, **check_parameters(one.parameters, given)}
