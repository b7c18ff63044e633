"""What a task's process runs: it makes the cluster's globals, then runs the task's file or entry point."""

import contextlib
import importlib
import importlib.metadata
import json
import re
import runpy
import signal
import sys
import traceback
from pathlib import Path

import dbruntime
import standin_dbutils
from sitecustomize import TASK


def die_with_server():
    """A server that is killed takes its tasks along (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def cluster_globals():
    found = {}
    if TASK["engine"] != "none":
        import standin_spark

        found.update(standin_spark.session(TASK))
    else:
        found.update(spark=None, sc=None)
    found["dbutils"] = standin_dbutils.DbUtils(TASK["root"])
    return found


def entry_point():
    """Find a wheel task's function: the entry point of that name, else the package's function of that name."""
    wanted = re.sub(r"[-_.]+", "-", TASK["package_name"]).lower()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if re.sub(r"[-_.]+", "-", name).lower() == wanted:
            for each in distribution.entry_points:
                if each.name == TASK["entry_point"]:
                    return each.load()
            break
    else:
        with contextlib.suppress(ModuleNotFoundError):
            return getattr(importlib.import_module(wanted.replace("-", "_")), TASK["entry_point"])
        raise ModuleNotFoundError(f"Python wheel with name {TASK['package_name']} could not be found.")
    return getattr(importlib.import_module(wanted.replace("-", "_")), TASK["entry_point"])


def run(namespace):
    if TASK["kind"] == "python_wheel_task":
        function = entry_point()
        sys.argv = [TASK["entry_point"], *TASK["parameters"]]
        result = function()
        if isinstance(result, int) and result:  # as a console script's exit code
            sys.exit(result)
    else:
        sys.argv = [TASK["python_file"], *TASK["parameters"]]
        runpy.run_path(TASK["python_file"], init_globals=namespace, run_name="__main__")


def report(error, trace):
    Path(TASK["error_file"]).write_text(json.dumps({"error": error, "error_trace": trace}))


def main():
    die_with_server()
    code, namespace = 0, {}
    try:
        namespace.update(cluster_globals())
        dbruntime.UserNamespaceInitializer.namespace.update(namespace)
        run(namespace)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code:
            if not isinstance(end.code, int):
                print(end.code, file=sys.stderr)
            report(f"SystemExit: {end.code}", traceback.format_exc())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the run's outcome
        code = 1
        traceback.print_exc()
        report(f"{type(error).__name__}: {error}", traceback.format_exc())
    sys.stdout.flush()
    sys.stderr.flush()
    if namespace.get("spark") is not None:
        with contextlib.suppress(Exception):
            namespace["spark"].stop()
    sys.exit(code)


if __name__ == "__main__":
    main()
