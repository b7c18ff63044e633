from mlops_dagster.process_settings import wait_quietly

wait_quietly()  # as in every process of ours: before any test imports scikit-learn
