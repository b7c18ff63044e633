"""The state folder of a local Dagster: its instance and the symbols that are always there.

What belongs here: what must exist before the first run. What doesn't: anything a run does.
"""

import hashlib
import sys
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_dagster.assets.partitions import SYMBOLS, missing_symbols
from mlops_dagster.stack.deployment import Deployment

# Telemetry and the newcomer's dialog are off: the dialog covers every fresh page. A run starts within a second of its
# launch instead of five. A run whose process was killed is noticed by the daemon. Users may change the file, so that
# the reasons are in it.
DAGSTER_YAML = """\
# Written by `mlops init`, and by its later versions as long as nobody changes it. See docs/automation.md.
telemetry:
  enabled: false
nux:
  enabled: false
run_queue:
  dequeue_interval_seconds: 1
  # Each run is a process of some 400 MB, and the training of one uses all cores.
  max_concurrent_runs: 4
  # On a machine with too much to do the code location may answer too late; the run then isn't lost.
  max_user_code_failure_retries: 5
  user_code_failure_retry_delay: 10
  tag_concurrency_limits:
    # Of one symbol never two runs at once: the second waits.
    - key: dagster/partition
      value:
        applyLimitPerUniqueValue: true
      limit: 1
    # The searches of a week one after the other, so that forecasts find a free place.
    - key: dagster/schedule_name
      value: weekly_search
      limit: 1
# Of a run that has started the daemon asks every few seconds whether its process lives: this launcher can tell.
run_launcher:
  module: mlops_dagster.run_workers
  class: RunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 5
# A sensor that takes long (a large file, a slow store) keeps no other waiting.
sensors:
  use_threads: true
  num_workers: 4
# Sensors look every few seconds, mostly in vain; of these looks a day is kept instead of a week.
retention:
  sensor:
    purge_after_days:
      skipped: 1
"""

# What earlier versions wrote, so that a file which nobody has changed can be told from one that somebody has.
EARLIER_DAGSTER_YAML = frozenset(
    {
        "3be8d329b03350b6246615c648ca64c65b644b3141ed7ead9b54a9d5ae7b6a81",
        "78afda7c8539e87dc9457b8c587f108aca5a6badae025b4789e157106327dd9a",
    }
)

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
        _write_settings(home / "dagster.yaml")
        if not (home / "workspace.yaml").exists():
            (home / "workspace.yaml").write_text(WORKSPACE_YAML)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            add_symbols(instance, deployment.symbols)
    if deployment.inbox.path is not None and Path(deployment.inbox.path).is_relative_to(deployment.home):
        Path(deployment.inbox.path).mkdir(parents=True, exist_ok=True)
    return home


def _write_settings(file: Path) -> None:
    """Write what isn't there, renew what is as we wrote it, and leave alone what somebody has changed."""
    there = file.read_bytes() if file.exists() else None
    if there is None or hashlib.sha256(there).hexdigest() in EARLIER_DAGSTER_YAML:
        file.write_text(DAGSTER_YAML)
    elif there != DAGSTER_YAML.encode():
        sys.stderr.write(
            f"{file} was changed by somebody and stays as it is. To get the queue, the limits and the launcher of this "
            "version, move it away and run mlops init.\n"
        )


def add_symbols(instance: dg.DagsterInstance, symbols: list[str]) -> list[str]:
    """Add symbols as partitions, and return those that weren't there."""
    new = missing_symbols(instance, symbols)
    if new:
        instance.add_dynamic_partitions(SYMBOLS.name or "", new)
    return new
