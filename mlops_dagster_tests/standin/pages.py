"""Pages for people: the list of runs, and one run with its parameters and what it printed.

They need no token, so that a link from Dagster's UI opens.
"""

from __future__ import annotations

from html import escape

from mlops_dagster_tests.standin.bodies import kind_of
from mlops_dagster_tests.standin.runs import Runs
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import Run, TaskRun
from mlops_dagster_tests.standin.views import page_url

DISCLAIMER = (
    "This is a stand-in for a Databricks workspace, for tests and demonstrations. "
    "What works here is no proof of compatibility with Databricks."
)
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left}"
    "pre{background:#f4f4f4;padding:.7rem;overflow:auto;max-height:30rem}small{color:#666}"
)


def _page(title: str, content: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p><small>{DISCLAIMER}</small></p>"
        f"{content}</body></html>"
    )


def home(settings: Settings, runs: Runs) -> str:
    rows = "".join(
        f'<tr><td><a href="{page_url(settings, run)}">{run.run_id}</a></td><td>{escape(run.name)}</td>'
        f"<td>{escape(_state(run.state.life, run.state.result))}</td></tr>"
        for run in runs.all()
    )
    table = f"<table><tr><th>Run</th><th>Name</th><th>State</th></tr>{rows}</table>" if rows else "<p>No runs yet.</p>"
    return _page("Stand-in workspace", table)


def _state(life: str, result: str | None) -> str:
    return life if result is None else f"{life} ({result})"


def of_run(run: Run) -> str:
    facts = f"<p>State: <b>{escape(_state(run.state.life, run.state.result))}</b> {escape(run.state.message)}</p>"
    if run.parameters:
        facts += f"<p>Job parameters: <code>{escape(str(dict(run.parameters)))}</code></p>"
    return _page(
        f"Run {run.run_id}: {run.name}", facts + "".join(map(_task, run.tasks)) + '<p><a href="/">All runs</a></p>'
    )


def _task(task: TaskRun) -> str:
    definition = task.task[kind_of(task.task)]
    what = definition.get("python_file") or f"{definition.get('package_name')}: {definition.get('entry_point')}"
    given = definition.get("parameters") or definition.get("named_parameters") or []
    logs = "".join(
        f"<h3>{name}</h3><pre>{escape(task.printed(name)[-200_000:]) or '(empty)'}</pre>"
        for name in ("stdout", "stderr")
    )
    return (
        f"<h2>Task {escape(task.key)}, attempt {task.attempt}</h2>"
        f"<p>State: <b>{escape(_state(task.state.life, task.state.result))}</b> {escape(task.state.message)}</p>"
        f"<p>Runs <code>{escape(str(what))}</code> with <code>{escape(str(given))}</code></p>{logs}"
    )
