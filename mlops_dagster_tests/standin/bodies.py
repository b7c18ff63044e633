"""Which bodies of jobs and runs the API takes, and which it refuses before anything happens.

The real service drops some unknown fields silently; this one refuses all of them, so that a field that can't work is
seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mlops_dagster_tests.standin.errors import ApiError, invalid


def _words(text: str) -> set[str]:
    return set(text.split())


_SHARED = _words("""
    access_control_list budget_policy_id email_notifications environments git_source health notification_settings
    queue run_as tasks timeout_seconds usage_policy_id webhook_notifications
""")
SUBMIT = _SHARED | _words("idempotency_token run_name")
JOB = _SHARED | _words("""
    continuous deployment description edit_mode format job_clusters max_concurrent_runs name parameters
    performance_target schedule tags trigger
""")
KINDS = {
    "spark_python_task": _words("python_file parameters source"),
    "python_wheel_task": _words("package_name entry_point named_parameters parameters"),
}
_KINDS_NOT_RUN = _words("""
    clean_rooms_notebook_task condition_task dashboard_task dbt_cloud_task dbt_platform_task dbt_task for_each_task
    gen_ai_compute_task notebook_task pipeline_task power_bi_task run_job_task spark_jar_task spark_submit_task sql_task
""")
TASK = (
    set(KINDS)
    | _KINDS_NOT_RUN
    | _words("""
    depends_on description email_notifications environment_key existing_cluster_id health libraries max_retries
    min_retry_interval_millis new_cluster notification_settings retry_on_timeout run_if task_key timeout_seconds
    webhook_notifications
""")
)
CLUSTER = _words("""
    apply_policy_default_values autoscale autotermination_minutes aws_attributes azure_attributes cluster_log_conf
    cluster_name custom_tags data_security_mode docker_image driver_instance_pool_id driver_node_type_id
    enable_elastic_disk enable_local_disk_encryption gcp_attributes init_scripts instance_pool_id is_single_node kind
    node_type_id num_workers policy_id runtime_engine single_user_name spark_conf spark_env_vars spark_version
    ssh_public_keys use_ml_runtime workload_type
""")
LIBRARY = {"cran", "egg", "jar", "maven", "pypi", "requirements", "whl"}


def check_submit(body: Mapping[str, Any], clusters: Collection[str]) -> None:
    """Refuse what `runs/submit` refuses."""
    _known(body, SUBMIT, "RunsSubmit")
    if not body.get("tasks"):
        raise invalid("One of tasks must be specified: tasks is empty.")
    if len(body.get("idempotency_token") or "") > 64:
        raise invalid("idempotency_token must have at most 64 characters.")
    _tasks(body, TASK, clusters)


def check_job(body: Mapping[str, Any], clusters: Collection[str]) -> None:
    """Refuse what `jobs/create` and `jobs/reset` refuse."""
    _known(body, JOB, "JobSettings")
    for parameter in body.get("parameters") or []:
        if not parameter.get("name") or not isinstance(parameter.get("default"), str):
            raise invalid(f"A job parameter needs a name and a default that is a string, got {parameter}.")
    for cluster in body.get("job_clusters") or []:
        _new_cluster(cluster.get("new_cluster") or {})
    _tasks(body, {*TASK, "disable_auto_optimization", "job_cluster_key"}, clusters)


def _known(body: Mapping[str, Any], fields: Collection[str], what: str) -> None:
    if unknown := sorted(set(body) - set(fields)):
        raise ApiError(400, "MALFORMED_REQUEST", f"Could not parse request object: {what} has no {', '.join(unknown)}")


def _tasks(body: Mapping[str, Any], fields: Collection[str], clusters: Collection[str]) -> None:
    tasks = body.get("tasks") or []
    keys = [str(task.get("task_key")) for task in tasks]
    _seconds(body, "timeout_seconds", "The run's")
    for environment in body.get("environments") or []:
        spec = environment.get("spec") or {}
        if not environment.get("environment_key") or not (spec.get("client") or spec.get("environment_version")):
            raise invalid(f"An environment needs environment_key and spec.environment_version, got {environment}.")
    for task, key in zip(tasks, keys, strict=True):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", str(task.get("task_key") or "")):
            raise invalid(f"task_key must be 1 to 100 letters, digits, - and _, got {task.get('task_key')!r}.")
        if keys.count(key) > 1:
            raise invalid(f"task_key must be unique, {key!r} is there {keys.count(key)} times.")
        _known(task, fields, f"Task {key}")
        _kind(task, key)
        _compute(task, key, body, clusters)
        _seconds(task, "timeout_seconds", f"Task {key}'s")
        for before in task.get("depends_on") or []:
            if before.get("task_key") not in keys or before.get("task_key") == key:
                raise invalid(f"Task {key} depends on {before.get('task_key')!r}, which is no other task.")
        if (run_if := task.get("run_if", "ALL_SUCCESS")) not in ("ALL_SUCCESS", "ALL_DONE"):
            raise ApiError(400, "FEATURE_DISABLED", f"The stand-in has no run_if {run_if} (task {key}).")
        for library in task.get("libraries") or []:
            _known(library, LIBRARY, f"A library of task {key}")
            if len(library) != 1:
                raise invalid(f"A library is one of {', '.join(sorted(LIBRARY))}, got {library}.")


def _seconds(body: Mapping[str, Any], name: str, whose: str) -> None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise invalid(f"{whose} {name} must be a whole number of seconds, got {value!r}.")


def kind_of(task: Mapping[str, Any]) -> str:
    """Return the one `..._task` field of a task that was checked."""
    return next(name for name in KINDS if task.get(name) is not None)


def _kind(task: Mapping[str, Any], key: str) -> None:
    kinds = sorted(name for name in {*KINDS, *_KINDS_NOT_RUN} if task.get(name) is not None)
    if len(kinds) != 1:
        raise invalid(f"Task {key} must have exactly one type of task, got {', '.join(kinds) or 'none'}.")
    kind = kinds[0]
    if kind in _KINDS_NOT_RUN:
        raise ApiError(400, "FEATURE_DISABLED", f"The stand-in doesn't run a {kind} (task {key}).")
    definition = task[kind]
    _known(definition, KINDS[kind], f"{kind} of task {key}")
    for field in ("python_file",) if kind == "spark_python_task" else ("package_name", "entry_point"):
        if not definition.get(field):
            raise invalid(f"{kind} of task {key} needs {field}.")
    listed, named = definition.get("parameters"), definition.get("named_parameters")
    if listed and named:
        raise invalid(f"{kind} of task {key} has parameters and named_parameters; only one of them can be given.")
    for value in [*(listed or []), *(named or {}).values()]:
        if not isinstance(value, str):
            raise ApiError(400, "MALFORMED_REQUEST", f"A parameter of task {key} must be a string, got {value!r}.")


def _compute(task: Mapping[str, Any], key: str, body: Mapping[str, Any], clusters: Collection[str]) -> None:
    names = ("new_cluster", "existing_cluster_id", "job_cluster_key", "environment_key")
    given = [name for name in names if task.get(name) is not None]
    if len(given) != 1:
        raise invalid(f"Task {key} must have exactly one of {', '.join(names)}, got {', '.join(given) or 'none'}.")
    if given == ["existing_cluster_id"] and task["existing_cluster_id"] not in clusters:
        message = f"Cluster {task['existing_cluster_id']} does not exist."
        raise ApiError(400, "INVALID_PARAMETER_VALUE", message)
    if given == ["new_cluster"]:
        _new_cluster(task["new_cluster"])
    if given == ["job_cluster_key"]:
        known = [each.get("job_cluster_key") for each in body.get("job_clusters") or []]
        if task["job_cluster_key"] not in known:
            raise invalid(f"Task {key} names the job cluster {task['job_cluster_key']!r}; there are: {known}.")
    if given == ["environment_key"]:
        known = [each.get("environment_key") for each in body.get("environments") or []]
        if task["environment_key"] not in known:
            raise invalid(f"Task {key} names the environment {task['environment_key']!r}; there are: {known}.")
        if task.get("libraries"):
            raise invalid("Libraries field is not supported for serverless task, specify libraries in environment.")


def _new_cluster(cluster: Mapping[str, Any]) -> None:
    _known(cluster, CLUSTER, "new_cluster")
    if not cluster.get("spark_version"):
        raise invalid("new_cluster needs spark_version.")
    if cluster.get("num_workers") is None and cluster.get("autoscale") is None and not cluster.get("is_single_node"):
        raise invalid("new_cluster needs num_workers or autoscale.")
    if not any(cluster.get(name) for name in ("node_type_id", "instance_pool_id", "policy_id")):
        raise invalid("new_cluster needs node_type_id or instance_pool_id.")
    for name in ("spark_env_vars", "spark_conf"):
        for variable, value in (cluster.get(name) or {}).items():
            if not isinstance(value, str):
                message = f"{name}.{variable} must be a string, got {value!r}."
                raise ApiError(400, "MALFORMED_REQUEST", message)
