"""`mlops predict`, `mlops report` and `mlops serve` of a model that forecasts, the server as a process of its own."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from mlops_dagster.session import Session
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = pytest.mark.examples

SMALL = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5", "--no-beat-baseline")


@pytest.mark.slow
def test_a_champion_predicts_and_is_served(mlops, home, tmp_path, price_file, monkeypatch):
    where = ("--symbol", "ACME", "--path", str(price_file))
    done = mlops("predict", *where)
    assert done.returncode == 1
    assert "stock_price of ACME has no champion" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ACME has no champion" in mlops("serve", "-s", "ACME", "--port", str(free_port())).stderr
    assert mlops("build-model", *where, *SMALL).returncode == 0

    done = mlops("predict", *where, "--catch-up", "5", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "predict_pipeline"
    (pipeline,) = (one for one in pipelines_of(shipped("stock_price")) if one.name == said["pipeline"])
    assert list(said["symbols"]["ACME"]) == [step.name for step in pipeline.steps]
    made = said["symbols"]["ACME"]["predictions"]
    assert made["rows_appended"] == 6
    assert said["symbols"]["ACME"]["prediction_quality"]["metrics"]["rows_scored"] == 5
    with Session.of("stock_price") as session:
        assert set(session.table("predictions", "ACME")["run_id"]) == {said["run_id"]}
        again = mlops("predict", *where)
        assert "Of 5 predictions the truth has come" in again.stdout
        assert session.store.current("predictions", "ACME").version == made["table"]["version"]
        newest = session.table("predictions", "ACME").iloc[-1]
    (reported,) = json.loads(mlops("report", "--json").stdout)["predictions"]
    assert (reported["model"], reported["partition"], reported["rows"]) == ("stock_price", "ACME", 6)
    done = mlops("report", "--html", "state.html")
    assert done.stdout.strip() == f"Written: {(tmp_path / 'state.html').as_uri()}"
    page = (tmp_path / "state.html").read_text()
    assert f"{newest['value']:,.5g}" in page
    assert "There was no champion before." in page  # champion and builds
    assert "Nothing yet. Search: mlops search-model" in page
    assert not re.search(r"(src|href)=.(?!data:)", page)  # it needs no server
    refused = mlops("report", "--html", "nowhere/state.html")
    assert (refused.returncode, "in a folder that exists" in refused.stderr) == (2, True)
    refused = mlops("predict", *where, "--interval", "1")
    assert refused.returncode == 2
    assert "interval=1.0 (float): give a number from 0.5 to 0.99" in " ".join(refused.stderr.split())

    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    for sent in (signal.SIGINT, signal.SIGTERM):
        serve_and_stop(tmp_path, newest, sent)


def serve_and_stop(tmp_path, newest, sent):
    port = free_port()
    command = ["-m", "mlops_dagster.cli", "serve", "--symbol", "ACME", "--port", str(port)]
    with running(command, log=tmp_path / "serve.log") as process, Session.of("stock_price") as session:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/ping"))
        model = session.champion("ACME")
        rows = session.table("training_set", "ACME")[list(model.feature_names_in_)].tail(7).reset_index(drop=True)
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
        # What the step says of the same rows, without who has run it and when.
        status, said = get(port, "forecast/ACME")
        assert (status, said["model"], said["model_version"]) == (200, "stock_price of ACME", newest["model_version"])
        (made,) = said["predictions"]
        assert made["Date"] == str(newest["Date"].date())
        for name in ("horizon", "current", "value", "lower", "upper", "interval"):
            assert made[name] == newest[name]
        (narrow,) = get(port, "forecast/ACME?interval=0.5")[1]["predictions"]
        assert (narrow["value"], narrow["interval"]) == (newest["value"], 0.5)
        assert newest["lower"] < narrow["lower"] < narrow["upper"] < newest["upper"]
        status, refused = get(port, "forecast/OTHER")
        assert (status, "only the champion of stock_price of ACME" in refused["message"]) == (404, True)
        assert get(port, "forecast/ACME?interval=1")[0] == get(port, "forecast/ACME?interval=0")[0] == 400
        status, about = get(port, "")
        assert f"curl --silent 'http://127.0.0.1:{port}/forecast/ACME?interval=0.5'" in about
        example = re.search(r"/invocations' .*--data '(.*)'", about)[1]
        assert post(port, json.loads(example))[0] == status == 200
        assert get(port, "ping", Host="evil.example")[0] == 403
        assert post(port, json.loads(example), Origin="http://evil.example")[0] == 403
        assert post(port, json.loads(example), **{"Content-Encoding": "gzip"})[0] == 415
        assert listens_on(process.pid) == {("127.0.0.1", port)}
        assert "can't be listened on" in refused_port(port, tmp_path)
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
