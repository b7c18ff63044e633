"""An Asset Bundle's jobs as Databricks' own command sends them."""

from __future__ import annotations

import json
from typing import Any


def jobs_of(made: dict[str, Any], wheel: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the jobs with the variables' values, and, if one was uploaded, the wheel's path for its pattern."""
    text = json.dumps(made["resources"]["jobs"])
    for name, variable in made["variables"].items():
        text = text.replace(f"${{var.{name}}}", json.dumps(variable["default"])[1:-1])
    assert "${" not in text
    jobs: dict[str, dict[str, Any]] = json.loads(text if wheel is None else text.replace("./dist/*.whl", wheel))
    return jobs
