"""Search a grid of hyper-parameters for one symbol, its trees grown on Spark.

The deployment of mlops_dagster says on which Spark. The results are those of search_model_pipeline.

Trigger it with parameters, in the browser (**Trigger**), in a shell or over the REST API; all of them may be left out:

    airflow dags trigger cluster_search_model_pipeline --conf '{"preset": "article", "folds": 3}'
"""

from include.step_tasks import dag_of

dag = dag_of("cluster_search_model_pipeline", doc_md=__doc__, tags=["mlops", "search"])
