"""Train, search and promote scikit-learn models; every tool only calls plain step functions."""

import os
from pathlib import Path

# MLflow's client sends usage data unless it is told not to before it is imported. Whoever wants that sets it to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The addresses that it prints, after one more request each, open MLflow's view for language models.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

__version__ = "0.1.0"

try:
    Path.home()
except RuntimeError:
    # A container may run as a user without a name or home. MLflow and others need one when they are imported.
    os.environ["HOME"] = str(Path(os.environ.get("MLOPS_HOME") or ".mlops").absolute())
