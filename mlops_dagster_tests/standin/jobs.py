"""Jobs: kept definitions, and runs of them with parameters, as an Asset Bundle makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_dagster_tests.standin import bodies
from mlops_dagster_tests.standin.errors import ApiError, invalid
from mlops_dagster_tests.standin.runs import Runs
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import Run, now
from mlops_dagster_tests.standin.views import run_view


class Jobs:
    """The workspace's jobs."""

    def __init__(self, settings: Settings, runs: Runs) -> None:
        self.settings = settings
        self.runs = runs
        self._jobs: dict[int, dict[str, Any]] = {}

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        bodies.check_job(body, self.settings.clusters)
        job_id = self.runs.number()
        self._jobs[job_id] = {
            "job_id": job_id,
            "creator_user_name": self.settings.user,
            "run_as_user_name": self.settings.user,
            "created_time": now(),
            "settings": self._with_defaults(body),
        }
        return {"job_id": job_id}

    def _with_defaults(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "Untitled", "max_concurrent_runs": 1, "format": "MULTI_TASK", **body}

    def get(self, job_id: Any) -> dict[str, Any]:
        try:
            return self._jobs[int(job_id)]
        except (KeyError, ValueError, TypeError):
            raise invalid(f"Job {job_id} does not exist.") from None

    def list(self, query: Mapping[str, Any]) -> dict[str, Any]:
        found = list(reversed(self._jobs.values()))
        if name := query.get("name"):
            found = [each for each in found if each["settings"]["name"].lower() == str(name).lower()]
        hidden = () if _true(query.get("expand_tasks")) else ("tasks", "job_clusters", "environments")
        shown = [
            {**each, "settings": {key: value for key, value in each["settings"].items() if key not in hidden}}
            for each in found
        ]
        return page("jobs", shown, query, limit=100)

    def reset(self, body: Mapping[str, Any]) -> None:
        job = self.get(body.get("job_id"))
        bodies.check_job(body.get("new_settings") or {}, self.settings.clusters)
        job["settings"] = self._with_defaults(body["new_settings"])

    def update(self, body: Mapping[str, Any]) -> None:
        job = self.get(body.get("job_id"))
        kept = {key: value for key, value in job["settings"].items() if key not in body.get("fields_to_remove", ())}
        changed = {**kept, **(body.get("new_settings") or {})}
        bodies.check_job(changed, self.settings.clusters)
        job["settings"] = self._with_defaults(changed)

    def delete(self, job_id: Any) -> None:
        del self._jobs[self.get(job_id)["job_id"]]

    def run_now(self, body: Mapping[str, Any]) -> int:
        job = self.get(body.get("job_id"))
        settings = job["settings"]
        declared = {each["name"]: each["default"] for each in settings.get("parameters") or []}
        given = body.get("job_parameters") or {}
        if unknown := sorted(set(given) - set(declared)):
            raise invalid(f"Job {job['job_id']} has no parameter {', '.join(unknown)}; it has: {sorted(declared)}.")
        if declared and (body.get("python_params") or body.get("python_named_params")):
            raise invalid("Task parameters can't be given for a job that has job parameters; use job_parameters.")
        for name, value in {**given, **(body.get("python_named_params") or {})}.items():
            if not isinstance(value, str):
                raise ApiError(400, "MALFORMED_REQUEST", f"The value of {name} must be a string, got {value!r}.")
        wanted = body.get("only")
        tasks = [_with_parameters(task, body) for task in settings.get("tasks") or []]
        if not tasks:
            raise invalid(f"Job {job['job_id']} has no tasks.")
        if wanted:
            tasks = [{**task, "depends_on": None} for task in tasks if task["task_key"] in wanted]
        queued = (body.get("queue") or settings.get("queue") or {}).get("enabled", False)

        def wait(run: Run) -> str | None:
            before = [
                each
                for each in self.runs.all()
                if each.job_id == run.job_id and each.active and each.run_id < run.run_id
            ]
            if len(before) < settings["max_concurrent_runs"]:
                return None
            return "QUEUED" if queued else "SKIPPED"

        return self.runs.begin(
            "JOB_RUN",
            job["job_id"],
            {**settings, "tasks": tasks},
            settings["name"],
            {**declared, **given},
            token=body.get("idempotency_token"),
            wait=wait,
        )


def _with_parameters(task: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task with what `run-now` gives: `python_params` replace, `python_named_params` are merged."""
    changed = dict(task)
    for kind in ("spark_python_task", "python_wheel_task"):
        if changed.get(kind) is None:
            continue
        if body.get("python_params") is not None:
            changed[kind] = {**changed[kind], "parameters": list(body["python_params"])}
        elif kind == "python_wheel_task" and body.get("python_named_params"):
            named = {**(changed[kind].get("named_parameters") or {}), **body["python_named_params"]}
            changed[kind] = {**changed[kind], "named_parameters": named}
    return changed


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def page(name: str, entries: list[dict[str, Any]], query: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return one page of a list, with the tokens that lead to its neighbours."""
    size = int(query.get("limit") or (20 if query.get("limit") is None else limit))
    if not 0 < size <= limit:
        raise invalid(f"limit must be from 1 to {limit}, got {size}.")
    start = int(query.get("page_token") or query.get("offset") or 0)
    shown: dict[str, Any] = {name: entries[start : start + size], "has_more": start + size < len(entries)}
    if shown["has_more"]:
        shown["next_page_token"] = str(start + size)
    if start:
        shown["prev_page_token"] = str(max(0, start - size))
    return shown


def list_runs(settings: Settings, runs: Runs, query: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `runs/list`: newest first, filtered."""
    active, completed = _true(query.get("active_only")), _true(query.get("completed_only"))
    if active and completed:
        raise invalid("active_only and completed_only can't both be true.")
    found = [
        run
        for run in runs.all()
        if (not active or run.active)
        and (not completed or not run.active)
        and (not query.get("run_type") or run.kind == query["run_type"])
        and (not query.get("job_id") or str(run.job_id) == str(query["job_id"]))
        and run.state.started >= int(query.get("start_time_from") or 0)
        and run.state.started <= int(query.get("start_time_to") or 2**62)
    ]
    expanded = _true(query.get("expand_tasks"))
    return page("runs", [run_view(settings, run, tasks=expanded) for run in found], query, limit=25)
