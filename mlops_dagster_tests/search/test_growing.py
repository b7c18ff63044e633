import warnings

import numpy as np
import pytest

from mlops_dagster.search import SharedGridSearchCV
from mlops_dagster.search.growing import FORESTS


@pytest.mark.parametrize("forest", FORESTS, ids=lambda forest: forest.__name__)
def test_trees_grow_without_touching_the_filters_of_warnings(forest, monkeypatch):
    """Scikit-learn's own loop sets them anew for every tree, which holds up every other thread."""
    set_anew = []
    reset = warnings.resetwarnings
    monkeypatch.setattr(warnings, "resetwarnings", lambda: (set_anew.append(1), reset()))
    X = np.arange(40.0).reshape(20, 2)
    search = SharedGridSearchCV(forest(random_state=0), {"n_estimators": [3, 6]}, cv=2, refit=False)
    search.fit(X, np.arange(20) % 2)
    assert search.work_["trees_grown"] == 12
    assert not set_anew
