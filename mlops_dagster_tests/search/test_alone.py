"""The search stands alone: the README's example runs where scikit-learn and what that needs is all there is."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions

NEEDED = {"cloudpickle", "joblib", "narwhals", "numpy", "scipy", "sklearn", "threadpoolctl"}
OTHERS = {*packages_distributions()} - NEEDED - {"mlops_dagster"}

class Alone(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top, _, below = name.partition(".")
        if top in OTHERS or top == "mlops_dagster" and below.partition(".")[0] not in ("", "search"):
            raise ModuleNotFoundError(name, name=name)

assert "dagster" in OTHERS and "pandas" in OTHERS
sys.meta_path.insert(0, Alone())
from sklearn.datasets import make_regression
X, y = make_regression(60, 4, random_state=0)
"""


def test_the_example_of_the_readme(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?SharedGridSearchCV.*?)```", readme, re.DOTALL)
    assert "100, 300, 1000" in example
    program = PROGRAM + example.replace("100, 300, 1000", "2, 3, 10")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "27 candidates" in ran.stdout
    assert "'max_depth': 80" in ran.stdout
