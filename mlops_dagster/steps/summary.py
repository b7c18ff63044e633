"""What a step measured, as people read it: rounded, per cent where it is a share, each name with what it means.

What belongs here: words and formats, for Dagster's pages and MLflow's. What doesn't: the numbers for programs.
"""

import re
from collections.abc import Mapping
from datetime import datetime, time

MEANINGS: Mapping[str, str] = {
    "rmse": "root mean squared error, in points or currency",
    "mae": "mean absolute error",
    "r2": "share of the variance that is explained",
    "rmse_persistence": "rmse of 'the price stays as it is'",
    "r2_persistence": "its r2",
    "rmse_training_mean": "rmse of the training rows' mean",
    "skill_vs_persistence": "squared error below that of 'the price stays as it is'",
    "skill_vs_training_mean": "squared error below that of the training rows' mean",
    "challenger_error": "mean squared error of the model that was judged",
    "champion_error": "that of the champion, on the same rows",
    "persistence_error": "that of 'the price stays as it is'",
    "price": "the last that is known",
    "forecast": "for the target date",
    "lower": "end of the prediction interval",
    "upper": "end of the prediction interval",
    "change_percent": "forecast against price, in per cent",
    "days_scored": "forecasts whose day has come",
    "bias": "mean of forecast - truth",
    "coverage": "truths inside their interval",
    "interval": "expected inside",
    "best_score": "the larger the better; errors are negative",
}
_SHARES = ("coverage", "interval")
OF_BASELINE = "_baseline"
INLINE = 1000
"""From so many characters on Dagster's page hides markdown behind a click."""


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


def summary(metrics: Mapping[str, float]) -> str:
    """Return a markdown table of the metrics that have a meaning here; empty if there are none.

    What doesn't fit into the length that Dagster's page shows inline is left out at the end.

    Examples
    --------
    >>> print(summary({"rmse": 17.376812, "skill_vs_persistence_20": 0.00284}))
    | | | |
    |-|-:|-|
    | rmse | 17.377 | root mean squared error, in points or currency |
    | skill_vs_persistence_20 | +0.28 % | last 20 days: squared error below that of 'the price stays as it is' |

    Metrics that the baseline has, too, stand beside it.

    >>> print(summary({"roc_auc": 0.9218, "roc_auc_baseline": 0.5}))
    | | model | baseline |
    |-|-:|-:|
    | roc_auc | 0.9218 | 0.5 |
    """
    if both := [name for name in metrics if f"{name}{OF_BASELINE}" in metrics]:
        lines = [f"| {name} | {metrics[name]:,.5g} | {metrics[name + OF_BASELINE]:,.5g} |" for name in both]
        return "\n".join(["| | model | baseline |", "|-|-:|-:|", *lines])
    table = "| | | |\n|-|-:|-|"
    rows = []
    for name, value in metrics.items():
        days = re.search(r"_(\d+)$", name)
        meaning = MEANINGS.get(name.removesuffix(days[0]) if days else name)
        if meaning is not None:
            window = f"last {days[1]} days: " if days else ""
            rows.append(f"\n| {name} | {_written(name, value)} | {window}{meaning} |")
    for row in rows:
        if len(table) + len(row) >= INLINE:
            break
        table += row
    return table if rows else ""


def _written(name: str, value: float) -> str:
    if name.startswith("skill_vs_"):
        return f"{value:+.2%}".replace("%", " %")
    if name.startswith(_SHARES):
        return f"{value:.0%}".replace("%", " %")
    return f"{value:+.2f} %" if name == "change_percent" else f"{value:,.5g}"
