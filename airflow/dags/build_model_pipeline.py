"""Build a model of one symbol: prices, training set, trained model, champion.

Each task is one step of mlops_dagster; its XCom shows the versions, digests and metrics of what it made.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger build_model_pipeline --conf '{"symbol": "GSPC", "max_depth": 80, "n_estimators": 100}'
"""

from datetime import timedelta

from airflow.sdk import DAG, chain

from include.parameters import params_of
from include.pipelines import BUILD_MODEL
from include.step_tasks import DEFAULTS, task_of

with DAG(
    BUILD_MODEL.name,
    description=BUILD_MODEL.description,
    doc_md=__doc__,
    schedule=None,
    params=params_of(BUILD_MODEL),
    default_args=DEFAULTS,
    max_active_runs=1,  # a run uses all cores of this machine
    dagrun_timeout=timedelta(hours=12),
    is_paused_upon_creation=False,
    tags=["mlops", "model"],
):
    chain(*(task_of(BUILD_MODEL, step) for step in BUILD_MODEL.steps))
