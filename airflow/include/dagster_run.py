"""A run of a Dagster job, launched over GraphQL: plain HTTP, nothing of Dagster is installed here."""

from __future__ import annotations

import time
from typing import Any

import requests
from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on PipelineNotFoundError { message }
  ... on UnauthorizedError { message } ... on InvalidSubsetError { message } } }"""
STATUS = """query ($runId: ID!) { runOrError(runId: $runId) { __typename ... on Run { status } } }"""
ERRORS = """query ($runId: ID!) { logsForRun(runId: $runId) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } } } } } }"""
TERMINATE = """mutation ($runId: String!) { terminateRun(runId: $runId) { __typename } }"""
OVER = ("SUCCESS", "FAILURE", "CANCELED")


class DagsterRun(BaseOperator):
    """Launches a Dagster job and waits for it; killed, it ends the job's run too.

    Parameters
    ----------
    job : str
        The job's name.
    location : str
        Its code location.
    partition, run_config : templated
        For which symbol, and the launchpad's config.
    conn_id : str
        The connection with the host of Dagster's webserver; a password is sent as Dagster+'s token.
    poll_seconds : float
        How often to look.
    """

    template_fields = ("job", "partition", "run_config")

    def __init__(
        self,
        *,
        job: str,
        location: str = "mlops_dagster",
        partition: str | None = None,
        run_config: Any = None,
        conn_id: str = "dagster_default",
        poll_seconds: float = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.location = location
        self.partition = partition
        self.run_config = run_config
        self.conn_id = conn_id
        self.poll_seconds = poll_seconds
        self._run_id: str | None = None

    def execute(self, context: Any) -> dict[str, str]:
        """Launch, wait, and hand on the run's id and where to look at it."""
        tags = {"airflow/dag_id": context["dag_run"].dag_id, "airflow/run_id": context["dag_run"].run_id}
        if self.partition:
            tags["dagster/partition"] = self.partition
        selector = {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "jobName": self.job,
        }
        params = {
            "selector": selector,
            "runConfigData": self.run_config or {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self._ask(LAUNCH, params=params)["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise AirflowFailException(f"Dagster refused {self.job}: {launched}")
        self._run_id = launched["run"]["runId"]
        url = f"{self._url}/runs/{self._run_id}"
        self.log.info("Launched %s", url)
        status = ""
        while status not in OVER:
            time.sleep(self.poll_seconds)
            status = self._ask(STATUS, runId=self._run_id)["runOrError"].get("status", "CANCELED")  # or deleted
        if status != "SUCCESS":
            raise AirflowException(f"Dagster's run ended with {status}, see {url}\n{self._errors()}")
        return {"run_id": self._run_id, "url": url}

    def on_kill(self) -> None:
        """End the run in Dagster."""
        if self._run_id is not None:
            self.log.warning("Terminating Dagster's run %s", self._run_id)
            self._ask(TERMINATE, runId=self._run_id)

    @property
    def _url(self) -> str:
        connection = Connection.get(self.conn_id)
        port = f":{connection.port}" if connection.port else ""
        return f"{connection.schema or 'http'}://{connection.host}{port}"

    def _ask(self, query: str, **variables: Any) -> Any:
        token = Connection.get(self.conn_id).password
        headers = {"Dagster-Cloud-Api-Token": token} if token else {}
        body = {"query": query, "variables": variables}
        with requests.Session() as session:
            # A webserver that is being started anew can't be connected to for a while; nothing was sent by then.
            session.mount(self._url, HTTPAdapter(max_retries=Retry(connect=7, read=0, other=0, backoff_factor=0.5)))
            answer = session.post(f"{self._url}/graphql", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        said = answer.json()
        if said.get("errors"):
            raise AirflowFailException(f"Dagster can't answer: {said['errors']}")
        return said["data"]

    def _errors(self) -> str:
        events = self._ask(ERRORS, runId=self._run_id)["logsForRun"].get("events", [])
        failed = [event for event in events if event.get("error")]
        texts = [[event["error"], *event["error"]["causes"]] for event in failed]
        return "\n".join(
            f"{event['stepKey']}: {' '.join(one['message'].strip() for one in said)}"
            for event, said in zip(failed, texts, strict=True)
        )
