import json
import os
from pathlib import Path

import dagster as dg
import pytest

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.jobs import jobs_of
from mlops_dagster.sensors.inbox import inbox_sensor
from mlops_dagster.spec.functions import load_function
from mlops_dagster.stack.inbox import scan_inbox
from mlops_dagster.stack.table_files import SourceError, sha256_of
from mlops_dagster_tests.contracts.shipped import shipped

BUILD, PREDICT = "build_model_pipeline", "predict_pipeline"


class Answer:
    """What the sensor said. What the daemon makes of it is seen in `test_under_the_daemon.py`."""

    def __init__(self, answer):
        is_skip = isinstance(answer, dg.SkipReason)
        reason = answer if is_skip else answer.skip_reason
        self.skip_message = reason.skip_message if reason else None
        self.cursor = None if is_skip else answer.cursor
        self.run_requests = [] if is_skip else answer.run_requests
        self.dynamic_partitions_requests = [] if is_skip else answer.dynamic_partitions_requests


def ask(stack, cursor=None):
    sensor = inbox_sensor(stack.model, stack.deployment, jobs_of(stack.model))
    return Answer(sensor(dg.build_sensor_context(instance=stack.instance, cursor=cursor)))


class Watched:
    """An inbox and the sensor that watches it."""

    def __init__(self, stack):
        self.stack = stack
        inbox = Path(stack.deployment.inbox.path)
        inbox.mkdir(exist_ok=True)
        self.folder = inbox / "prices"
        self.cursor = None

    def look(self):
        answer = ask(self.stack, self.cursor)
        self.cursor = answer.cursor
        return answer

    def look_twice(self):
        self.look()
        return self.look()

    def write(self, name, text):
        file = self.folder / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
        return file


def asked(answer):
    return [(one.job_name, one.partition_key) for one in answer.run_requests]


@pytest.fixture
def watched(stack_of):
    return Watched(stack_of())


def test_a_new_symbol_becomes_a_partition_and_gets_its_first_model(watched):
    file = watched.write("ACME.csv", "Date\n")
    first = watched.look()
    assert asked(first) == []
    assert "1 of 1 have new files" in first.skip_message
    answer = watched.look()
    assert asked(answer) == [(BUILD, "ACME")]
    (added,) = answer.dynamic_partitions_requests
    assert added.partition_keys == ["ACME"]
    assert answer.run_requests[0].run_config["ops"]["prices__data"]["config"] == {
        "path": str(file),
        "sha256": sha256_of([file]),
    }
    assert asked(watched.look_twice()) == []


def test_a_symbol_with_a_champion_is_forecast(watched):
    watched.stack.add("ACME")
    watched.write("ACME.csv", "Date\n")
    answer = watched.look_twice()
    assert asked(answer) == [(PREDICT, "ACME")]
    assert not answer.dynamic_partitions_requests


def test_a_file_that_is_being_written_is_left_alone(watched):
    for length in range(1, 5):
        watched.write("ACME.csv", "x" * length)
        assert asked(watched.look()) == []
    assert asked(watched.look()) == [(BUILD, "ACME")]


def test_new_content_counts_and_the_same_content_does_not(watched):
    file = watched.write("ACME.csv", "one")
    first = watched.look_twice().run_requests[0].run_key
    os.utime(file, (1, 1))
    again = watched.look_twice()
    assert asked(again) == []
    assert "same content" in again.skip_message
    file.rename(watched.folder / "away.part")
    watched.look_twice()
    watched.write("ACME.csv", "one")  # taken away and brought back
    assert asked(watched.look_twice()) == []
    watched.write("ACME.csv", "two")
    second = watched.look_twice().run_requests[0].run_key
    watched.write("ACME.csv", "one")  # these prices again, in place of later ones
    third = watched.look_twice().run_requests[0].run_key
    assert len({first, second, third}) == 3


def test_a_file_that_is_renamed_is_another_symbols(watched):
    file = watched.write("ACME.csv", "one")
    watched.look_twice()
    file.rename(watched.folder / "OTHER.csv")
    assert asked(watched.look_twice()) == [(BUILD, "OTHER")]


def test_all_files_of_a_folder_are_one_symbols_prices(watched):
    watched.write("ACME/2020.csv", "one")
    watched.write("ACME/2021.csv", "two")
    request = watched.look_twice().run_requests[0]
    files = [watched.folder / "ACME" / name for name in ("2020.csv", "2021.csv")]
    assert request.run_config["ops"]["prices__data"]["config"]["path"] == f"{watched.folder}/ACME/*.csv"
    assert request.run_config["ops"]["prices__data"]["config"]["sha256"] == sha256_of(files)
    watched.write("ACME/2022.csv", "three")
    assert asked(watched.look_twice()) == [(BUILD, "ACME")]


@pytest.mark.parametrize(
    "name",
    [".ACME.csv.Xq3", "ACME.csv.part", "ACME.csv~", "#ACME.csv#", "~$ACME.csv", "ACME.csv.crdownload", "ACME.csv.tmp"],
)
def test_what_editors_and_downloads_leave_for_a_moment_is_ignored(watched, name):
    watched.write(name, "x")
    assert "Nothing new" in watched.look_twice().skip_message


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["my prices.csv"], "its name is no symbol"),
        (["notes.txt"], "none of .csv, .csv.gz, .parquet"),
        (["ACME"], "nor a folder"),
        (["ACME.csv", "ACME.parquet"], "ACME.csv and ACME.parquet are ignored"),
        (["ACME.csv", "ACME/2020.csv"], "leave one of them"),
        (["ACME/2020.csv", "ACME/2021.parquet"], "files of .csv and .parquet"),
        (["ACME/notes.txt"], "no files of these yet"),
        (["ACME/2020.CSV"], "write .csv instead of .CSV"),
        (["ACME/2020.csv", "ACME/~$2020.csv"], "a program has it open"),
    ],
)
def test_what_cannot_be_used_is_said(watched, names, said):
    for name in names:
        watched.write(name, "x")
    answer = watched.look_twice()
    assert asked(answer) == []
    assert said in answer.skip_message


def test_other_things_that_can_lie_in_a_folder(stack_of):
    watched = Watched(stack_of(limits={"mebibytes": 1}))
    watched.write("EMPTY.csv", "")
    (watched.folder / "GONE.csv").symlink_to(watched.folder / "nothing")
    os.mkfifo(watched.folder / "PIPE.csv")
    watched.write("LARGE.csv", "x" * (2**20 + 1))
    watched.write("GOOD.csv.gz", "x" * 2**20)
    Path(os.fsdecode(os.fsencode(watched.folder) + b"/K\xfcrse.csv")).write_text("x")
    answer = watched.look_twice()
    assert asked(answer) == [(BUILD, "GOOD")]
    _, remarks = scan_inbox(watched.folder, watched.stack.deployment.limits, "symbol")
    assert [remark.split()[0] for remark in remarks] == ["EMPTY.csv", "K\\udcfcrse.csv", "LARGE.csv", "PIPE.csv"]
    assert "(MLOPS_LIMITS__MEBIBYTES)" in remarks[2]


def test_many_remarks_are_cut_short(watched):
    for number in range(30):
        watched.write(f"{number}.txt", "x")
    assert watched.look().skip_message.endswith("... and 20 more.")


def test_no_inbox(watched, stack_of):
    watched.look()  # makes the folder, so that people see where files go
    watched.folder.rmdir()
    watched.folder.parent.rmdir()
    assert f"make the folder {watched.folder}" in watched.look().skip_message
    assert "No inbox is watched" in ask(stack_of(inbox={"path": None})).skip_message


def test_the_cursor_is_small(watched):
    watched.stack.add("ACME")
    for number in range(200):
        watched.write(f"SYM{number}.csv", str(number))
    assert len(watched.look_twice().run_requests) == 200
    assert len(watched.cursor) < 200 * 40
    assert len(json.loads(watched.cursor)) == 200


def test_the_step_refuses_other_bytes_than_were_seen(price_file):
    seen = sha256_of([price_file])
    load = load_function(shipped("stock_price"), "..prices.data:load")
    frame = load("ACME", path=str(price_file), sha256=seen.upper())
    assert len(frame) == 400
    price_file.write_text(price_file.read_text() + "\n")
    with pytest.raises(SourceError, match="has changed since it was seen"):
        load("ACME", path=str(price_file), sha256=seen)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        load("ACME", path=str(price_file), sha256="abc")
    with pytest.raises(ValueError, match="belongs to source 'files'"):
        load("GSPC", sha256=seen)


def test_who_watches_the_inbox(stack_of):
    stack = stack_of()
    assert inbox_sensor(stack.model, stack.deployment, jobs_of(stack.model)).name == "inbox"
    article = OfModel(shipped("article"))  # the gate keeps it out: each file would build it again
    assert inbox_sensor(article, stack.deployment, jobs_of(article)) is None
