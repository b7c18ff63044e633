"""A model of prices as plain steps, on real tables and a real MLflow database."""

from pathlib import Path

from mlops_dagster.session import Session
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.tracking import Origin
from mlops_dagster.steps import rollback
from mlops_dagster.steps.functions import step_function

OWN = Path(__file__).parent / "defs"
TEST = Origin("test", "run-1", None)
SMALL = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}


class Stock:
    """A model in a home of its own, of one symbol's prices in a file.

    Parameters
    ----------
    file : Path
        The prices. None: those that come with the model.
    model : Declaration
        None: the tests' own.
    """

    def __init__(self, home, file=None, *, model=None, symbol="ACME"):
        self.model, self.symbol = model or find_model("stock_price", OWN), symbol
        self.session = Session(Deployment(home=home), self.model, TEST)
        self.store, self.tracker = self.session.store, self.session.tracker
        self.given = {} if file is None else {"path": str(file)}

    def run(self, step, given=None, *, inputs=None, progress=None):
        """Run a step as every tool does."""
        where = self.given if step == "data" else {}
        return self.session.run(step, self.symbol, {**where, **(given or {})}, inputs=inputs, progress=progress)

    def call(self, step, given, **tools):
        """Call a step's function with tools of one's own."""
        own = {"store": self.store, "tracker": self.tracker, "origin": TEST}
        return step_function(self.model, step)(self.model, self.symbol, given, **{**own, **tools})

    def prepare(self, given=None):
        """Make the data and the training set."""
        self.run("data")
        return self.run("training_set", given)

    def roll_back(self, version=None):
        """Bring an earlier champion back."""
        tools = {"store": self.store, "tracker": self.tracker, "origin": TEST, "model": self.model}
        return rollback(self.symbol, version, **tools)

    def read(self, table):
        """Read a table's rows as they are now."""
        return self.store.read(table, self.symbol)[0]

    def current(self, table):
        """Return the current version of a table."""
        return self.store.current(table, self.symbol)
