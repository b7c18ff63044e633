"""A Dagster instance: its home, the symbols that are always there, and what was made outside of it."""

import functools
import hashlib
import sys
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_dagster.assets.many import materialization_of
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.errors import MlopsError
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.files import write_whole
from mlops_dagster.stack.tracking import Origin
from mlops_dagster.steps import StepReport

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
    # Searches that a schedule has asked for one after the other, so that predictions find a free place.
    - key: scheduled_search
      limit: 1
    # A run of many partitions uses all cores by itself.
    - key: dagster/asset_partition_range_start
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
        "af4a13ce9f013629f9ccf39f471205a8acddf6e250f3a1bb619be780d3e43fb9",
        "3be8d329b03350b6246615c648ca64c65b644b3141ed7ead9b54a9d5ae7b6a81",
        "78afda7c8539e87dc9457b8c587f108aca5a6badae025b4789e157106327dd9a",
        "700ace6447f53d840d8f672c9805347d4b2faea0599af42bce3d80f4fff50145",
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
    """Make the Dagster home of a deployment, if it isn't there, and add the partitions that models list to it.

    Returns
    -------
    pathlib.Path
        What ``DAGSTER_HOME`` has to be.
    """
    home = deployment.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    # Dagster creates its databases on first use, and two processes that do so at once break each other.
    with FileLock(home.with_suffix(".lock")):
        _refuse_broken_databases(home)
        _write_settings(home / "dagster.yaml")
        if not (home / "workspace.yaml").exists():
            write_whole(home / "workspace.yaml", WORKSPACE_YAML)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            _add_listed_partitions(instance, deployment)
    if deployment.inbox.path is not None and Path(deployment.inbox.path).is_relative_to(deployment.home):
        Path(deployment.inbox.path).mkdir(parents=True, exist_ok=True)
    return home


def _refuse_broken_databases(home: Path) -> None:
    """Refuse what Dagster would answer with tables that are missing: a disk that was full leaves such files."""
    for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
        file = home / name
        if not file.exists():
            continue
        with file.open("rb") as stream:
            head, size = stream.read(32), file.stat().st_size
        # https://www.sqlite.org/fileformat.html#the_database_header: pages of bytes 16-17, as many as bytes 28-31 say
        page = int.from_bytes(head[16:18], "big")
        whole = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        if not head.startswith(b"SQLite format 3\0") or size < whole:
            what = "is empty" if not size else "was cut off" if head.startswith(b"SQLite") else "is no SQLite database"
            folder = file.parents[len(Path(name).parts) - 2]
            raise MlopsError(
                f"{file} {what} ({size} bytes). Restore {folder} from a backup, or move it away and start again: the "
                f"{'history of runs' if 'history' in name else 'state of schedules and sensors'} then begins anew, and "
                "tables, models and MLflow's runs stay."
            )


def _write_settings(file: Path) -> None:
    """Write what isn't there, renew what is as we wrote it, and leave alone what somebody has changed."""
    there = file.read_bytes() if file.exists() else None
    if there is None or hashlib.sha256(there).hexdigest() in EARLIER_DAGSTER_YAML:
        write_whole(file, DAGSTER_YAML)
    elif there != DAGSTER_YAML.encode():
        sys.stderr.write(
            f"{file} was changed by somebody and stays as it is. To get the queue, the limits and the launcher of this "
            "version, move it away and run mlops init.\n"
        )


def _add_listed_partitions(instance: dg.DagsterInstance, deployment: Deployment) -> None:
    for model in map(find_model, model_names()):
        partitions, said = OfModel(model).partitions, model.partitions
        if isinstance(partitions, dg.DynamicPartitionsDefinition) and said is not None:
            listed = [*(said.keys or []), *deployment.partitions.get(model.data_owner, [])]
            instance.add_dynamic_partitions(partitions.name or "", listed)


@functools.cache  # a command tells of several steps
def _opened(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(home))


def tell_instance(home: Path, report: StepReport, origin: Origin) -> None:
    """Tell a Dagster instance of a step that was run outside of it, so that its pages and schedules know of it.

    The event is what the asset itself would have reported, with the same metadata, data version, code version and
    inputs; it belongs to no run. The results of checks aren't told: of those without a run Dagster 1.13 keeps one for
    each check and partition, and refuses a second. They are made by the next run, or when somebody asks on their page.

    Parameters
    ----------
    home : Path
        What ``DAGSTER_HOME`` is for that Dagster.
    """
    model = OfModel(find_model(report.model))
    partition = None if model.partitions is None else report.symbol
    instance = _opened(home)
    if partition is not None and isinstance(model.partitions, dg.DynamicPartitionsDefinition):
        instance.add_dynamic_partitions(model.partitions.name or "", [partition])
    said = f"Made outside of Dagster ({origin.orchestrator}, run {origin.run_id})."
    instance.report_runless_asset_event(materialization_of(instance, model, report, said))
