"""Short ways for tests to submit a script, and to build a wheel."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from mlops_dagster_tests.contracts.workspace import Workspace

CLUSTER = "0000-000000-standin"
NEW = {"spark_version": "16.4.x-scala2.13", "node_type_id": "small", "num_workers": 1}
ENVIRONMENT = {"environment_key": "e", "spec": {"environment_version": "3"}}


def script_body(
    ws: Workspace, script: str, *parameters: str, run: dict[str, Any] | None = None, **task: Any
) -> dict[str, Any]:
    file = ws.dbfs / "scripts" / f"{hashlib.sha256(script.encode()).hexdigest()[:12]}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(script)
    definition = {"python_file": f"dbfs:/scripts/{file.name}", "parameters": list(parameters)}
    where = {} if "new_cluster" in task or "environment_key" in task else {"existing_cluster_id": CLUSTER}
    return {"tasks": [{"task_key": "main", "spark_python_task": definition, **where, **task}], **(run or {})}


def submit(ws: Workspace, body: dict[str, Any]) -> int:
    return int(ws.call("POST", "/api/2.2/jobs/runs/submit", body)["run_id"])


def states(run: dict[str, Any]) -> tuple[str, str | None]:
    return run["state"]["life_cycle_state"], run["state"].get("result_state")


def wheel(folder: Path, name: str, code: str, entry_points: str = "", version: str = "1.0") -> Path:
    """Build a wheel with one module, the way a build tool does."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    content = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry_points}\n"
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    file = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return file
