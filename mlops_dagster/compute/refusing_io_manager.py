"""The IO manager of deployments whose steps run on Databricks: it refuses to carry values from step to step.

A step that the step launcher has sent away would keep its value in the cluster's temporary folder, report success, and
lose it with the cluster. Our steps hand over tables and models by the store and MLflow, and return nothing.
"""

from typing import Any, NoReturn

import dagster as dg

CURE = (
    "its steps run on Databricks and share nothing but the store. Write the value there and return a "
    "dg.MaterializeResult (see mlops_dagster/assets), or give this asset an IO manager of its own whose storage every "
    "machine can reach."
)


class RefusingIOManager(dg.IOManager):
    """Refuses every value, before it can be lost."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> NoReturn:
        """Refuse what a step returned."""
        raise dg.Failure(
            f"{context.step_key} returned a {type(obj).__name__}, but this deployment keeps no values: {CURE}",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> NoReturn:
        """Refuse what a step asked for."""
        raise dg.Failure(
            f"input {context.name} asks for another step's value, but this deployment keeps none: {CURE}",
            allow_retries=False,
        )
