"""`mlops check`: whether a model would work, offline: contract, split, leaks, a small fit."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.shell.output import AsJson, handle_errors, out, print_json, progress, say_next
from mlops_dagster.spec import limited_yaml
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.reading import FILE
from mlops_dagster.spec.words import line_of

_ROWS = 500  # of the training rows, for the fit that only shows whether there is one


def check(
    model: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="Which partition to try. Default: the first.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a model offline: its data against the contract, split, leaks, a small fit. Nothing is written.

    Example: mlops check churn
    """
    with handle_errors(as_json):
        declaration = find_model(model)
        found: list[dict[str, str]] | None = [] if as_json else None

        def say(what: str, said: str) -> None:
            if found is not None:
                found.append({"checked": what, "found": said})
            else:
                out.print(f"{what}: {said}", markup=False)

        say("declaration", f"{declaration.folder / FILE} can be read")
        _check(declaration, partition, say)
        if found is not None:
            print_json({"model": model, "checks": found})
        else:
            say_next(f"mlops build-model {model}")


def _check(declaration: Declaration, partition: str | None, say: Any) -> None:
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.modeling.digest import model_digest
    from mlops_dagster.modeling.estimators import make_estimator
    from mlops_dagster.modeling.evaluation import evaluate, measure_baseline
    from mlops_dagster.modeling.leaks import find_leaks
    from mlops_dagster.modeling.metrics import check_metrics
    from mlops_dagster.modeling.training_set import TrainingSet, make_training_set
    from mlops_dagster.spec.functions import function_of, trusted_types
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.limits import LimitSettings
    from mlops_dagster.stack.spark import spark_session
    from mlops_dagster.stack.table_sources import partitions_of, read_table
    from mlops_dagster.stack.trusted_types import stored
    from mlops_dagster.steps.checking import metrics_of, resolve
    from mlops_dagster.steps.train import fit

    with _at(declaration, "parameters"):
        parameters = resolve(declaration, names.TRAINED_MODEL, {})
    with _at(declaration, "estimator"):
        estimator = make_estimator(declaration, parameters)
    with _at(declaration, "metrics"):
        metrics = metrics_of(declaration)
    with _at(declaration, "baseline"):
        guess = function_of(declaration, declaration.baseline.function)
    if declaration.search:
        for preset in declaration.search.presets:
            with _at(declaration, "search", "presets", preset):
                resolve(declaration, names.GRID_SEARCH_RESULTS, {"preset": preset})
    say("estimator", type(estimator).__name__)
    with _at(declaration, "data"), ExitStack() as opened:
        if declaration.partitions is not None:
            there = partitions_of(declaration) or []
            partition = partition or (there[0] if there else None)
            say("partitions", f"{len(there)}, from {', '.join(there[:5])}; tried is {partition}")
        raw, origin = read_table(
            declaration,
            partition,
            limits=LimitSettings(),
            spark_session=lambda: opened.enter_context(spark_session(load_deployment(None).spark)),
        )
    with _at(declaration, "contract"):
        frame = check_contract(declaration, raw, source=origin)
    say("data", f"{len(frame):,} rows of {origin} keep the contract")
    with _at(declaration, "features"):
        function = function_of(declaration, declaration.features)
    with _at(declaration, "split"):
        data = make_training_set(declaration, frame, features=function)
    rows = data.frame["split"].value_counts()
    say("split", ", ".join(f"{count:,} {name}" for name, count in rows.items()) + " rows")
    leaks = find_leaks(data)
    say("leaks", " ".join(leaks) or "none found")
    small = data.frame[(data.frame["split"] != "train") | (data.frame["position"] < _ROWS)]
    few = TrainingSet.from_table(small.reset_index(drop=True), data.metadata())
    began = time.monotonic()
    with _at(declaration, "estimator"), progress.status("a small fit"):
        model = fit(estimator, few)
        model_digest(model)
    with _at(declaration, "estimator"):
        stored(model, trusted_types(declaration))
    with _at(declaration, "metrics"), progress.status("evaluation"):
        check_metrics(metrics, estimator, few)
        baseline = measure_baseline(few, declaration, metrics, guess)
        measured = evaluate(model, few, declaration, metrics, baseline).metrics
    shown = ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if not name.endswith("rows"))
    say("fit", f"{len(few.X_train):,} rows in {time.monotonic() - began:.1f} s; {shown}")
    if leaks and declaration.leaks == "refuse" and not declaration.gate.allow_leaks:
        with _at(declaration, "gate"):
            raise ParameterError("the gate keeps every model out that leaks: mend what is said of leaks above.")


@contextmanager
def _at(declaration: Declaration, *place: str) -> Iterator[None]:
    """Say of what goes wrong where it stands in the declaration."""
    try:
        yield
    except MlopsError as error:
        file = declaration.folder / FILE
        if str(error).startswith(str(file)):
            raise
        # Most sentences begin with what they are about, which is nearer than what was looked at.
        named = re.match(r"(\w+(?:\.\w+)*)[=: ]", str(error))
        parts = named[1].split(".") if named else []
        at = parts if parts and parts[0] in Declaration.model_fields else place
        line = line_of(limited_yaml.compose(limited_yaml.text_of(file)), ["attributes", *at])
        raise ParameterError(f"{file}:{line}: {error}") from error
