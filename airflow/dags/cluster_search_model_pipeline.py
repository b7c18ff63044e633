"""Search a grid of hyper-parameters for one symbol, its trees grown on Spark.

The deployment of mlops_dagster says on which Spark. The results are those of search_model_pipeline.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger cluster_search_model_pipeline --conf '{"preset": "article", "folds": 3}'
"""

from datetime import timedelta

from airflow.sdk import DAG, chain

from include.parameters import params_of
from include.pipelines import CLUSTER_SEARCH_MODEL
from include.step_tasks import DEFAULTS, task_of

with DAG(
    CLUSTER_SEARCH_MODEL.name,
    description=CLUSTER_SEARCH_MODEL.description,
    doc_md=__doc__,
    schedule=None,
    params=params_of(CLUSTER_SEARCH_MODEL),
    default_args=DEFAULTS,
    max_active_runs=1,  # a run uses all cores of this machine
    dagrun_timeout=timedelta(hours=12),
    is_paused_upon_creation=False,
    tags=["mlops", "search"],
):
    chain(*(task_of(CLUSTER_SEARCH_MODEL, step) for step in CLUSTER_SEARCH_MODEL.steps))
