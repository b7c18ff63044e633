"""Tests that share an expensive server run in one process, however many there are."""

import os

import pytest


@pytest.mark.xdist_group("groups")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_the_group_of_a_test_is_known(request):
    # With a pytest that xdist doesn't understand, groups are ignored without a word.
    assert request.node.nodeid.endswith("@groups")
