"""Each pipeline of the manifest as a DAG of Airflow."""

from include.parameters import PIPELINES
from include.step_tasks import dag_of

globals().update({name: dag_of(name) for name in PIPELINES})
