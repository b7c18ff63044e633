"""What every store has to do, whatever it lies on: one suite, inherited by each backend (`stack/test_store.py`)."""

from __future__ import annotations

import datetime as dt
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.stack.frames import frame_digest
from mlops_dagster.stack.store import Overtaken, Store, StoreError, TableNotFound, TableVersion

SYMBOLS = ["0700.HK", "A", "BRK-B", "EURUSD=X", "GSPC", "Z" * 32, "^GSPC", "_".join("abc"), "x^y"]


def every_type(rows: int = 5) -> pd.DataFrame:
    """One column per type that a store keeps, with something missing wherever a type has that."""
    day = pd.date_range("2020-01-01", periods=rows, freq="D", unit="us")
    return pd.DataFrame(
        {
            "Date": day.where(np.arange(rows) != 1),
            "second": day.astype("datetime64[s]").astype("datetime64[us]"),
            "price": np.where(np.arange(rows) == 2, np.nan, np.arange(rows) / 3),
            "single": np.arange(rows, dtype="float32") / 7,
            "infinite": np.where(np.arange(rows) == 0, np.inf, -0.0),
            "count": np.arange(rows, dtype="int64") - 2**62,
            "small": np.arange(rows, dtype="int8"),
            "flag": np.arange(rows) % 2 == 0,
            "split": pd.Series(["trän", None, "", "test\n", "日本"] * (rows // 5 + 1), dtype=object)[:rows],
            "Adj Close": 1.0,
        }
    )


def constant(value: int, rows: int) -> pd.DataFrame:
    """A table that shows at a glance whether it is whole: the same value `rows` times."""
    return pd.DataFrame({"value": np.full(rows, value), "row": np.arange(rows)})


def write_several(root: str, options: Mapping[str, str], symbol: str, writer: int, times: int) -> list[TableVersion]:
    """In a process of its own: write the table several times, each time other content."""
    store = Store(root, options)
    return [
        store.write("prices", symbol, constant(1000 * writer + number, rows=10 + writer), metadata={"by": str(writer)})
        for number in range(times)
    ]


class StoreContract:
    """Subclasses give a `root` and its `options`; everything else is the same for all of them."""

    takes_turns = True
    """Whether of two commits at the same moment the second one is always refused, and so tried again."""

    @pytest.fixture
    def root(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def options(self) -> Mapping[str, str]:
        return {}

    @pytest.fixture
    def store(self, root: str, options: Mapping[str, str]) -> Store:
        return Store(root, options)

    @pytest.fixture
    def writers(self) -> Iterator[ProcessPoolExecutor]:
        if not self.takes_turns:
            pytest.skip("simultaneous writers may replace each other's versions here")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with ProcessPoolExecutor(8, context) as pool:
            yield pool

    # ------------------------------------------------------------------------------------------ write, read, versions

    def test_a_frame_comes_back_as_it_was(self, store: Store) -> None:
        frame = every_type()
        before = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
        written = store.write("prices", "GSPC", frame, metadata={"origin": "a test, 日本"})
        read, version = store.read("prices", "GSPC")
        pd.testing.assert_frame_equal(read, frame)
        assert version == written
        assert (version.table, version.symbol, version.version, version.rows) == ("prices", "GSPC", 0, 5)
        assert version.metadata == {"origin": "a test, 日本"}
        assert version.uri.startswith(store.root)
        assert before <= version.written_at <= dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=1)

    def test_the_digest_is_that_of_the_frame_wherever_it_lies(self, store: Store) -> None:
        version = store.write("prices", "GSPC", every_type())
        assert version.digest == frame_digest(every_type())
        assert version.digest == "507210fb08754c6338751b549322c3b24f56e79173cc425382367e38093d5dbd"

    def test_an_empty_frame_keeps_its_columns(self, store: Store) -> None:
        store.write("prices", "GSPC", every_type().head(0))
        read, version = store.read("prices", "GSPC")
        pd.testing.assert_frame_equal(read, every_type().head(0))
        assert version.rows == 0

    def test_the_same_again_writes_nothing(self, store: Store) -> None:
        first = store.write("prices", "GSPC", every_type(), metadata={"a": "1"})
        again = store.write("prices", "GSPC", every_type(), metadata={"a": "1"})
        assert again == first == store.current("prices", "GSPC")
        assert store.history("prices", "GSPC") == [first]

    def test_other_content_or_metadata_is_a_new_version(self, store: Store) -> None:
        first = store.write("prices", "GSPC", every_type())
        second = store.write("prices", "GSPC", every_type(), metadata={"a": "1"})
        third = store.write("prices", "GSPC", every_type(6), metadata={"a": "1"})
        assert [first.version, second.version, third.version] == [0, 1, 2]
        assert first.digest == second.digest != third.digest
        assert store.history("prices", "GSPC") == [first, second, third]
        assert store.current("prices", "GSPC") == third

    def test_old_versions_stay_readable_when_columns_change(self, store: Store) -> None:
        frames = [every_type(), pd.DataFrame({"price": ["now", "text"]}), pd.DataFrame({"new": [1.0]})]
        for frame in frames:
            store.write("prices", "GSPC", frame)
        for number, frame in enumerate(frames):
            read, version = store.read("prices", "GSPC", version=number)
            pd.testing.assert_frame_equal(read, frame)
            assert (version.version, version.digest) == (number, frame_digest(frame))
        pd.testing.assert_frame_equal(store.read("prices", "GSPC")[0], frames[-1])

    def test_going_back_to_old_content_is_a_new_version(self, store: Store) -> None:
        versions = [store.write("prices", "GSPC", constant(value, 3)).version for value in (1, 2, 1)]
        assert versions == [0, 1, 2]

    def test_rows_keep_their_order_beyond_one_row_group(self, store: Store) -> None:
        frame = pd.DataFrame({"row": np.random.default_rng(0).permutation(1_200_000)})
        store.write("prices", "GSPC", frame)
        pd.testing.assert_frame_equal(store.read("prices", "GSPC")[0], frame)

    # -------------------------------------------------------------------------------------------------- names, absence

    def test_every_symbol_has_its_own_table(self, store: Store) -> None:
        for number, symbol in enumerate(SYMBOLS):
            store.write("prices", symbol, constant(number, 2))
        assert store.symbols("prices") == sorted(SYMBOLS)
        for number, symbol in enumerate(SYMBOLS):
            frame, version = store.read("prices", symbol)
            assert (frame["value"].tolist(), version.symbol, version.version) == ([number] * 2, symbol, 0)

    def test_every_table_is_its_own(self, store: Store) -> None:
        store.write("prices", "GSPC", constant(1, 2))
        store.write("training_set", "GSPC", constant(2, 2))
        assert store.read("prices", "GSPC")[0]["value"].tolist() == [1, 1]
        assert store.symbols("training_set") == ["GSPC"]
        assert store.symbols("price") == []

    @pytest.mark.parametrize("symbol", ["", "../x", "/x", "a,b", "a..b", "x" * 300, "a/b", "@GSPC", None, 1])
    def test_a_bad_symbol_is_refused(self, store: Store, symbol: str) -> None:
        for use in (store.read, store.current, store.history):
            with pytest.raises(ParameterError, match="partition="):
                use("prices", symbol)
        with pytest.raises(ParameterError, match="partition="):
            store.write("prices", symbol, every_type())

    @pytest.mark.parametrize("table", ["", "../x", "a b", "_delta_log", "a/b", "x" * 65, None])
    def test_a_bad_table_name_is_refused(self, store: Store, table: str) -> None:
        with pytest.raises(ParameterError, match="table="):
            store.write(table, "GSPC", every_type())
        with pytest.raises(ParameterError, match="table="):
            store.symbols(table)

    def test_what_is_absent_is_said_to_be(self, store: Store) -> None:
        assert store.current("prices", "GSPC") is None
        assert store.history("prices", "GSPC") == []
        assert store.symbols("prices") == []
        with pytest.raises(TableNotFound, match=r"no table 'prices' of 'GSPC' below .*: none yet\. Run the step"):
            store.read("prices", "GSPC")
        store.write("prices", "IXIC", every_type())
        with pytest.raises(TableNotFound, match=r"'GSPC' below .* there is one of: IXIC\."):
            store.read("prices", "GSPC")

    @pytest.mark.parametrize("version", [2, -1, True, "0", 10**9])
    def test_an_absent_version_is_said_to_be(self, store: Store, version: int) -> None:
        store.write("prices", "GSPC", constant(1, 1))
        store.write("prices", "GSPC", constant(2, 1))
        with pytest.raises(TableNotFound, match=rf"no version={version!r}\. Choose one of the last: 0, 1\."):
            store.read("prices", "GSPC", version=version)

    # ------------------------------------------------------------------------------------------------- other programs

    def test_commits_of_other_programs_are_no_versions(self, store: Store, options: Mapping[str, str]) -> None:
        import deltalake
        import pyarrow as pa

        first = store.write("prices", "GSPC", constant(1, 3))
        rows = pa.table({"value": [9], "row": [9]})
        deltalake.write_deltalake(first.uri, rows, mode="append", storage_options=dict(options))
        assert store.current("prices", "GSPC") == first
        assert len(store.read("prices", "GSPC")[0]) == 3
        with pytest.raises(TableNotFound, match="no version=1"):
            store.read("prices", "GSPC", version=1)
        second = store.write("prices", "GSPC", constant(2, 3))
        assert second.version == 2
        assert store.history("prices", "GSPC") == [first, second]
        assert store.read("prices", "GSPC")[0]["value"].tolist() == [2, 2, 2]

    def test_a_vacuum_deletes_nothing_unless_it_is_forced(self, store: Store, options: Mapping[str, str]) -> None:
        import deltalake

        for value in (1, 2, 3):
            uri = store.write("prices", "GSPC", constant(value, 3)).uri
        delta = deltalake.DeltaTable(uri, storage_options=dict(options))
        assert delta.vacuum(dry_run=False, full=True) == []
        with pytest.raises(deltalake.exceptions.DeltaError, match="minimum retention"):
            delta.vacuum(retention_hours=168, dry_run=False, full=True)  # what other tables allow
        assert [store.read("prices", "GSPC", version=number)[1].version for number in range(3)] == [0, 1, 2]

    def test_a_delta_table_of_somebody_else_is_left_alone(self, store: Store, options: Mapping[str, str]) -> None:
        import deltalake
        import pyarrow as pa

        uri = f"{store.root}/prices/GSPC"
        deltalake.write_deltalake(uri, pa.table({"theirs": [1]}), storage_options=dict(options))
        for use in (store.read, store.current):
            with pytest.raises(StoreError, match=r"didn't write. Move it away"):
                use("prices", "GSPC")
        with pytest.raises(StoreError, match="didn't write"):
            store.write("prices", "GSPC", every_type())
        assert deltalake.DeltaTable(uri, storage_options=dict(options)).version() == 0

    def test_a_write_that_was_overtaken_writes_nothing(self, store: Store) -> None:
        first = store.write("prices", "GSPC", constant(1, 10), replacing="nothing")
        with pytest.raises(Overtaken, match="at version 0 now, not at None"):
            store.write("prices", "GSPC", constant(2, 10), replacing="nothing")
        second = store.write("prices", "GSPC", constant(2, 10), replacing=first)
        for frame in (constant(3, 10), constant(2, 10)):  # other content, and the same
            with pytest.raises(Overtaken, match="at version 1 now, not at 0"):
                store.write("prices", "GSPC", frame, replacing=first)
        assert store.history("prices", "GSPC") == [first, second]

    # --------------------------------------------------------------------------------------------- several at the time

    @pytest.mark.slow
    def test_eight_processes_create_the_same_table(
        self, store: Store, root: str, options: Mapping[str, str], writers: ProcessPoolExecutor
    ) -> None:
        self._check_writers(store, root, options, writers, count=8, times=1)

    @pytest.mark.slow
    def test_several_processes_write_the_same_table(
        self, store: Store, root: str, options: Mapping[str, str], writers: ProcessPoolExecutor
    ) -> None:
        self._check_writers(store, root, options, writers, count=4, times=4)

    def _check_writers(
        self,
        store: Store,
        root: str,
        options: Mapping[str, str],
        writers: ProcessPoolExecutor,
        count: int,
        times: int,
    ) -> None:
        jobs = [writers.submit(write_several, root, options, "GSPC", writer, times) for writer in range(count)]
        written = [version for job in jobs for version in job.result()]
        history = store.history("prices", "GSPC")
        # Each write is one version, no two share one, and none is missing.
        assert sorted(written, key=lambda one: one.version) == history
        assert [one.version for one in history] == list(range(count * times))
        for one in history:
            frame = store.read("prices", "GSPC", version=one.version)[0]
            writer = int(one.metadata["by"])
            assert len(frame) == 10 + writer
            assert frame["value"].nunique() == 1
            assert frame["value"].iloc[0] // 1000 == writer
        assert store.current("prices", "GSPC") == history[-1]

    @pytest.mark.slow
    def test_other_symbols_are_never_in_the_way(
        self, store: Store, root: str, options: Mapping[str, str], writers: ProcessPoolExecutor
    ) -> None:
        jobs: dict[str, Future[list[TableVersion]]] = {
            f"S{writer}": writers.submit(write_several, root, options, f"S{writer}", writer, 3) for writer in range(8)
        }
        for symbol, job in jobs.items():
            assert [one.version for one in job.result()] == [0, 1, 2]
            assert store.history("prices", symbol) == job.result()
        assert store.symbols("prices") == sorted(jobs)

    def test_threads_share_a_store(self, store: Store) -> None:
        if not self.takes_turns:
            pytest.skip("simultaneous writers may replace each other's versions here")

        def write(value: int) -> TableVersion:
            return store.write("prices", "GSPC", constant(value, 10 + value))

        with ThreadPoolExecutor(6) as pool:
            written = list(pool.map(write, range(6)))
        assert sorted(written, key=lambda one: one.version) == store.history("prices", "GSPC")
        for one in written:
            frame = store.read("prices", "GSPC", version=one.version)[0]
            assert set(frame["value"]) == {len(frame) - 10}

    def test_of_several_that_replace_the_same_version_one_succeeds(self, store: Store) -> None:
        if not self.takes_turns:
            pytest.skip("simultaneous writers may replace each other's versions here")
        start = store.write("prices", "GSPC", constant(0, 10))

        def write(value: int) -> TableVersion | None:
            try:
                return store.write("prices", "GSPC", constant(value, 10), replacing=start)
            except Overtaken:
                return None

        with ThreadPoolExecutor(6) as pool:
            written = [version for version in pool.map(write, range(1, 7)) if version]
        assert [start, *written] == store.history("prices", "GSPC")
        assert len(written) == 1

    def test_readers_see_whole_versions_while_somebody_writes(self, store: Store) -> None:
        store.write("prices", "GSPC", constant(0, 1000))
        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(lambda: [store.write("prices", "GSPC", constant(n, 1000 + n)) for n in range(1, 15)])
            while not writer.done():
                frame, version = store.read("prices", "GSPC")
                assert set(frame["value"]) == {version.version}
                assert len(frame) == 1000 + version.version
            writer.result()
