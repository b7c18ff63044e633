"""Build a model of one symbol: prices, training set, trained model, champion.

Each task is one step of mlops_dagster; its XCom shows the versions, digests and metrics of what it made.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger build_model_pipeline --conf '{"symbol": "GSPC", "max_depth": 80, "n_estimators": 100}'
"""

from include.step_tasks import dag_of

dag = dag_of("build_model_pipeline", doc_md=__doc__, tags=["mlops", "model"])
