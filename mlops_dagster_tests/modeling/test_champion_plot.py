"""A champion's history can be read with one decision and with a hundred."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlops_dagster.modeling.champion_plot import champion_plot, to_png


def decisions(outcomes):
    """A history as the table champion_model has it: b(etter), n(ot better), x (not comparable), r(olled back)."""
    rows, champion = [], None
    for number, outcome in enumerate(outcomes, start=1):
        if outcome in "br":
            champion = str(number)
        errors = (90.0 + number % 7, 95.0 if number > 1 else np.nan, 93.0) if outcome in "bn" else (np.nan,) * 3
        rows.append(
            {
                "metric": "mean_squared_error",
                "decided_at": pd.Timestamp("2024-01-01") + pd.Timedelta(days=number),
                "champion": champion,
                "promoted": outcome in "br",
                "outcome": {"b": "better", "n": "not_better", "x": "not_comparable", "r": "rolled_back"}[outcome],
                **dict(zip(("challenger_score", "champion_score", "baseline_score"), errors, strict=True)),
            }
        )
    return pd.DataFrame(rows)


def texts(figure):
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    return [text.get_text() for text in figure.texts], names, [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("outcomes", ["b", "bn", "x", "bnbxrn", "bnnr" * 25, "b" * 130], ids=len)
def test_every_history_is_a_small_png_with_something_on_it(outcomes):
    png = to_png(champion_plot("ACME", decisions(outcomes)))
    assert len(png) < 18_000
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert pixels.shape[1] == 486
    assert (pixels > 235).mean() > 0.7
    assert (pixels < 100).mean() > 0.003


def test_it_says_who_is_champion_and_how_it_came_to_be():
    title, legend, versions = texts(champion_plot("ACME", decisions("bnbxr")))
    assert title == ["ACME: version 5 is the champion", "5 decisions, 3 changed the champion"]
    assert versions == ["v1", "v3", "v5"]
    assert legend == [
        "baseline",
        "champion before",
        "new model, promoted",
        "new model, kept out",
        "new model, not comparable",
        "rolled back",
    ]


def test_what_never_happened_is_not_in_the_legend():
    title, legend, _ = texts(champion_plot("ACME", decisions("b")))
    assert title[1] == "1 decision, 1 changed the champion"
    assert legend == ["baseline", "new model, promoted"]


def test_without_a_champion_it_says_so():
    assert texts(champion_plot("ACME", decisions("xx")))[0][0] == "ACME: no champion yet"


def test_of_many_decisions_the_last_are_drawn_and_names_do_not_cover_each_other():
    figure = champion_plot("ACME", decisions("b" * 130))
    title, _, versions = texts(figure)
    assert title[1].endswith("the last 100 are drawn")
    assert len(versions) < 25
    assert figure.axes[0].get_xlim()[0] > 30
