"""Splits of row numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_dagster.ml.splits import chronological_split, shuffled_split


@given(rows=st.integers(10, 500), test_size=st.floats(0.05, 0.5), gap=st.integers(0, 60))
def test_a_chronological_split_has_train_then_gap_then_test(rows, test_size, gap):
    split = chronological_split(rows, test_size=test_size, gap=gap)
    assert split.test[-1] == rows - 1
    assert len(split.test) == np.ceil(rows * test_size)
    assert np.array_equal(split.test, np.arange(split.test[0], rows))
    if len(split.train):
        assert np.array_equal(split.train, np.arange(split.test[0] - gap))
    else:
        assert split.test[0] <= gap


def test_a_shuffled_split_has_every_row_once():
    split = shuffled_split(100, test_size=0.33, seed=42)
    assert sorted([*split.train, *split.test]) == list(range(100))
    assert len(split.test) == 33


@pytest.mark.parametrize("seed", [0, 42])
def test_a_shuffled_split_is_the_seeds(seed):
    first, again = (shuffled_split(100, test_size=0.33, seed=seed) for _ in range(2))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, shuffled_split(100, test_size=0.33, seed=seed + 1).train)
