"""The step `champion_model` of a model: what both models answer on the same rows, and what the gate says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of, trusted_types
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.registry import ModelRefused
from mlops_dagster.stack.store import StoreError
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.checking import metrics_of
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.promotion import challenger_of, decision_row, rolled_back_in, write_decision
from mlops_dagster.steps.report import StepReport

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.gate import Answers
    from mlops_dagster.modeling.metrics import Metric
    from mlops_dagster.modeling.outputs import Outputs
    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.stack.deployment import Plots
    from mlops_dagster.stack.registry import RegisteredVersion, Registry, VersionKey
    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, Tracker


def champion_model(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    plots: Plots = "always",
) -> StepReport:
    """Let the newest model take the champion's place if the gate says so, and write down why or why not.

    Raises
    ------
    ParameterError, UserCodeError, TableNotFound, StoreError, TrackingError
        The champion is who it was.
    ModelRefused
        If the challenger can't be loaded, or isn't what was registered. The champion is who it was.
    """
    rules = {**declaration.gate.model_dump(), **names.resolve(declaration, names.CHAMPION_MODEL, given)}
    rules["metric"] = rules["metric"] or declaration.metrics[0]
    registry = tracker.registry
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.training_set import TrainingSet

    challenger = challenger_of(tables, registry, declaration)
    data = TrainingSet.from_table(challenger[2], challenger[3].metadata)

    def decide_on(history: pd.DataFrame | None) -> dict[str, Any]:
        return _judge(declaration, rules, history, challenger, data, tables, registry)

    def pictures() -> dict[str, bytes]:
        return _pictures(declaration, challenger[0], data) if plots == "champion" else {}

    tools: Any = {"store": store, "tracker": tracker, "origin": origin}
    report = write_decision(partition, decide_on, **tools, model=declaration, plots=plots, pictures=pictures)
    return replace(report, inputs=tables.used)


def _pictures(declaration: Declaration, model: Any, data: TrainingSet) -> dict[str, bytes]:
    """Draw a model as the step that trained it would have."""
    from mlops_dagster.modeling.evaluation import evaluate, importance_of, measure_baseline
    from mlops_dagster.modeling.plots import pngs_of

    metrics, guess = metrics_of(declaration), function_of(declaration, declaration.baseline.function)
    evaluation = evaluate(model, data, declaration, metrics, measure_baseline(data, declaration, metrics, guess))
    return pngs_of(data, evaluation, importance_of(model, data, metrics[0]))


def _judge(
    declaration: Declaration,
    rules: Mapping[str, Any],
    history: pd.DataFrame | None,
    challenger: tuple[Any, RegisteredVersion, pd.DataFrame, TableVersion],
    data: TrainingSet,
    tables: Inputs,
    registry: Registry,
) -> dict[str, Any]:
    from mlops_dagster.modeling import gate
    from mlops_dagster.modeling.leaks import find_leaks
    from mlops_dagster.modeling.metrics import metric_of

    said = rules["metric"]
    metric = metric_of(said, declaration, function_of(declaration, said))
    model, registered, _, table = challenger
    key, answers, problem = champion_in(history), None, None
    version = None if key is None else key.version
    decision: gate.Decision
    try:
        rival, problem = (None, None)
        if key is not None and key != registered.key:
            rival, problem = _load(declaration, key, tables, registry)
        answers, problem = _answers(declaration, model, data, table.digest, rival, problem, tables)
    except gate.NotComparable as error:
        decision = gate.Decision(False, "not_comparable", str(error))
    except CannotPredict as error:
        decision = gate.Decision(False, "not_a_number", f"It can't be measured: {error}")
    if registered.key == key:
        decision = gate.Decision(False, "already_champion", f"It is the champion already (version {version}).")
    elif registered.model_digest in rolled_back_in(history):
        reason = "It was the champion before, and somebody rolled it back."
        decision = gate.Decision(False, "rolled_back_before", reason)
    elif broken := _broken_contract(declaration, table, tables):
        decision = gate.Decision(False, "bad_data", f"What it was made of breaks the contract: {broken}")
    elif answers is not None:
        decision = gate.decide(
            answers,
            metric,
            gate.Rules(**{name: value for name, value in rules.items() if name != "metric"}),
            baseline=declaration.baseline.kind,
            leaks=find_leaks(data),
            champion=version,
            champion_problem=problem,
        )
    return decision_row(
        gate.with_mode(decision, rules["mode"]),
        registered,
        key,
        problem,
        rules,
        _measured(answers, metric, data.time, decision.confidence),
    )


def _broken_contract(declaration: Declaration, training_set: TableVersion, tables: Inputs) -> str | None:
    """Say what is wrong with the data that a training set was made of, by the contract as it is now."""
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.modeling.violations import ContractError

    try:
        frame, _ = tables.read(names.DATA, digest=training_set.metadata.get("data_digest"))
        check_contract(declaration, frame, source="the table data")
    except StoreError:  # that version is no longer there; when it was made it kept the contract
        return None
    except ContractError as error:
        return str(error)
    return None


class CannotPredict(MlopsError):  # noqa: N818 it reads better where it is caught
    """A model can't predict some rows; the message says why."""


def _load(
    declaration: Declaration, key: VersionKey, tables: Inputs, registry: Registry
) -> tuple[tuple[Any, RegisteredVersion] | None, str | None]:
    """Load the champion, or say why it can't be used."""
    try:
        return registry.load(tables.symbol, *key, trusted=trusted_types(declaration)), None
    except ModelRefused as error:
        return None, error.why


def _answers(
    declaration: Declaration,
    model: Any,
    data: TrainingSet,
    digest: str,
    rival: tuple[Any, RegisteredVersion] | None,
    problem: str | None,
    tables: Inputs,
) -> tuple[Answers, str | None]:
    """Ask everybody about the same rows; also say why the champion can't be used, if so."""
    from mlops_dagster.modeling import gate
    from mlops_dagster.modeling.baselines import baseline_outputs
    from mlops_dagster.modeling.resampling import units_of

    theirs = None if rival is None else _learned(rival[1], data, digest, tables)
    version = None if rival is None else rival[1].version
    rows = gate.rows_to_judge_on(data, None if theirs is data else theirs, version)
    champion = None
    if rival is not None and theirs is not None:
        rows, its_rows = gate.rows_as_champion_knows_them(theirs, rows, version)
        try:
            champion = answers_of(rival[0], replace(theirs, classes=data.classes, positive=data.positive), its_rows)
        except CannotPredict as error:
            problem = str(error)
    answers = gate.Answers(
        rows=rows,
        truth=data.truth(rows),
        units=units_of(data, rows),
        challenger=answers_of(model, data, rows),
        baseline=baseline_outputs(declaration, data, rows, function_of(declaration, declaration.baseline.function)),
        champion=champion,
    )
    return answers, problem


def _learned(registered: RegisteredVersion, data: TrainingSet, digest: str, tables: Inputs) -> TrainingSet:
    """Return what a version has learned from: the challenger's own training set, or an earlier version of the table."""
    from mlops_dagster.modeling.gate import NotComparable

    if registered.tags["data_version"] == digest:
        return data
    try:
        return training_set_of(registered, tables)
    except (StoreError, ValueError) as error:
        raise NotComparable(
            f"What champion version {registered.version} has learned from can't be read, so that no row is known to be "
            f"new to it: {error} Bring that table back, or decide once with mode: disabled."
        ) from None


def training_set_of(registered: RegisteredVersion, tables: Inputs) -> TrainingSet:
    """Return the training set that a version has learned from, whatever the current one is.

    Raises
    ------
    StoreError, ValueError
        If that version of the table is gone, or is no training set.
    """
    from mlops_dagster.modeling.training_set import TrainingSet

    version, digest = int(registered.tags["training_set_version"]), registered.tags["data_version"]
    frame, table = tables.store.read(names.TRAINING_SET, tables.symbol, version=version, digest=digest)
    return TrainingSet.from_table(frame, table.metadata)


def answers_of(model: Any, data: TrainingSet, rows: pd.DataFrame) -> Outputs:
    """Ask a model for some rows; whatever it raises is said in a sentence.

    Raises
    ------
    CannotPredict
        If it can't.
    """
    from mlops_dagster.modeling.outputs import outputs_of

    try:
        return outputs_of(model, data, rows)
    except MlopsError as error:
        raise CannotPredict(str(error)) from None
    except Exception as error:  # an estimator can raise anything
        said = (str(error).strip().splitlines() or [""])[0]
        raise CannotPredict(
            f"{type(model).__name__} can't predict these rows: {type(error).__name__}: {said}"
        ) from error


def _measured(
    answers: Answers | None, metric: Metric, time: str | None, confidence: float | None
) -> dict[str, str | float | None]:
    """Return what a decision was made on, as columns of the history."""

    def score(outputs: Outputs | None) -> float:
        try:
            return math.nan if answers is None or outputs is None else metric.measure(outputs, answers.truth)
        except MlopsError:
            return math.nan

    times = None if answers is None or time is None else answers.rows[time]
    mine, theirs, reference = (answers.challenger, answers.champion, answers.baseline) if answers else (None,) * 3
    return {
        "metric": metric.name,
        "first_day": None if times is None else str(times.min()),
        "last_day": None if times is None else str(times.max()),
        "challenger_score": score(mine),
        "champion_score": score(theirs),
        "baseline_score": score(reference),
        "confidence": math.nan if confidence is None else confidence,
        "rows": math.nan if answers is None else float(len(answers.rows)),
    }
