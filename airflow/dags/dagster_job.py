"""Run a job of Dagster from Airflow, and wait for it.

For a schedule that Airflow keeps while Dagster does the work. It needs the connection `dagster_default`:

    export AIRFLOW_CONN_DAGSTER_DEFAULT='{"conn_type": "http", "host": "127.0.0.1", "port": 3000}'
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from include.dagster_run import DagsterRun

with DAG(
    "dagster_job",
    doc_md=__doc__,
    schedule=None,
    params={
        "job": Param("build_model_pipeline", type="string", description="Which job of Dagster."),
        "symbol": Param("GSPC", type="string", description="Which partition."),
        "run_config": Param({}, type="object", description='As in the launchpad: {"ops": {...}}.'),
    },
    render_template_as_native_obj=True,  # run_config stays an object
    tags=["mlops", "dagster"],
):
    DagsterRun(
        task_id="dagster_run",
        job="{{ params.job }}",
        partition="{{ params.symbol }}",
        run_config="{{ params.run_config }}",
        execution_timeout=timedelta(hours=12),
    )
