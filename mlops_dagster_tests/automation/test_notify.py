"""Telling people, by real HTTP and SMTP."""

import datetime as dt
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import ClassVar

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from mlops_dagster.sensors.failures import run_failed
from mlops_dagster.stack import notify
from mlops_dagster.stack.automation import NotifySettings
from mlops_dagster.stack.notify import Failure, tell
from mlops_dagster_tests.contracts.servers import free_port

FAILURE = Failure(
    job="build_model_pipeline",
    run_id="abc",
    symbol="ACME",
    step="prices",
    error="Close <= 0 & bad; tried postgresql://mlflow:hunter2@db/mlflow",
    dagster_url="http://127.0.0.1:3000/runs/abc",
    mlflow_url="http://127.0.0.1:5000/#/runs/1",
)


class Receiver(BaseHTTPRequestHandler):
    """Answers with the statuses that it is told to, the last one for ever."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, body))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        if status == "slow":
            time.sleep(3)
            status = 200
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(notify, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.statuses = [], [200]
    server.url = f"http://127.0.0.1:{server.server_port}/hunter2"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_a_webhook_gets_all_that_is_known(receiver):
    assert tell(FAILURE, NotifySettings(webhook_url=receiver.url)) == {}
    ((path, body),) = receiver.got
    assert path == "/hunter2"
    assert body == {
        "event": "run_failed",
        "title": "build_model_pipeline of ACME failed in prices",
        "job": "build_model_pipeline",
        "run_id": "abc",
        "symbol": "ACME",
        "step": "prices",
        "error": "Close <= 0 & bad; tried postgresql://***@db/mlflow",
        "dagster_url": FAILURE.dagster_url,
        "mlflow_url": FAILURE.mlflow_url,
    }


def test_slack_gets_what_it_can_show(receiver):
    assert tell(FAILURE, NotifySettings(slack_webhook_url=receiver.url)) == {}
    ((_, body),) = receiver.got
    assert body["text"] == "build_model_pipeline of ACME failed in prices"
    shown = body["blocks"][0]["text"]["text"]
    assert "Close &lt;= 0 &amp; bad" in shown
    assert "<http://127.0.0.1:3000/runs/abc|Dagster>" in shown
    assert "hunter2" not in json.dumps(body)


def test_long_errors_are_cut(receiver):
    long = Failure("job", "abc", None, None, "x" * 100_000, "http://127.0.0.1:3000/runs/abc")
    assert tell(long, NotifySettings(slack_webhook_url=receiver.url)) == {}
    assert len(receiver.got[0][1]["blocks"][0]["text"]["text"]) < 3000


@pytest.mark.parametrize(
    ("statuses", "posts", "problem"),
    [
        ([503, 200], 2, None),
        ([429, 200], 2, None),
        ([500], 2, "it answered 500, 2 times"),
        ([404], 1, "it answered 404; is its address still right?"),
        (["slow"], 2, "no answer within 1 seconds, 2 times"),
    ],
)
def test_trying_again(receiver, monkeypatch, statuses, posts, problem):
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 1.0)
    receiver.statuses = statuses
    problems = tell(FAILURE, NotifySettings(webhook_url=receiver.url))
    assert problems == ({"webhook_url": problem} if problem else {})
    assert len(receiver.got) == posts


def test_one_that_is_down_does_not_keep_the_others_from_being_told(receiver):
    problems = tell(FAILURE, NotifySettings(webhook_url="http://127.0.0.1:1/hunter2", slack_webhook_url=receiver.url))
    assert problems == {"webhook_url": "it can't be reached (Connection refused), 2 times"}
    assert len(receiver.got) == 1


# ------------------------------------------------------------------------------------------------------------ mail


class Mailbox:
    """Keeps the mails, and takes one user name with one password."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append(envelope)
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, login):
        right = (login.login, login.password) == (b"mlops", b"hunter2")
        return AuthResult(success=right, handled=False)


class StartTls(Controller):
    tls: ClassVar = None

    def factory(self):
        return SMTP(
            self.handler,
            tls_context=self.tls,
            require_starttls=True,
            authenticator=self.handler.authenticate,
            auth_required=True,
        )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of this machine's own loopback address, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.fixture
def mailbox(certificate, monkeypatch):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    monkeypatch.setattr(StartTls, "tls", context)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    server = StartTls(Mailbox(), hostname="127.0.0.1", port=free_port())
    server.handler.port = server.port
    server.start()
    yield server.handler
    server.stop()


def by_mail(mailbox, **more):
    to = ["team@example.com", "boss@example.com"]
    given = {"host": "127.0.0.1", "port": mailbox.port, "sender": "mlops@example.com", "to": to, **more}
    return NotifySettings(email=given)


def test_a_mail_goes_out_encrypted_and_with_a_password(mailbox):
    assert tell(FAILURE, by_mail(mailbox, username="mlops", password="hunter2")) == {}
    (mail,) = mailbox.mails
    assert mail.rcpt_tos == ["team@example.com", "boss@example.com"]
    text = mail.content.decode()
    assert "Subject: build_model_pipeline of ACME failed in prices" in text
    assert "Dagster: http://127.0.0.1:3000/runs/abc" in text
    assert "hunter2" not in text


def test_what_a_mail_server_can_object_to(mailbox, monkeypatch):
    wrong = tell(FAILURE, by_mail(mailbox, username="mlops", password="hunter3"))
    assert wrong == {"email": "it doesn't take this user name and password (535)"}
    monkeypatch.delenv("SSL_CERT_FILE")
    untrusted = tell(FAILURE, by_mail(mailbox, username="mlops", password="hunter2"))
    assert "its certificate isn't trusted" in untrusted["email"]
    assert mailbox.mails == []


def test_no_header_can_be_smuggled_in(mailbox):
    odd = Failure("job\r\nBcc: eve@example.com", "abc", None, None, "why", "http://127.0.0.1:3000/runs/abc")
    assert tell(odd, by_mail(mailbox, username="mlops", password="hunter2")) == {}
    (mail,) = mailbox.mails
    assert mail.rcpt_tos == ["team@example.com", "boss@example.com"]
    assert b"\r\nBcc" not in mail.content


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"security": "none", "username": "a", "password": "hunter2"}, "unencrypted"),
        ({"password": "hunter2"}, "no username"),
        ({"to": []}, "at least 1"),
        ({"sender": "a@b.c\nBcc: x@y.z"}, "give an address"),
    ],
)
def test_settings_that_cannot_be(more, said):
    with pytest.raises(ValidationError, match=said):
        NotifySettings(email={"host": "h", "sender": "a@b.c", "to": ["d@e.f"], **more})


def test_settings_do_not_show_their_secrets():
    settings = NotifySettings(webhook_url="https://example.com/hunter2", slack_webhook_url="https://x.y/hunter2")
    assert "hunter2" not in repr(settings)


# ---------------------------------------------------------------------------------------------------------- sensor


@dg.op
def breaks():
    raise dg.Failure("the disk is full")


@dg.job(tags={"dagster/partition": "ACME"})
def somebodys_job():
    breaks()


def failed(stack, mlflow, **settings):
    """Run the sensor on a run that has failed; return what it says."""
    stack.deployment.notify = NotifySettings(**settings)
    stack.deployment.tracking.mlflow_tracking_uri = f"sqlite:///{mlflow}"
    result = somebodys_job.execute_in_process(instance=stack.instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failed",
        dagster_instance=stack.instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    )
    return run_failed(stack.deployment)(context.for_run_failure())


def test_the_sensor_says_which_step_failed_and_why(receiver, stack_of, empty_mlflow):
    stack = stack_of()
    failed(stack, empty_mlflow, webhook_url=receiver.url)
    ((_, body),) = receiver.got
    assert (body["job"], body["symbol"], body["step"]) == ("somebodys_job", "ACME", "breaks")
    assert body["error"] == "the disk is full"
    assert body["dagster_url"] == f"http://127.0.0.1:3000/runs/{body['run_id']}"


def test_who_was_not_told_is_an_error_of_the_tick(stack_of, empty_mlflow):
    with pytest.raises(Exception, match=r"notify\.webhook_url wasn't told: it can't be reached") as raised:
        failed(stack_of(), empty_mlflow, webhook_url="http://127.0.0.1:1/hunter2")
    assert "hunter2" not in str(raised.value)


def test_nobody_to_tell(stack_of, empty_mlflow):
    stack = stack_of()
    assert "MLOPS_NOTIFY__WEBHOOK_URL" in failed(stack, empty_mlflow).skip_message
    assert run_failed(stack.deployment).default_status == dg.DefaultSensorStatus.STOPPED
    stack.deployment.notify = NotifySettings(webhook_url="https://example.com/x")
    assert run_failed(stack.deployment).default_status == dg.DefaultSensorStatus.RUNNING
