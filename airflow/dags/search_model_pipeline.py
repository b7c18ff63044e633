"""Search a grid of hyper-parameters for one symbol, on this machine.

The last task's XCom shows the best parameters; give them to build_model_pipeline.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger search_model_pipeline --conf '{"grid": {"max_depth": [80, 90], "n_estimators": [100, 200]}}'
"""

from datetime import timedelta

from airflow.sdk import DAG, chain

from include.parameters import params_of
from include.pipelines import SEARCH_MODEL
from include.step_tasks import DEFAULTS, task_of

with DAG(
    SEARCH_MODEL.name,
    description=SEARCH_MODEL.description,
    doc_md=__doc__,
    schedule=None,
    params=params_of(SEARCH_MODEL),
    default_args=DEFAULTS,
    max_active_runs=1,  # a run uses all cores of this machine
    dagrun_timeout=timedelta(hours=12),
    is_paused_upon_creation=False,
    tags=["mlops", "search"],
):
    chain(*(task_of(SEARCH_MODEL, step) for step in SEARCH_MODEL.steps))
