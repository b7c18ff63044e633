"""Two calls of a step that write the same table at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mlops_dagster.stack.store import Store

PATIENCE = 120  # seconds; of a machine that is busy with other tests


def both_at_once(root: str, table: str, step: Callable[[Store], Any]) -> list[Any]:
    """Call a step twice, each with a store of its own; both read before either writes the table. Return the reports."""
    both, reports, problems = threading.Barrier(2), [], []

    def run(store):
        try:
            reports.append(step(store))
        except Exception as error:  # noqa: BLE001 - shown below
            problems.append(error)

    stores = [Store(root), Store(root)]
    for one in stores:
        first = [True]

        def once(written, *arguments, first=first, one=one, **options):
            if written == table and first:
                first.clear()
                both.wait(PATIENCE)
            return Store.write(one, written, *arguments, **options)

        one.write = once
    threads = [threading.Thread(target=run, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    return reports
