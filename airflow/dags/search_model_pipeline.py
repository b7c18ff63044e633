"""Search a grid of hyper-parameters for one symbol, on this machine.

The last task's XCom shows the best parameters; give them to build_model_pipeline.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger search_model_pipeline --conf '{"grid": {"max_depth": [80, 90], "n_estimators": [100, 200]}}'
"""

from include.step_tasks import dag_of

dag = dag_of("search_model_pipeline", doc_md=__doc__, tags=["mlops", "search"])
