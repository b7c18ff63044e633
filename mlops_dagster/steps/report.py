"""What a step says of what it did."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, time
from html import escape
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec.steps import ALL
from mlops_dagster.steps.inputs import pin_of

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.registry import RegisteredVersion
    from mlops_dagster.stack.store import TableVersion
    from mlops_dagster.stack.tracking import Tracker


INLINE = 1000
"""From so many characters on Dagster's page hides markdown behind a click."""
_CELL = 200  # characters


def written(value: object) -> str:
    """Return a value of a table as people read it; of a time that is a day the day.

    Examples
    --------
    >>> written(1234.5678), written(datetime(2024, 12, 24)), written(datetime(2024, 12, 24, 18, 30))
    ('1,234.6', '2024-12-24', '2024-12-24 18:30')
    """
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d}" if value.time() == time() else f"{value:%Y-%m-%d %H:%M}"
    return str(value)


@dataclass(frozen=True)
class StepReport:
    """What a step did, for people and for the tool that called it.

    Parameters
    ----------
    data_version : str
        Changes if, and only if, what the step made has changed.
    table : TableVersion
        The table that the step wrote.
    columns : dict of str to str
        The table's columns and their types.
    last_rows : list of dict
        The table's last five rows, as JSON values.
    facts : dict
        What there is to know about the result, as JSON values.
    inputs : dict
        Of each table that the step read, by its name, the ``version`` and the ``digest``.
    plots : dict of str to bytes
        PNG images. If there is a run in MLflow, they are among its artifacts, as ``<plots_folder>/<name>.png``.
    mlflow_run_id, mlflow_url, model_uri : str, optional
        Where the run and its model are tracked. Of a step that has no run of its own: the run that trained the model it
        speaks of, and the page of that model's version.
    model : str
        The model whose step it was.
    """

    step: str
    symbol: str
    data_version: str
    table: TableVersion
    columns: dict[str, str]
    last_rows: list[dict[str, Any]]
    facts: dict[str, Any]
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    plots: dict[str, bytes] = field(default_factory=dict, repr=False)
    mlflow_run_id: str | None = None
    mlflow_url: str | None = None
    model_uri: str | None = None
    plots_folder: str = "plots"
    model: str = ""

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What the step made, in the form of `inputs`: what its run hands on to the steps that come after."""
        return {self.table.table: pin_of(self.table)}

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; of the plots, their names."""
        return {
            "step": self.step,
            "symbol": self.symbol,
            "data_version": self.data_version,
            "table": {
                "name": self.table.table,
                "uri": self.table.uri,
                "version": self.table.version,
                "digest": self.table.digest,
                "rows": self.table.rows,
                "columns": self.columns,
            },
            "inputs": self.inputs,
            "outputs": self.outputs,
            **self.facts,
            "metrics": self.metrics,
            "plots": sorted(self.plots),
            "mlflow_run_id": self.mlflow_run_id,
            "mlflow_url": self.mlflow_url,
            "model_uri": self.model_uri,
        }

    def _repr_html_(self) -> str:
        """Show in a notebook what people look for first: metrics, what was decided, pictures."""
        rows = {name: written(value) for name, value in {**self.metrics, **self.facts}.items() if _is_short(value)}
        shown = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
        pictures = "".join(
            f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            for name, png in self.plots.items()
        )
        link = f', <a href="{escape(self.mlflow_url)}">in MLflow</a>' if self.mlflow_url else ""
        partition = "" if self.symbol == ALL else f" {escape(self.symbol)}"
        head = f"<b>{escape(self.model)}{partition}: {escape(self.step)}</b>, {self.table.rows:,} rows{link}"
        return f"<p>{head}</p><table>{shown}</table>{pictures}"

    def to_json(self) -> str:
        """Return all of the report as JSON, the plots included, so that it can travel."""
        content = asdict(self)
        content["table"]["written_at"] = self.table.written_at.isoformat()
        content["plots"] = {name: base64.b64encode(png).decode() for name, png in self.plots.items()}
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> StepReport:
        """Return the report that :meth:`to_json` was called on."""
        from mlops_dagster.stack.store import TableVersion

        content = json.loads(text)
        content["table"]["written_at"] = datetime.fromisoformat(content["table"]["written_at"])
        content["table"] = TableVersion(**content["table"])
        content["plots"] = {name: base64.b64decode(png) for name, png in content["plots"].items()}
        return cls(**content)


def _is_short(value: object) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) < _CELL


def with_pictures(
    report: StepReport,
    of: RegisteredVersion | tuple[str, str],
    tracker: Tracker | None,
    pictures: Mapping[str, bytes],
) -> StepReport:
    """Add pictures to the report of a step without a run of its own, and a link to the model that it speaks of.

    They are kept with the run that trained the model. If that can't be, the report has them all the same.
    """
    report = replace(report, plots=dict(pictures))
    if tracker is None or (report.mlflow_run_id and not pictures):
        return report
    folder = f"plots/{report.step}-{report.table.version}"
    with suppress(MlopsError):
        version = tracker.registry.get(report.symbol, *of) if isinstance(of, tuple) else of
        if pictures:
            tracker.registry.add_pictures(version, folder, pictures)
        url = tracker.version_url(report.symbol, version.version)
        return replace(report, mlflow_run_id=version.run_id, mlflow_url=url, plots_folder=folder)
    return report


def table_summary(frame: pd.DataFrame) -> dict[str, Any]:
    """Return what a report shows of a table; JSON has no NaN and no dates."""
    return {
        "columns": {str(column): str(dtype) for column, dtype in frame.dtypes.items()},
        "last_rows": json.loads(frame.tail(5).to_json(orient="records", date_format="iso", double_precision=6)),
    }
