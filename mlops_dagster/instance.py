"""The state folder of a local Dagster: its instance and the symbols that are always there.

What belongs here: what must exist before the first run. What doesn't: anything a run does.
"""

from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_dagster.assets.partitions import SYMBOLS, missing_symbols
from mlops_dagster.stack.deployment import Deployment

# Telemetry and the newcomer's dialog are off: the dialog covers every fresh page. A run starts within a second of its
# launch instead of five. A run whose process was killed is noticed by the daemon.
DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_queue:
  dequeue_interval_seconds: 1
run_monitoring:
  enabled: true
  poll_interval_seconds: 5
"""

# The location keeps its name wherever Dagster is started from, so that sensors keep their state and links their aim.
WORKSPACE_YAML = """\
load_from:
  - python_module:
      module_name: mlops_dagster.definitions
      location_name: mlops_dagster
"""


def prepare_instance(deployment: Deployment) -> Path:
    """Make the Dagster home of a deployment, if it isn't there, and add the deployment's symbols to it.

    Returns
    -------
    pathlib.Path
        What ``DAGSTER_HOME`` has to be.
    """
    home = deployment.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    # Dagster creates its databases on first use, and two processes that do so at once break each other.
    with FileLock(home.with_suffix(".lock")):
        for file, text in (("dagster.yaml", DAGSTER_YAML), ("workspace.yaml", WORKSPACE_YAML)):
            if not (home / file).exists():
                (home / file).write_text(text)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            add_symbols(instance, deployment.symbols)
    return home


def add_symbols(instance: dg.DagsterInstance, symbols: list[str]) -> list[str]:
    """Add symbols as partitions, and return those that weren't there."""
    new = missing_symbols(instance, symbols)
    if new:
        instance.add_dynamic_partitions(SYMBOLS.name or "", new)
    return new
