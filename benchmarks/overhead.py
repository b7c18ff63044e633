"""What an orchestrator costs: the same build_model_pipeline through each of them, side by side in one run.

python -m benchmarks.overhead [rounds]

The work is small on purpose (five shallow trees on the bundled S&P 500), so that what is left is the tool's own cost.
Each contender has a home of its own and one run before the first round; rounds take turns. Airflow takes part if
`make airflow` has made its environment (or the environment variable MLOPS_AIRFLOW_BIN names one).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil
import yaml

from mlops_dagster_tests.contracts import airflow
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev, dagster_dev
from mlops_dagster_tests.contracts.servers import BECOME, eventually, free_port, running

JOB, SYMBOL = "build_model_pipeline", "GSPC"
FOREST = {"max_depth": 4, "n_estimators": 5}
BIN = Path(sys.executable).parent

# The steps as plain functions, run as often as it is told in one process; prints the seconds of each time.
BARE = f"""
import sys, time, uuid
from mlops_dagster.session import Session
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.tracking import Origin

model = find_model("stock_price")
session = Session(load_deployment(), model, Origin("shell", str(uuid.uuid4()), None))
session.tracker.connect()
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    for step in pipelines_of(model)[0].steps:
        given = {FOREST} if step.name == "trained_model" else {{}}
        session.run(step.name, "{SYMBOL}", given)
    print(time.perf_counter() - began, flush=True)
"""
IN_PROCESS = f"""
import sys, time
import dagster as dg
from mlops_dagster.definitions import defs

config = {{"ops": {{"stock_price__trained_model": {{"config": {FOREST}}}}}}}
with dg.DagsterInstance.get() as instance:
    for _ in range(int(sys.argv[1])):
        job = defs.resolve_job_def("{JOB}")
        began = time.perf_counter()
        job.execute_in_process(config, instance=instance, partition_key="{SYMBOL}")
        print(time.perf_counter() - began, flush=True)
"""
# The same commands, with the collector as Python sets it.
COLLECTS_OFTEN = """
import sys
from mlops_dagster import process_settings

process_settings.collect_rarely = lambda: None
command = sys.argv.pop(1)
if command == "mlops":
    from mlops_dagster.cli import main
else:
    from dagster._cli import main
main()
"""


@dataclass(frozen=True)
class Times:
    """One run, in seconds: the whole, and until the first step, all steps, after the last, if the tool keeps times."""

    whole: float
    parts: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[], Times]


def environment(home: Path, **more: str) -> dict[str, str]:
    foreign = ("MLOPS_", "DAGSTER_", "AIRFLOW", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "MLOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), **more}


def called(command: list[str], env: Mapping[str, str], cwd: Path) -> tuple[float, float, str]:
    """Return when a command began and ended, in seconds since 1970, and what it said."""
    began = time.time()
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return began, ended, done.stdout


def warm(code: str, home: Path) -> Callable[[], Times]:
    """Return what runs code three times in one process, and takes the last, which has everything imported."""

    def run() -> Times:
        said = called([sys.executable, "-c", code, "3"], environment(home), home)[2]
        return Times(float(said.split()[-1]))

    return run


def command(arguments: list[str], home: Path) -> Callable[[], Times]:
    def run() -> Times:
        began, ended, _ = called(arguments, environment(home), home)
        return Times(ended - began)

    return run


def by_dagster(began: float, ended: float, home: Path) -> Times:
    """Return the times of the last run of a Dagster instance."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        (record,) = instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1)
        steps = instance.get_run_step_stats(record.dagster_run.run_id)
    assert record.dagster_run.is_success, home
    first = min(step.start_time for step in steps if step.start_time)
    last = max(step.end_time for step in steps if step.end_time)
    return Times(ended - began, (first - began, last - first, ended - last))


def dagster_command(home: Path, dagster: Sequence[str] = (str(BIN / "dagster"),)) -> Callable[[], Times]:
    config = home / "config.yaml"
    config.write_text(yaml.safe_dump({"ops": {"stock_price__trained_model": {"config": FOREST}}}))
    execute = [*dagster, "job", "execute", "-m", "mlops_dagster.definitions", "-j", JOB, "-c", str(config)]
    execute += ["--tags", json.dumps({"dagster/partition": SYMBOL})]

    def run() -> Times:
        began, ended, _ = called(execute, environment(home), home)
        return by_dagster(began, ended, home)

    return run


def launched(dev: DagsterDev, home: Path) -> Callable[[], Times]:
    def run() -> Times:
        began = time.time()
        run_id = dev.launch(JOB, {"stock_price__trained_model": {"config": FOREST}}, symbol=SYMBOL)
        assert dev.ended(run_id) == "SUCCESS", home
        return by_dagster(began, time.time(), home)

    return run


def by_airflow(began: float, ended: float, home: Path) -> Times:
    """Return the times of Airflow's last run, from its database."""
    with sqlite3.connect(f"file:{home}/airflow/airflow.db?mode=ro", uri=True) as database:
        (run_id,) = database.execute("SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1").fetchone()
        rows = database.execute(
            "SELECT start_date, end_date, state FROM task_instance WHERE run_id = ? AND dag_id = ?", (run_id, JOB)
        ).fetchall()
    assert {state for *_, state in rows} == {"success"}, (home, rows)
    first = min(_seconds(row[0]) for row in rows)
    last = max(_seconds(row[1]) for row in rows)
    return Times(ended - began, (first - began, last - first, ended - last))


def _seconds(text: str) -> float:
    read = datetime.fromisoformat(text)
    return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()


def airflow_environment(home: Path) -> dict[str, str]:
    return environment(home, **airflow.airflow_environment(home / "airflow"))


def airflow_test(home: Path) -> Callable[[], Times]:
    env = airflow_environment(home)
    for preparing in airflow.commands_that_prepare(home / "airflow"):
        called(preparing, env, home)
    test = [str(airflow.BIN / "airflow"), "dags", "test", JOB, "--conf", json.dumps({"symbol": SYMBOL, **FOREST})]

    def run() -> Times:
        began, ended, _ = called(test, env, home)
        return by_airflow(began, ended, home)

    return run


@contextmanager
def airflow_standalone(home: Path) -> Iterator[tuple[Callable[[], Times], int]]:
    """Yield what triggers a run over REST and waits for its end, and the process's id."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    env = airflow_environment(home) | {"AIRFLOW_PORT": str(port), "MLOPS_BIN": airflow.MLOPS}
    start = [*BECOME, str(airflow.BIN / "python"), str(airflow.PROJECT / "start.py")]
    with running(start, log=home / "airflow.log", env=env) as process:

        def ready() -> bool:
            assert process.poll() is None, (home / "airflow.log").read_text()
            return "Trigger a run" in (home / "airflow.log").read_text()

        eventually(ready)
        passwords = home / "airflow" / "simple_auth_manager_passwords.json.generated"
        admin = {"username": "admin", "password": json.loads(passwords.read_text())["admin"]}
        token = asked(f"{url}/auth/token", admin)["access_token"]

        def run() -> Times:
            began = time.time()
            runs = f"{url}/api/v2/dags/{JOB}/dagRuns"
            body = {"logical_date": None, "conf": {"symbol": SYMBOL, **FOREST}}
            made = asked(runs, body, token)["dag_run_id"].replace("+", "%2B")
            eventually(lambda: asked(f"{runs}/{made}", None, token)["state"] in ("success", "failed"))
            return by_airflow(began, time.time(), home)

        yield run, process.pid


def asked(url: str, body: object, token: str | None = None) -> dict[str, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=60) as answer:
        read: dict[str, str] = json.load(answer)
    return read


def memory(pid: int) -> tuple[float, int]:
    """Return the MiB that a process and all below it take (PSS: shared pages are shared out), and how many they are."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 2**20, len(processes)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    base = Path(tempfile.mkdtemp(prefix="overhead_"))
    try:
        with ExitStack() as opened:
            measure(base, rounds, opened)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def measure(base: Path, rounds: int, opened: ExitStack) -> None:
    def home(name: str) -> Path:
        made = base / name
        made.mkdir()
        called([str(BIN / "mlops"), "init"], environment(made), made)
        return made

    place = home("dev")
    dev = opened.enter_context(dagster_dev(place, env=environment(place)))
    build = ["build-model", "--symbol", SYMBOL, "--max-depth", "4", "--n-estimators", "5"]
    often = [sys.executable, "-c", COLLECTS_OFTEN]
    contenders = [
        Contender("the functions, warm", warm(BARE, home("warm"))),
        Contender("the functions, a new process", command([sys.executable, "-c", BARE, "1"], home("bare"))),
        Contender("`mlops build-model`", command([str(BIN / "mlops"), *build], home("shell"))),
        Contender("the same, collector as Python sets it", command([*often, "mlops", *build], home("shell_often"))),
        Contender("Dagster, `execute_in_process`, warm", warm(IN_PROCESS, home("in_process"))),
        Contender("Dagster, `job execute`", dagster_command(home("execute"))),
        Contender(
            "Dagster, `job execute`, collector as Python sets it",
            dagster_command(home("execute_often"), dagster=[*often, "dagster"]),
        ),
        Contender("Dagster, UI and daemon", launched(dev, place)),
    ]
    idle = {"dagster dev": dev.pid}
    if (airflow.BIN / "airflow").exists():
        scheduler, pid = opened.enter_context(airflow_standalone(home("airflow_scheduler")))
        contenders += [
            Contender("Airflow, `dags test`", airflow_test(home("airflow_test"))),
            Contender("Airflow, REST and scheduler", scheduler),
        ]
        idle["airflow standalone"] = pid
    else:
        print(f"No Airflow in {airflow.BIN}: `make -C airflow setup` makes it.")
    time.sleep(60)  # until what starts has settled
    print("| idle | MiB (PSS) | processes |\n| --- | --- | --- |")
    for name, pid in idle.items():
        size, count = memory(pid)
        print(f"| `{name}` | {size:.0f} | {count} |", flush=True)

    for contender in contenders:
        contender.run()
    times: dict[str, list[Times]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            times[contender.name].append(contender.run())
            print(contender.name, times[contender.name][-1], file=sys.stderr, flush=True)
    table(times)


def table(times: Mapping[str, list[Times]]) -> None:
    work = statistics.median(run.whole for run in times["the functions, warm"])
    print(f"\nThe work itself: {work:.2f} s; each figure is the median of {len(times['the functions, warm'])} runs.\n")
    print("| one run of four steps | s | beyond the work | until the first step | per step | after the last |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in times.items():
        whole = statistics.median(run.whole for run in runs)
        cells = [f"{whole:.1f}", f"{whole - work:.1f}"]
        if parts := [run.parts for run in runs if run.parts]:
            before, steps, after = map(statistics.median, zip(*parts, strict=True))
            cells += [f"{before:.1f}", f"{(steps - work) / 4:.1f}", f"{after:.1f}"]
        print(f"| {name} | {' | '.join(cells + [''] * (5 - len(cells)))} |", flush=True)


if __name__ == "__main__":
    main()
