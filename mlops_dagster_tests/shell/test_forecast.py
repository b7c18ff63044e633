"""`mlops forecast` and `mlops serve` as users run them: as processes of their own."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from mlops_dagster import pipelines, steps
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running

SMALL = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-persistence")


def test_help_is_enough_to_learn_from(mlops):
    said = mlops("forecast", "--help").stdout
    for parameter in (*pipelines.PRICES.parameters, *pipelines.PRICE_FORECAST.parameters):
        assert f"--{parameter.name.replace('_', '-')}" in said
    assert "mlops forecast --symbol GSPC --interval 0.9" in " ".join(said.split())


@pytest.mark.slow
def test_a_champion_forecasts_and_is_served(mlops, home, tmp_path, price_file, monkeypatch):
    where = ("--symbol", "ACME", "--path", str(price_file))
    done = mlops("forecast", *where)
    assert done.returncode == 1
    assert "ACME has no champion" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ACME has no champion" in mlops("serve", "--symbol", "ACME", "--port", str(free_port())).stderr
    assert mlops("build-model", *where, *SMALL).returncode == 0

    done = mlops("forecast", *where, "--catch-up", "5", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "forecast_pipeline"
    assert list(said["symbols"]["ACME"]) == [step.name for step in pipelines.FORECAST.steps]
    made = said["symbols"]["ACME"]["price_forecast"]
    assert made["rows_appended"] == 6
    assert said["symbols"]["ACME"]["forecast_quality"]["metrics"]["days_scored"] == 5
    store = Store(home / "store")
    assert set(store.read("price_forecast", "ACME")[0]["run_id"]) == {said["run_id"]}
    again = mlops("forecast", *where)
    assert "5 scored days" in again.stdout
    assert store.current("price_forecast", "ACME").version == made["table"]["version"]
    shown = mlops("report")
    (newest,) = json.loads(mlops("report", "--json").stdout)["forecasts"]
    assert newest["forecast"] == made["metrics"]["forecast"]
    assert f"{newest['forecast']:#,.6g} for {newest['target_date']}" in shown.stdout
    done = mlops("report", "--html", "state.html")
    assert done.stdout.strip() == f"Written: {(tmp_path / 'state.html').as_uri()}"
    page = (tmp_path / "state.html").read_text()
    assert f"<span>{newest['forecast']:#,.6g}</span>" in page  # the forecast
    assert "<span>5 days are scored, 20 are needed.</span>" in page  # drift
    assert "has drifted most: " in page
    assert "<span>There was no champion before.</span>" in page  # champion and builds
    assert "Nothing yet. Search: mlops search-model" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", page)  # it needs no server
    refused = mlops("report", "--html", "nowhere/state.html")
    assert (refused.returncode, "in a folder that exists" in refused.stderr) == (2, True)
    refused = mlops("forecast", *where, "--interval", "1")
    assert refused.returncode == 2
    assert "interval=1.0 (float): give a number from 0.5 to 0.99" in " ".join(refused.stderr.split())

    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    for sent in (signal.SIGINT, signal.SIGTERM):
        serve_and_stop(home, tmp_path, store, newest, sent)


def serve_and_stop(home, tmp_path, store, newest, sent):
    port = free_port()
    command = ["-m", "mlops_dagster.cli", "serve", "--symbol", "ACME", "--port", str(port)]
    with running(command, log=tmp_path / "serve.log") as process:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/ping"))
        tracker = MlflowTracker("mlops_dagster", f"sqlite:///{home}/mlflow/mlflow.db", state_dir=home / "open_runs")
        model, _ = steps.load_champion("ACME", steps.Inputs("ACME", store), tracker.registry)
        frame, _ = store.read("training_set", "ACME")
        rows = frame[list(model.feature_names_in_)].tail(7).reset_index(drop=True)
        status, said = post(port, {"dataframe_split": rows.to_dict("split")})
        assert status == 200
        assert said["predictions"] == model.predict(rows).tolist()  # bit for bit
        assert len(set(said["predictions"])) > 1
        named = rows[sorted(rows)]
        assert post(port, {"dataframe_split": named.to_dict("split")})[1] == said  # columns by name, in any order
        for bad in (
            {"dataframe_split": rows.drop(columns="return_1d").to_dict("split")},
            {"dataframe_split": rows.astype(object).assign(return_1d="much").to_dict("split")},
            {"rows": []},
        ):
            status, refused = post(port, bad)
            assert (status, list(refused)) == (400, ["error_code", "message"])
        assert post(port, {"instances": [[1e-9] * 10] * 100_000})[0] == 413
        # What price_forecast said of the same prices, without the time at which it said so.
        status, forecast = get(port, "forecast/ACME?interval=0.5")
        assert status == 200
        assert (forecast["forecast"], forecast["interval"]) == (newest["forecast"], 0.5)
        assert newest["lower"] < forecast["lower"] < forecast["upper"] < newest["upper"]
        assert get(port, "forecast/ACME") == (200, {name: newest[name] for name in newest if name != "made_at"})
        assert get(port, "forecast/OTHER")[0] == 404
        assert get(port, "forecast/ACME?interval=1")[0] == 400
        status, about = get(port, "")
        example = re.search(r"/invocations' .*--data '(.*)'", about)[1]
        assert post(port, json.loads(example))[0] == status == 200
        assert get(port, "ping", Host="evil.example")[0] == 403
        assert post(port, json.loads(example), Origin="http://evil.example")[0] == 403
        assert post(port, json.loads(example), **{"Content-Encoding": "gzip"})[0] == 415
        assert listens_on(process.pid) == {("127.0.0.1", port)}
        taken = refused_port(port, tmp_path)
        assert "can't be listened on" in taken
        assert list((tmp_path / "scratch").iterdir()) == []
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(sent)
        process.wait(timeout=60)
        assert not psutil.wait_procs(children, timeout=20)[1]
    assert not answers(f"http://127.0.0.1:{port}/ping")
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


def post(port, body, **headers):
    return get(port, "invocations", json.dumps(body).encode(), **{"Content-Type": "application/json", **headers})


def get(port, path, body=None, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", body, headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def listens_on(pid):
    found = psutil.Process(pid).net_connections(kind="tcp")
    return {tuple(one.laddr) for one in found if one.status == psutil.CONN_LISTEN}


def refused_port(port, tmp_path):
    command = [sys.executable, "-m", "mlops_dagster.cli", "serve", "--symbol", "ACME", "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    return done.stderr
