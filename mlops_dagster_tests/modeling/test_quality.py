import pandas as pd

from mlops_dagster.modeling.quality import score
from mlops_dagster.spec.model import Declaration
from mlops_dagster_tests.modeling.test_contract import SAID


def test_rows_may_have_a_key_and_a_time_that_is_no_part_of_it() -> None:
    """A prediction then says which row it is of, and not when that was."""
    contract = {"id": {"type": "text"}, "day": {"type": "date"}, "x": {"type": "number"}, "y": {"type": "number"}}
    declaration = Declaration.model_validate({**SAID, "contract": contract, "key": ["id"], "time": "day"})
    made = pd.Timestamp("2024-01-01")
    rows = {"id": ["b", "a"], "value": [2.0, 1.0], "made_at": made, "inputs_digest": "", "by": "", "run_id": ""}
    table = pd.DataFrame({"id": ["a", "b"], "day": made, "x": 0.0, "y": [1.5, 2.5]})
    scored = score(declaration, pd.DataFrame(rows), table)
    assert scored[["id", "truth", "error"]].to_numpy().tolist() == [["b", 2.5, -0.5], ["a", 1.5, -0.5]]
