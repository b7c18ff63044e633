"""What is known of a model's partitions: which have a champion, and of which the rows came through the inbox."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec.steps import ALL, DATA
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps import champion_of

_AT_ONCE = 8  # tables that are read; on an object store each takes a good part of a second


@dataclass(frozen=True)
class KnownPartition:
    """A partition of a model, and what schedules and sensors ask about it.

    Attributes
    ----------
    key : str, optional
        None is the whole of a model without partitions.
    has_champion : bool
        Whether there is a model to predict with.
    from_inbox : bool
        Whether its rows came as a file of the inbox. Where the declaration looks for them there are then none, or
        others.
    """

    key: str | None
    has_champion: bool
    from_inbox: bool


def known_partitions(
    model: OfModel, deployment: Deployment, instance: dg.DagsterInstance, keys: Sequence[str] | None = None
) -> list[KnownPartition]:
    """Look into the tables of a model's partitions.

    Parameters
    ----------
    keys : sequence of str, optional
        Which. Not given: all that Dagster knows.

    Raises
    ------
    StoreError
        If the store can't be read.
    """
    store, inbox, partitions = store_of(deployment, model.declaration), deployment.inbox.path, model.partitions
    asked: Sequence[str | None] = [None] if keys is None else keys
    if partitions is not None and keys is None:
        asked = partitions.get_partition_keys(dynamic_partitions_store=instance)

    def look(key: str | None) -> KnownPartition:
        rows = store.current(DATA, key or ALL)
        return KnownPartition(
            key,
            has_champion=champion_of(key or ALL, store) is not None,
            from_inbox=bool(inbox and rows and f"{inbox}/" in rows.metadata.get("origin", "")),
        )

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(look, asked))
