"""Train, search and promote scikit-learn models; every tool only calls plain step functions."""

import os

# MLflow's client sends usage data unless it is told not to before it is imported. Whoever wants that sets it to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"
