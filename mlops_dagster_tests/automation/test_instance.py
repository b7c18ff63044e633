import re
import subprocess

import dagster as dg
import pytest

from mlops_dagster.errors import MlopsError
from mlops_dagster.instance import DAGSTER_YAML, EARLIER_DAGSTER_YAML, prepare_instance
from mlops_dagster.stack.deployment_files import load_deployment

# What the first version of `mlops init` wrote.
FIRST = """\
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


@pytest.fixture
def settings_file(home):
    (home / "dagster").mkdir()
    return home / "dagster" / "dagster.yaml"


def test_a_fresh_home_queues_runs_of_one_symbol(home, capsys):
    made = prepare_instance(load_deployment())
    assert (home / "inbox").is_dir()
    with dg.DagsterInstance.from_config(str(made)) as instance:
        queue = instance.run_coordinator.get_run_queue_config()
    assert queue.max_concurrent_runs == 4
    assert {"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1} in list(
        queue.tag_concurrency_limits
    )
    prepare_instance(load_deployment())
    assert capsys.readouterr().err == ""


def test_what_an_earlier_version_wrote_is_renewed(settings_file):
    settings_file.write_text(FIRST)
    prepare_instance(load_deployment())
    assert settings_file.read_text() == DAGSTER_YAML


def test_what_somebody_has_changed_stays_and_is_told(settings_file, mlops):
    settings_file.write_text(FIRST + "# mine\n")
    done = mlops("init")
    assert done.returncode == 0, done.stderr
    assert "was changed by somebody and stays as it is" in done.stderr
    assert settings_file.read_text().endswith("# mine\n")


def test_todays_settings_are_not_among_the_earlier_ones():
    digest = subprocess.run(["sha256sum"], input=DAGSTER_YAML, capture_output=True, text=True, check=True).stdout
    assert digest.split()[0] not in EARLIER_DAGSTER_YAML


@pytest.mark.parametrize("name", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
def test_a_database_that_a_full_disk_has_left_is_told_with_the_cure(home, name):
    file = prepare_instance(load_deployment()) / name
    whole = file.read_bytes()
    for left, what in ((b"", "is empty"), (whole[: len(whole) // 2], "was cut off"), (b"\0" * 99, "is no SQLite")):
        file.write_bytes(left)
        with pytest.raises(MlopsError, match=f"{re.escape(str(file))} {what}.* from a backup, or move it away"):
            prepare_instance(load_deployment())
    file.write_bytes(whole)
    prepare_instance(load_deployment())
