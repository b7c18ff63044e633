"""A Dagster instance, a store and a deployment that no run has touched: what schedules and sensors look at."""

from contextlib import ExitStack

import dagster as dg
import pandas as pd
import pytest

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import store_of
from mlops_dagster_tests.contracts.stock import OWN


class Stack:
    """A model of prices, in a deployment below a folder, with an instance in memory."""

    def __init__(self, home, *, on_disk=False, **settings):
        self.home = home
        self.deployment = Deployment(home=home, **settings)
        self.model = OfModel(find_model("stock_price", OWN))
        self.store = store_of(self.deployment, self.model.declaration)
        (home / "instance").mkdir(exist_ok=True)
        # Schedules refuse one in memory.
        at = str(home / "instance")
        self.instance = dg.DagsterInstance.local_temp(at) if on_disk else dg.DagsterInstance.ephemeral()

    def add(self, *symbols, champion="1", origin="somewhere"):
        """Symbols with tables as a build leaves them, as far as anybody here asks."""
        self.instance.add_dynamic_partitions("prices_symbol", list(symbols))
        for symbol in symbols:
            self.store.write("data", symbol, pd.DataFrame({"AdjClose": [1.0]}), metadata={"origin": origin})
            texts = {"champion": champion, "model_digest": f"digest of {champion}"}
            decisions = {name: pd.Series([text], dtype=object) for name, text in texts.items()}
            decided = pd.DataFrame({**decisions, "promoted": [champion is not None]})
            self.store.write("champion_model", symbol, decided)


@pytest.fixture
def stack_of(tmp_path, no_settings):
    """Make a stack with some settings."""
    with ExitStack() as stacks:

        def make(**settings):
            stack = Stack(tmp_path, **settings)
            # Dagster remembers the instance that was made last, and fails once it was lost without a word.
            stacks.callback(stack.instance.dispose)
            return stack

        yield make
