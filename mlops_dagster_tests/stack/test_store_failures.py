"""What a store does when the disk, the process or the log fails it: the versions before stay whole, and it says so."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import pytest

from mlops_dagster.stack.store import Damaged, Store, StoreError, TableNotFound
from mlops_dagster.steps.growing_tables import what_is_there
from mlops_dagster_tests.contracts.s3_server import S3, s3_server
from mlops_dagster_tests.contracts.servers import free_port
from mlops_dagster_tests.contracts.store_contract import constant

# Forked from a process that has only imported: a start takes milliseconds instead of seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["deltalake", "pandas", "pyarrow.parquet", __name__])


def in_process(job: Callable[..., None], *arguments: object) -> list[str]:
    """Run a job in a process of its own and return what it sent."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=job, args=(sender, *arguments))
    process.start()
    sender.close()
    messages = []
    while True:
        try:
            messages.append(receiver.recv())
        except EOFError:
            break
    process.join()
    assert process.exitcode == 0
    return messages


def log_of(uri: str, version: int) -> Path:
    return Path(uri, "_delta_log", f"{version:020d}.json")


def data_files(uri: str) -> list[Path]:
    return sorted(Path(uri).glob("*.parquet"))


# -------------------------------------------------------------------------------------------------------------- killed


def write_for_ever(sender: Connection, root: str, first: int) -> None:
    store = Store(root)
    for value in range(first, first + 10_000):
        store.write("prices", "GSPC", constant(value, 30_000 + value))
        sender.send(value)


def test_a_killed_writer_leaves_whole_versions_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    random_moments = random.Random(0)
    confirmed = 0
    for attempt in range(10):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=write_for_ever, args=(sender, str(tmp_path), 1000 * (attempt + 1)))
        process.start()
        sender.close()
        if attempt:  # the first one is killed somewhere around the creation of the table
            confirmed = receiver.recv()
        time.sleep(random_moments.uniform(0, 0.25))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        try:
            while True:
                confirmed = receiver.recv()
        except EOFError:
            pass
        current = store.current("prices", "GSPC")
        if current is None:
            assert attempt == 0
            assert not confirmed
            continue
        frame, _ = store.read("prices", "GSPC")
        value = frame["value"].iloc[0]
        assert set(frame["value"]) == {value}
        assert len(frame) == 30_000 + value
        # What was confirmed, or the one that was being confirmed.
        assert value in ((confirmed, confirmed + 1) if confirmed else (1000,))
    version = store.write("prices", "GSPC", constant(7, 7))
    assert store.read("prices", "GSPC")[0]["value"].tolist() == [7] * 7
    assert [one.version for one in store.history("prices", "GSPC")] == list(range(version.version + 1))


def test_the_next_write_works_after_one_was_killed_before_its_first_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    uri = Path(store.write("prices", "GSPC", constant(1, 3)).uri)
    shutil.rmtree(uri / "_delta_log")
    for leftover in ("nothing", "an empty log", "an unfinished commit"):
        if leftover != "nothing":
            (uri / "_delta_log").mkdir(exist_ok=True)
        if leftover == "an unfinished commit":
            (uri / "_delta_log" / "00000000000000000000.json#1").write_text('{"commitInfo":')
        assert store.current("prices", "GSPC") is None
        assert store.symbols("prices") == []
        with pytest.raises(TableNotFound):
            store.read("prices", "GSPC")
    assert store.write("prices", "GSPC", constant(2, 3)).version == 0
    assert store.read("prices", "GSPC")[0]["value"].tolist() == [2, 2, 2]


@pytest.mark.slow
def test_a_process_that_reads_and_writes_ends_well(tmp_path: Path) -> None:
    """Read as an Arrow dataset, about every eighth process was aborted at its end, after all of its work."""
    code = (
        "import sys, pandas; from mlops_dagster.stack.store import Store; store = Store(sys.argv[1])\n"
        "store.write('prices', 'GSPC', pandas.DataFrame({'a': [1]})); store.read('prices', 'GSPC')"
    )
    for _ in range(8):
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


# ----------------------------------------------------------------------------------------------------------- disk full


def write_with_limit(sender: Connection, root: str, symbol: str, rows: int, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        Store(root).write("prices", symbol, constant(2, rows))
    except StoreError as error:
        sender.send(str(error))


@pytest.mark.parametrize(("rows", "limit"), [(200_000, 20_000), (200_000, 0), (3, None)])
@pytest.mark.parametrize("symbol", ["GSPC", "NEW"])
def test_a_full_disk_leaves_the_version_before(tmp_path: Path, symbol: str, rows: int, limit: int | None) -> None:
    """No file may grow beyond the limit; with None, the data still fit, and the commit doesn't."""
    store = Store(tmp_path)
    before = store.write("prices", "GSPC", constant(1, 3))
    if limit is None:
        (data_file,) = data_files(before.uri)
        limit = data_file.stat().st_size + 50
        assert log_of(before.uri, 0).stat().st_size > limit + 300
    (message,) = in_process(write_with_limit, str(tmp_path), symbol, rows, limit)
    assert f"could not write {tmp_path}/prices/{symbol}: " in message
    assert "File too large" in message
    assert "Make room there; what was stored before is intact." in message
    assert store.current("prices", "GSPC") == before
    assert store.read("prices", "GSPC")[0]["value"].tolist() == [1, 1, 1]
    assert store.symbols("prices") == ["GSPC"]
    assert store.write("prices", symbol, constant(2, rows)).rows == rows


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_really_full_disk_leaves_the_version_before(tmp_path: Path) -> None:
    """A file system of 256 kB, mounted where only one process sees it."""
    code = f"""
import sys
import subprocess
from mlops_dagster.stack.store import Store, StoreError
from mlops_dagster_tests.contracts.store_contract import constant
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", {str(tmp_path)!r}], check=True)
store = Store({str(tmp_path)!r})
before = store.write("prices", "GSPC", constant(1, 3))
for symbol in ("GSPC", "NEW"):
    try:
        store.write("prices", symbol, constant(2, 200_000))
    except StoreError as error:
        print(error)
assert store.read("prices", "GSPC")[1] == before
assert store.symbols("prices") == ["GSPC"]
assert store.write("prices", "GSPC", constant(2, 30)).version == 1
"""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("mounting isn't allowed here")
    ended = subprocess.run([*unshare, sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("No space left on device") == 2
    assert ended.stdout.count("Make room there; what was stored before is intact.") == 2


# -------------------------------------------------------------------------------------------------- roots that are bad


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("data", "give an absolute path"),
        ("", "give an absolute path"),
        (None, "give an absolute path"),
        (Path("data"), "give an absolute path"),
        ("~/data", "give an absolute path"),
        ("file:///data", "give an absolute path"),
        ("/data/[1]", "can't lie below a path with one of"),
        ("/data/a%20b", "can't lie below a path with one of"),
        ("s3://bucket/^", "can't lie below a path with one of"),
    ],
)
def test_a_root_that_can_be_none_is_refused_at_once(root: str, words: str) -> None:
    with pytest.raises(StoreError, match=rf"root=.*{words}"):
        Store(root)


def test_a_store_reads_and_writes_nothing_before_it_is_used(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_root_is_said_to_be_one(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.touch()
    for use in every_use(Store(root)):
        with pytest.raises(StoreError, match=r"Not a directory.* A file is where a directory has to be"):
            use()


def test_an_unknown_kind_of_root_is_said_to_be_one() -> None:
    for use in every_use(Store("nowhere://bucket")):
        with pytest.raises(StoreError, match=r"Unknown scheme: nowhere.* Change the root"):
            use()


def every_use(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.write("prices", "GSPC", constant(1, 1)),
        lambda: store.read("prices", "GSPC"),
        lambda: store.current("prices", "GSPC"),
        lambda: store.history("prices", "GSPC"),
        lambda: store.symbols("prices"),
    ]


def use_without_rights(sender: Connection, root: str) -> None:
    if os.getuid() == 0:  # to whom nothing is forbidden
        os.setgid(65534)
        os.setuid(65534)
    for use in every_use(Store(root)):
        try:
            use()
        except StoreError as error:
            sender.send(str(error))


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """Yield a root whose rights the test takes away, in a place to which every user could come otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder, "store")


def test_a_root_that_may_not_be_read_is_said_to_be_one(forbidden: Path) -> None:
    Store(forbidden).write("prices", "GSPC", constant(1, 1))
    forbidden.chmod(0)
    messages = in_process(use_without_rights, str(forbidden))
    forbidden.chmod(0o755)
    assert len(messages) == 5
    for message in messages:
        assert "Permission denied" in message
        assert (
            "Give this user the right to use it, or set MLOPS_HOME or store.root to a folder that can be written."
            in message
        )


def test_a_root_that_may_not_be_written_can_be_read(forbidden: Path) -> None:
    store = Store(forbidden)
    before = store.write("prices", "GSPC", constant(2, 1))
    for directory, _, _ in os.walk(forbidden):
        Path(directory).chmod(0o555)
    (message,) = in_process(use_without_rights, str(forbidden))
    for directory, _, _ in os.walk(forbidden):
        Path(directory).chmod(0o755)
    assert message.startswith(f"could not write {forbidden}/prices/GSPC: ")
    assert (
        "Give this user the right to use it, or set MLOPS_HOME or store.root to a folder that can be written."
        in message
    )
    assert store.current("prices", "GSPC") == before


def test_a_root_that_may_not_be_made_is_said_to_be_one(forbidden: Path) -> None:
    forbidden.mkdir(0o555)
    (write_message, read_message) = in_process(use_without_rights, f"{forbidden}/below")
    assert "ermission" in write_message
    assert (
        "Give this user the right to use it, or set MLOPS_HOME or store.root to a folder that can be written."
        in write_message
    )
    assert "there is no table 'prices' of 'GSPC'" in read_message


def test_a_missing_bucket_is_named(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        for use in every_use(Store("s3://no-such-bucket/mlops", server.storage_options)):
            with pytest.raises(
                StoreError, match=r"s3://no-such-bucket/mlops.*NoSuchBucket.*Create the bucket"
            ) as caught:
                use()
            assert "test-secret" not in str(caught.value)
            assert "\n" not in str(caught.value)


def test_an_object_store_that_does_not_answer_is_named() -> None:
    options = {**S3(f"http://127.0.0.1:{free_port()}").storage_options, "max_retries": "1"}
    for use in every_use(Store("s3://bucket/mlops", options)):
        with pytest.raises(StoreError, match=r"s3://bucket/mlops.*error sending request"):
            use()


def test_secrets_are_never_shown() -> None:
    store = Store("s3://bucket/mlops", {"aws_secret_access_key": "hunter2"})
    assert repr(store) == "Store('s3://bucket/mlops')"


# ------------------------------------------------------------------------------------------- tables that were tampered


@pytest.mark.parametrize("damage", ["changed", "unreadable", "cut", "gone"])
def test_damaged_data_is_never_returned_and_the_cure_that_is_named_works(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    first = store.write("prices", "GSPC", constant(1, 3))
    (file_of_first,) = data_files(first.uri)
    second = store.write("prices", "GSPC", constant(2, 3))
    (file,) = set(data_files(first.uri)) - {file_of_first}
    whole = file.read_bytes()
    content = {"changed": file_of_first.read_bytes(), "unreadable": b"x" * len(whole), "cut": whole[:100], "gone": None}
    if content[damage] is None:
        file.unlink()
    else:
        file.write_bytes(content[damage])

    says = {"cut": f"has 100 bytes instead of {len(whole)}", "gone": "is gone"}.get(damage, "delete them and run")
    with pytest.raises(Damaged, match=rf"version 1 of .* isn't what was written: .*{says}.* makes prices again"):
        store.read("prices", "GSPC")
    assert store.read("prices", "GSPC", version=0)[0]["value"].tolist() == [1, 1, 1]
    if damage in ("changed", "unreadable"):
        file.unlink()
    anew = store.write("prices", "GSPC", constant(2, 3))
    assert (anew.version, anew.digest) == (2, second.digest)
    assert store.read("prices", "GSPC")[0]["value"].tolist() == [2, 2, 2]
    assert store.write("prices", "GSPC", constant(2, 3)) == anew


@pytest.mark.parametrize("damage", ["cut", "first commit missing"])
def test_a_damaged_log_is_said_to_be_one(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.write("prices", "GSPC", constant(1, 3))
    uri = store.write("prices", "GSPC", constant(2, 3)).uri
    if damage == "cut":
        log_of(uri, 1).write_text(log_of(uri, 1).read_text()[:200])
    else:
        log_of(uri, 0).unlink()
    for use in every_use(store)[:4]:
        with pytest.raises(StoreError, match=rf"could not open {uri}: .*log is damaged: restore it, or move") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_names_that_differ_by_case_only_are_told_apart_or_refused(tmp_path: Path) -> None:
    """What a disk does to which upper and lower case are the same, as on macOS and Windows."""
    store = Store(tmp_path)
    uri = Path(store.write("prices", "GSPC", constant(1, 3)).uri)
    if not uri.with_name("gspc").exists():
        uri.rename(uri.with_name("gspc"))
    for use in (lambda: store.read("prices", "gspc"), lambda: store.write("prices", "gspc", constant(1, 3))):
        with pytest.raises(StoreError, match=r"is the table of 'GSPC', not of 'gspc'.* Use one spelling"):
            use()


def test_symbols_ignores_what_is_no_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("prices", "GSPC", constant(1, 3))
    (tmp_path / "prices" / "EMPTY").mkdir()
    (tmp_path / "prices" / ".DS_Store").touch()
    (tmp_path / "prices" / "FILE").touch()
    (tmp_path / "prices" / "not a symbol").mkdir()
    assert store.symbols("prices") == ["GSPC"]


# ------------------------------------------------------------------------------------------------------ many versions


@pytest.mark.slow
def test_nothing_is_forgotten_over_many_versions(tmp_path: Path) -> None:
    """Delta makes a checkpoint every 100 commits, and by default cleans its log then."""
    store = Store(tmp_path)
    for value in range(205):
        uri = store.write("prices", "GSPC", constant(value, 2), metadata={"value": str(value)}).uri
    for version in range(200):  # as if all this had been long ago
        os.utime(log_of(uri, version), (0, 0))
    store.write("prices", "GSPC", constant(205, 2), metadata={"value": "205"})
    assert len(list(Path(uri, "_delta_log").glob("*.checkpoint.parquet"))) == 2
    history = store.history("prices", "GSPC")
    assert [(one.version, one.metadata["value"]) for one in history] == [(n, str(n)) for n in range(206)]
    for version in (0, 99, 100, 150, 205):
        assert store.read("prices", "GSPC", version=version)[0]["value"].tolist() == [version] * 2


def test_the_way_to_get_space_back_keeps_every_version(tmp_path: Path) -> None:
    """As the store's own text says it."""
    from deltalake import DeltaTable

    store = Store(tmp_path)
    for value in range(3):
        uri = store.write("prices", "GSPC", constant(value, 3)).uri
    orphan = shutil.copy(data_files(uri)[0], Path(uri, "part-00000-of-a-killed-writer.parquet"))
    for file in data_files(uri):
        os.utime(file, (0, 0))
    keep = [one.version for one in store.history("prices", "GSPC")]
    deleted = DeltaTable(uri).vacuum(24, dry_run=False, full=True, enforce_retention_duration=False, keep_versions=keep)
    assert deleted == [orphan.name]
    assert [store.read("prices", "GSPC", version=n)[0]["value"].tolist() for n in keep] == [[n] * 3 for n in range(3)]
    assert store.current("prices", "GSPC") == store.history("prices", "GSPC")[2]
    assert store.write("prices", "GSPC", constant(3, 3)).version > 3  # a vacuum makes commits of its own


def test_current_reads_no_data(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written = store.write("prices", "GSPC", constant(1, 3))
    for file in data_files(written.uri):
        file.unlink()
    assert store.current("prices", "GSPC") == written
    assert store.history("prices", "GSPC") == [written]


def test_what_a_version_is_stands_in_its_commit(tmp_path: Path) -> None:
    """Where `DESCRIBE HISTORY` shows it, and other programs can read it."""
    written = Store(tmp_path).write("prices", "^GSPC", constant(1, 3), metadata={"origin": "here"})
    assert written.uri == f"{tmp_path}/prices/@GSPC"
    commit = json.loads(log_of(written.uri, 0).read_text().splitlines()[0])["commitInfo"]
    entry = json.loads(commit["userMetadata"])["mlops_dagster"]
    assert entry == {"symbol": "^GSPC", "digest": written.digest, "rows": 3, "metadata": {"origin": "here"}}


@pytest.mark.parametrize(
    ("metadata", "words"), [({"a": 1}, r"metadata\['a'\]=1 \(int\)"), ({1: "a"}, r"metadata\[1\]")]
)
def test_metadata_has_to_be_text(tmp_path: Path, metadata: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=rf"{words}.* have to be texts"):
        Store(tmp_path).write("prices", "GSPC", pd.DataFrame({"a": [1]}), metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_grows_says_how_to_go_back_to_what_can_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "it's $HOME")
    for value in range(3):
        uri = store.write("champion_model", "GSPC", constant(value, 2)).uri
        if value == 0:
            whole = data_files(uri)
    for file in set(data_files(uri)) - set(whole):
        file.write_bytes(b"")
    with pytest.raises(Damaged, match=r"version 2 .* has 0 bytes instead of .* can't be made anew") as caught:
        what_is_there("champion_model", "GSPC", store)
    cure = re.search(r"back to version 0 .*: python -c (.*)", str(caught.value), re.DOTALL)
    assert cure is not None
    (code,) = shlex.split(cure[1])
    exec(code)
    assert what_is_there("champion_model", "GSPC", store)[0]["value"].tolist() == [0, 0]
