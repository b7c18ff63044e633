"""Settings of processes that import much and live for seconds: a run, a task, a command."""

import atexit
import gc
import os

# What the steps import as they go. What isn't installed isn't needed. skops looks for each of SciPy's functions in all
# modules, in the order of their import: first, it saves a second.
FOR_STEPS = (
    "scipy.special",
    "deltalake",
    "matplotlib.backends.backend_agg",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandera.pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.ensemble",
    "sklearn.model_selection",
    "skops.io",
)


def collect_rarely() -> None:
    """Let the garbage collector look rarely, and not at all at the end, when the system takes all memory anyway.

    A step imports some 4,000 modules. The collector walks through them again and again while they are imported, and
    once more at the exit: together a third of the time of a run that does little. The memory of a run stays the same;
    what isn't part of a cycle is freed at once, as ever.
    """
    gc.set_threshold(10_000, 20, 20)
    atexit.register(gc.freeze)


def wait_quietly() -> None:
    """Let OpenMP's threads sleep while they wait for each other; it has to be said before scikit-learn is imported.

    By default they spin. Where as many processes compute as there are cores, each then waits for threads that the
    others keep from running: fitting HistGradientBoosting took 30 times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
