from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from mlops_dagster.modeling.recognition import Recognised, recognise


def recognised(*cells: Any, name: str = "c", text: bool = True) -> Recognised:
    return recognise(pd.DataFrame({name: pd.Series(cells, dtype=object)}), text=text)


@pytest.mark.parametrize(
    ("cells", "kind", "form"),
    [
        (("1", "2"), "integer", {}),
        (("1.0", "2.0"), "integer", {}),
        (("1.5", "-2e3"), "number", {}),
        (("1,5", "2"), "number", {"decimal": ","}),
        (("1.234,5", "2"), "number", {"decimal": ",", "thousands": "."}),
        (("1,234.5", "2"), "number", {"thousands": ","}),
        (("1'234.5", "2"), "number", {"thousands": "'"}),
        (("1 234,5", "2"), "number", {"decimal": ",", "thousands": " "}),
        (("01067", "80331"), "text", {}),
        (("12345678901234567890", "1"), "text", {}),
        (("1", "NA", "?"), "integer", {"missing": ["", "NA", "?"]}),
        (("1", "-"), "integer", {"missing": ["", "-"]}),
        (("a", "-"), "text", {}),
        (("a", "?"), "text", {"missing": ["", "?"]}),
        (("true", "FALSE"), "boolean", {}),
        (("yes", "no"), "text", {}),
        (("2024-12-31", "2024-01-01T10:00:00Z"), "date", {}),
        (("31.12.2024", "-"), "date", {"dates": {"c": "%d.%m.%Y"}, "missing": ["", "-"]}),
        (("12/31/2024", "01/02/2024"), "date", {"dates": {"c": "%m/%d/%Y"}}),
        (("31.12.2024 10:30", "01.01.2024 00:00"), "date", {"dates": {"c": "%d.%m.%Y %H:%M"}}),
        (("Dec 31, 2024", "Jan 1, 2025"), "date", {"dates": {"c": "%b %d, %Y"}}),
        (("20241231", "20250101"), "integer", {}),
        (("31.02.2024", "01.01.2024"), "text", {}),
        ((None, None), "text", {}),
    ],
)
def test_a_column_of_texts_is_recognised(cells: tuple[Any, ...], kind: str, form: dict[str, Any]) -> None:
    found = recognised(*cells)
    assert (found.types["c"], found.form) == (kind, form)


def test_numbers_of_eight_digits_are_days_if_the_column_says_so() -> None:
    found = recognised("20241231", "20250101", name="Datum")
    assert (found.types, found.form) == ({"Datum": "date"}, {"dates": {"Datum": "%Y%m%d"}})
    assert found.frame["Datum"][0] == pd.Timestamp("2024-12-31")


def test_what_nobody_can_know_is_said() -> None:
    found = recognised("01/02/2024", "05/02/2024")
    assert found.form == {"dates": {"c": "%d/%m/%Y"}}
    assert "may be written as %d/%m/%Y or %m/%d/%Y; it is read as %d/%m/%Y. If that is wrong" in found.notes[0]
    # In one of the two, the rows are in order.
    found = recognised("12/01/2023", "01/02/2024", "02/01/2024")
    assert found.form == {"dates": {"c": "%m/%d/%Y"}}
    assert "since the rows are in its order" in found.notes[0]
    (note,) = recognised("1.234", "5.678", "9.000").notes
    assert note.startswith("c: 1.234 is read as 1.234. If it means thousands")


def test_values_of_other_files_have_types_already() -> None:
    frame = pd.DataFrame(
        {
            "whole": [1.0, None],
            "number": [1.5, 2.0],
            "yes": [True, False],
            "day": pd.to_datetime(["2024-01-01", None]),
            "zone": pd.to_datetime(["2024-01-01", None], utc=True),
            "text": ["NA", "b"],
            "kind": pd.Categorical(["a", "b"]),
        }
    )
    found = recognise(frame, text=False)
    assert list(found.types.values()) == ["integer", "number", "boolean", "date", "date", "text", "text"]
    assert found.form == {}
