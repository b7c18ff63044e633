"""From a step's report to what Dagster shows: metadata, data version, plots and links. Translation only."""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from mlops_dagster.compute.inputs import URI
from mlops_dagster.spec.model import Column, Declaration
from mlops_dagster.spec.steps import DATA, LAST_ROWS, OF_BASELINE, OF_LAST, rows_ahead
from mlops_dagster.stack.tracking import artifact_url
from mlops_dagster.steps import StepReport
from mlops_dagster.steps.checks import Check
from mlops_dagster.steps.questions import Finding

# What a column holds, its unit in brackets; those of the data and the features say it themselves.
_COLUMNS: Mapping[str, str] = {
    "position": "The order in which the model sees the rows of a split",
    "candidate": "Its number, in the order of the grid",
    "decided_at": "When it was decided (UTC)",
    "challenger": "The version of the registered model that was judged",
    "champion_before": "The version that was champion until then",
    "champion": "The version that is champion from then on",
    "promoted": "Whether the challenger became the champion",
    "outcome": "Why, in a word",
    "reason": "Why, in a sentence",
    "metric": "What was compared",
    "challenger_score": "The challenger's metric on the rows that both are judged on",
    "champion_score": "The champion's on the same rows",
    "baseline_score": "That of the baseline on the same rows",
    "confidence": "The share of resamples in which the challenger was better, where that was asked for",
    "rows": "How many rows both were judged on",
    "first_day": "The first of their times",
    "last_day": "The last of their times",
    "rules": "The margin and the other rules, as JSON",
    "lower": "Lower end of the prediction interval",
    "upper": "Upper end of the prediction interval",
    "interval": "The share of truths that the interval is meant to hold",
    "late": "Whether the truth was known already when the prediction was made",
    "model_version": "The version of the registered model that made the prediction",
    "inputs_digest": "Tells which features the prediction was made from",
    "made_at": "When the prediction was made (UTC)",
    "error": "prediction - truth",
    "inside": "Whether the truth lies inside the interval",
    "by": "Who called: dagster, shell, ...",
    "run_id": "The caller's own run",
    "params": "Its parameters, as JSON",
    **{f"split{fold}_test_score": f"Its score on fold {fold}" for fold in range(50)},
    "mean_test_score": "Its score, the mean over all folds; the larger the better",
    "std_test_score": "The standard deviation of its scores over the folds",
    "rank_test_score": "1 is the best",
    "mean_fit_time": "Its share of the time that growing its trees took, per fold [s]",
    "std_fit_time": "The standard deviation of that over the folds [s]",
    "mean_score_time": "Its share of the time that predicting and scoring took, per fold [s]",
    "std_score_time": "The standard deviation of that over the folds [s]",
}


_DIGITS = 6
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d).*$")
_JSON = re.compile(r'[{}"]')
_SHORT = 12  # of a digest's characters
_ROWS = 2
_WIDE = 40  # characters of a cell


def to_result(report: StepReport, model: Declaration) -> dg.MaterializeResult[None]:
    """Turn a report into the result of an asset."""
    owner = model.data_owner if report.step == DATA else model.name
    columns = columns_of(model, report.columns)
    # In the order in which people read it: what came out, how it looks, where it is, how it was made, the numbers that
    # Dagster plots, and at the end, behind a click, everything to the last digit.
    metadata: dict[str, Any] = {}
    table, in_table = _beside_baseline(report.metrics)
    if said := "\n\n".join(filter(None, (report.facts.get("summary"), table))):
        metadata["summary"] = dg.MetadataValue.md(said)
    metadata |= {name: _to_metadata(value) for name, value in report.facts.items() if _is_markdown(value)}
    metadata |= _pictures(report)
    if report.mlflow_url:
        # Shorter than the address, which no page breaks: whatever is too wide cuts off all that stands above and below.
        metadata["mlflow"] = dg.MetadataValue.md(f"[open in MLflow]({report.mlflow_url})")
    if report.model_uri:
        metadata["model_uri"] = report.model_uri
    metadata |= {name: _to_metadata(value) for name, value in report.facts.items() if name not in metadata}
    # The longest key makes all values narrow: those of the baseline's metrics would leave no room for the pictures.
    metadata |= {name: readable(value) for name, value in report.metrics.items() if name not in in_table}
    if report.last_rows:
        last = report.last_rows[-_ROWS:]
        first = report.table.rows - len(last)
        metadata["last_rows"] = _side_by_side({f"row {first + number}": row for number, row in enumerate(last)})
    metadata |= {
        "table_version": report.table.version,
        "table_digest": readable(report.table.digest),
        **{f"{table}_version": read["version"] for table, read in report.inputs.items()},
        "dagster/row_count": report.table.rows,
        "dagster/table_name": "/".join(part for part in (owner, report.table.table, report.symbol) if part),
        URI: report.table.uri,
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, type=dtype, description=columns.get(name))
                for name, dtype in report.columns.items()
            ]
        ),
    }
    metadata["report"] = dg.MetadataValue.json({**report.as_dict(), "last_rows": report.last_rows})
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(report.data_version[:16]))


def said_of_check(check: Check, found: Finding) -> dict[str, Any]:
    """Return what Dagster shows of a check's answer. What can't be judged yet passes with a warning.

    Numbers are shown as texts: of numbers Dagster draws one line through all partitions' results, as they come.
    """
    severe = check.severe and found.good is not None
    return {
        "check_name": check.name,
        "passed": found.good is not False,
        "severity": dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        "description": f"Not judged yet: {found.said}" if found.good is None else found.said,
        "metadata": {name: dg.MetadataValue.text(_text(value)) for name, value in found.numbers.items()},
    }


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(readable(value))


def _beside_baseline(metrics: Mapping[str, float]) -> tuple[str, set[str]]:
    """Return the metrics that the baseline has, too, beside it, as a table in markdown; and which stand only there.

    Examples
    --------
    >>> table, only_there = _beside_baseline({"roc_auc": 0.9218, "roc_auc_baseline": 0.5})
    >>> print(table)
    | | model | baseline |
    |-|-:|-:|
    | roc_auc | 0.9218 | 0.5 |
    >>> only_there
    {'roc_auc_baseline'}
    """
    lines, only = [], set[str]()
    for which in ("", OF_LAST):
        names = [name for name in metrics if {f"{name}{which}", f"{name}{OF_BASELINE}{which}"} <= metrics.keys()]
        if which and names:
            lines.append(f"| *the last {LAST_ROWS}* | | |")
            only |= {f"{name}{which}" for name in names}
        for name in names:
            ours, its = f"{name}{which}", f"{name}{OF_BASELINE}{which}"
            lines.append(f"| {name} | {metrics[ours]:,.5g} | {metrics[its]:,.5g} |")
            only.add(its)
    return "\n".join(["| | model | baseline |", "|-|-:|-:|", *lines]) if lines else "", only


def columns_of(model: Declaration, there: Iterable[str]) -> dict[str, str]:
    """Return what the columns of a model's tables hold, in the words of its contract where it has some."""
    ahead = f", {rows_ahead(model.target.horizon)} ahead" if model.target.horizon else ""
    target = f"`{model.target.column}`{ahead}"
    said = {
        **_COLUMNS,
        "target": f"What the model learns: {target}"
        + ("" if model.target.learn == "value" else f", as its {model.target.learn}"),
        "truth": f"{target}, as it is; unknown for rows whose target isn't known yet",
        "current": f"`{model.target.column}` of the row itself",
        "split": "train, gap (in neither, so that nothing leaks), test, or unknown (the target isn't known yet)",
        "prediction": "What the model says",
        "baseline": f"What the baseline says ({model.baseline.kind})",
        "value": "What the champion says",
        "class": "The class that the champion finds likeliest",
        "horizon": "How many rows ahead the prediction is for",
        "truth_time": "When what is predicted is to come, or came",
        "late": "Whether the truth was known already when it was predicted",
        "model_digest": "Identifies the model: a SHA-256 of its parameters and of all that it has learned",
        **{
            name: f"How likely {name.removeprefix('probability_')} is"
            for name in there
            if name.startswith("probability_")
        },
        **{f"param_{name}": one.description for name, one in model.parameters.items()},
    }
    contract: Mapping[str, Column]
    if isinstance(model.contract, str):
        from mlops_dagster.modeling.contract import rules_of

        contract = rules_of(model)
    else:
        contract = model.contract
    return said | {name: one.description or _said_of(one) for name, one in contract.items()}


def _said_of(column: Column) -> str:
    """Say what the contract asks of a column that nobody has described."""
    bounds = [
        f"{word} {bound:g}" if isinstance(bound, float) else f"{word} {bound}"
        for word, bound in (("from", column.minimum), ("to", column.maximum))
        if bound is not None
    ]
    one_of = ["one of " + ", ".join(map(str, column.allowed))] if column.allowed else []
    return ", ".join(
        [
            column.type,
            *bounds,
            *one_of,
            *(["unique"] if column.unique else []),
            *(["may be missing"] if column.nullable else []),
        ]
    )


def _pictures(report: StepReport) -> dict[str, Any]:
    """Show the plots. Dagster's page opens only short texts by itself: a link into MLflow, not the image itself."""
    embedded = {
        name: f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})" for name, png in report.plots.items()
    }
    links = {
        name: artifact_url(report.mlflow_url or "", report.mlflow_run_id or "", f"{report.plots_folder}/{name}.png")
        for name in report.plots
    }
    if not all(links.values()):
        return {name: dg.MetadataValue.md(image) for name, image in embedded.items()}
    shown = {name: dg.MetadataValue.md(f"![{name}: in MLflow, or below `plots`]({url})") for name, url in links.items()}
    # For those who have no MLflow running just now.
    return {**shown, "plots": dg.MetadataValue.md("\n\n".join(embedded.values()))} if shown else {}


def readable(value: Any) -> Any:
    """Shorten what no page breaks, or writes down to its last digit; `report` has it whole."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:_SHORT]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _is_markdown(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value


def _to_metadata(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _side_by_side({f"{place}.": one for place, one in enumerate(value, 1)})
    if isinstance(value, list):
        return dg.MetadataValue.md("\n".join(f"- {item}" for item in value) or "none")
    if _is_markdown(value):
        # Lines that are set below each other would be run together.
        return dg.MetadataValue.md(f"```\n{value}\n```" if "\n  " in value else value)
    if isinstance(value, dict):
        return dg.MetadataValue.json({name: readable(one) for name, one in value.items()})
    return readable(value)


def _side_by_side(rows: Mapping[str, Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Show rows side by side, a line for each of their columns: a table of twenty columns is wider than any page."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"column": column, **{name: _cell(column, row[column]) for name, row in rows.items()}})
            for column in next(iter(rows.values()))
        ]
    )


def _cell(name: str, value: Any) -> str | int | float | bool:
    # A table record has no place for a missing value or for the clock of a trading day.
    if value is None or isinstance(value, (bool, int)):
        return "" if value is None else value
    if isinstance(value, float):
        return float(readable(value))
    text = _MOMENT.sub(r"\1" if name.endswith("Date") else r"\1 \2", str(readable(value)))
    text = _JSON.sub("", text) if text.startswith("{") else text
    return text if len(text) <= _WIDE else f"{text[:_WIDE]}..."
