"""A step as a run on Databricks, described by the same bundle file that makes it a job there."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from airflow.providers.databricks.operators.databricks import (
    XCOM_RUN_ID_KEY,
    XCOM_RUN_PAGE_URL_KEY,
    DatabricksSubmitRunOperator,
)
from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger
from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.orders import MlflowLink, failure, hand_on, orders
from include.parameters import SECTION, given_in, read_file, refuse, task_of

_WHEEL = "./dist/*.whl"


class DatabricksStep(DatabricksSubmitRunOperator):
    """Runs one step as a Databricks run of its own.

    Parameters
    ----------
    pipeline, step
        What to run.
    """

    # What it sends is made when it runs. Rendered again, `{{ }}` in a parameter would be a template.
    template_fields = ("databricks_conn_id",)
    operator_extra_links = (*DatabricksSubmitRunOperator.operator_extra_links, MlflowLink())

    def __init__(self, *, pipeline: str, step: str, **kwargs: Any) -> None:
        super().__init__(polling_period_seconds=conf.getint(SECTION, "poll_seconds", fallback=15), **kwargs)
        self.pipeline = pipeline
        self.step = step

    def execute(self, context: Any) -> dict[str, Any]:
        """Submit the run, or find that of the try before, and wait; see the provider's operator."""
        # A task that a user clears gets more tries, and by that a run of its own: it is to be done again.
        self.external_id_key = f"databricks_run_until_try_{context['ti'].max_tries + 1}"
        try:
            # The provider's own execute() has no second look if it defers. It needs one: Airflow 3.3 takes a task that
            # comes back within seconds for a failed one now and then (apache/airflow#72716), and tries it again.
            self.execute_resumable(context)
        except AirflowException as error:
            raise self._explained(self.run_id, error) from None
        return self._facts(self.run_id, context)

    def _prepare_submit_json(self, context: Any) -> dict[str, Any]:
        # In place of the provider's, which makes texts of all numbers, and adds the DAG's parameters as named ones,
        # which Databricks refuses beside a list.
        origin, command = orders(self.pipeline, self.step, context)
        ti = context["ti"]
        attempt = f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.try_number}"
        return {
            **submit_body(self.pipeline, self.step, origin, command),
            "run_name": f"{task_of(self.step)} {given_in(self.pipeline, context['params'])[0]} {ti.run_id}",
            # An answer that got lost is asked for again: one run all the same.
            "idempotency_token": hashlib.sha256(attempt.encode()).hexdigest(),
        }

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        """Wait until the run has ended; if it takes long, Airflow's triggerer does so."""
        if self.deferrable and self.is_job_active(self.get_job_status(external_id, context)):
            page = self._hook.get_run_page_url(external_id)
            self.log.info("View run status, Spark UI, and logs at %s", page)
            context["ti"].xcom_push(key=XCOM_RUN_ID_KEY, value=external_id)
            context["ti"].xcom_push(key=XCOM_RUN_PAGE_URL_KEY, value=page)
            self.defer(
                trigger=DatabricksExecutionTrigger(
                    run_id=external_id,
                    databricks_conn_id=self.databricks_conn_id,
                    polling_period_seconds=self.polling_period_seconds,
                    retry_limit=self.databricks_retry_limit,
                    retry_delay=self.databricks_retry_delay,
                    retry_args=self.databricks_retry_args,
                    run_page_url=page,
                ),
                method_name="execute_complete",
            )
        super().poll_until_complete(external_id, context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Go on when the run has ended, after having been deferred."""
        try:
            super().execute_complete(context, event)
        except AirflowException as error:
            raise self._explained(event.get("run_id"), error) from None
        return self._facts(event["run_id"], context)

    def _facts(self, run_id: int | None, context: Any) -> dict[str, Any]:
        report = self._printed(run_id)
        if report is None:
            self.log.warning("Databricks has no output of run %s: no facts to show.", run_id)
            return {"databricks_run_id": run_id}
        return {**hand_on(report, context), "databricks_run_id": run_id}

    def _explained(self, run_id: int | None, error: AirflowException) -> AirflowException:
        """Return the error with what the step itself said; Databricks only says that it ended with a status."""
        said = self._printed(run_id) if run_id else None
        if said is None or "message" not in said:
            return error
        return failure(self.step, said, f"\n{error}")

    def _printed(self, run_id: int | None) -> dict[str, Any] | None:
        tasks = self._hook.get_run(run_id).get("tasks") or [{"run_id": run_id}]
        return report_in(self._hook.get_run_output(tasks[-1]["run_id"]).get("logs") or "")


def report_in(printed: str) -> dict[str, Any] | None:
    """Return the last JSON object among what a task has printed, whose braces have lines of their own."""
    lines = printed.splitlines()
    starts = [number for number, line in enumerate(lines) if line == "{"]
    try:
        last = lines.index("}", starts[-1])
        report: dict[str, Any] = json.loads("\n".join(lines[starts[-1] : last + 1]))
    except (IndexError, ValueError):
        return None
    return report


def submit_body(pipeline: str, step: str, origin: str, command: list[str]) -> dict[str, Any]:
    """Return the body of `runs/submit` for one step: cluster, libraries, settings and secrets are the bundle's.

    Raises
    ------
    AirflowFailException
        If the bundle isn't there, isn't one or has no such job, or no wheel was named.
    """
    bundle = _bundle()
    jobs = bundle["resources"]["jobs"]
    if pipeline not in jobs:
        cure = (
            "write it anew where the model is declared: mlops databricks-bundle. Its wheel has to hold the model, too."
        )
        raise AirflowFailException(f"{pipeline} is no job of the bundle (it has {', '.join(jobs)}): {cure}")
    job = jobs[pipeline]
    (task,) = job["tasks"]
    values = {f"${{var.{name}}}": variable["default"] for name, variable in bundle["variables"].items()}
    settings = [
        option.replace(name, value)
        for option in task["python_wheel_task"]["parameters"][:2]
        for name, value in values.items()
        if name in option
    ]
    sent = {
        **{name: value for name, value in task.items() if name != "job_cluster_key"},
        "task_key": task_of(step),
        "python_wheel_task": {**task["python_wheel_task"], "parameters": [*settings, origin, *command]},
        "timeout_seconds": job["timeout_seconds"],
    }
    for cluster in job.get("job_clusters", []):
        if cluster["job_cluster_key"] == task.get("job_cluster_key"):
            sent["new_cluster"] = cluster["new_cluster"]
    body: dict[str, Any] = {"tasks": [sent], "timeout_seconds": job["timeout_seconds"]}
    if "environments" in job:
        body["environments"] = job["environments"]
    if "permissions" in job:
        body["access_control_list"] = [
            {"permission_level" if name == "level" else name: value for name, value in one.items()}
            for one in job["permissions"]
        ]
    return json.loads(json.dumps(body).replace(_WHEEL, _wheel()))


def _bundle() -> dict[str, Any]:
    import yaml

    command = "mlops databricks-bundle --deployment NAME --output"
    bundle: dict[str, Any] = read_file(
        "databricks_bundle", "databricks.yml", yaml.safe_load, ("resources", "variables"), command
    )
    return bundle


def _wheel() -> str:
    wheel = conf.get(SECTION, "databricks_wheel", fallback="")
    if not wheel.endswith(".whl"):
        cure = "give the path of the uploaded wheel, for example /Volumes/main/mlops/mlops_dagster-1.0-py3-none-any.whl"
        raise refuse("databricks_wheel", wheel, cure)
    return wheel
