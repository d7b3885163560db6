"""The webhook: alerts arrive as JSON, also at the end of a process, and nothing waits for a server in trouble."""

import base64
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import OpenerDirector

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from polling import until

from tollspan.budget import _webhook, budget, scope
from tollspan.budget._webhook import MOST, Webhook
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument

SECRET = "T0PSECRET"


class Hook:
    """A server that remembers what it was sent. It answers with `statuses`, then with 200, once it may `go_on`."""

    def __init__(self):
        self.statuses, self.headers, self.seen = [], {}, []
        self.go_on = threading.Event()
        self.go_on.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads, self.server.block_on_close = True, False
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/{SECRET}"

    @property
    def alerts(self):
        return [json.loads(body) for *_, body in self.seen]

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(self):
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.seen.append((self.path, dict(self.headers), body))
                hook.go_on.wait(60)
                self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - as the base class calls it

            def log_message(self, *_):
                """Say nothing."""

        return Handler


@pytest.fixture
def hook(monkeypatch):
    """A server for alerts; tries follow each other at once."""
    monkeypatch.setattr(_webhook, "_BACKOFF_S", 0.001)
    running = Hook()
    yield running
    running.close()


@pytest.fixture
def daily(hook, configure, calls):
    """Spend 0.10 USD of a dollar a day, of which each tenth is told to the webhook; gives how often to spend."""
    configure(webhook=hook.url)

    def daily(times=1, **options):
        shares = tuple(n / 10 for n in range(1, 11))
        with budget("1 USD / day", name="daily", warn_at=shares, **options):
            for _ in range(times):
                calls.spend(10_000)
        pipeline().ledger.writer.listeners.drain(60)

    return daily


def test_an_alert_arrives_as_json(hook, daily):
    """The names are those of BudgetAlert, amounts are texts, and instants are epoch seconds."""
    with scope(user="ada"):
        daily(each="user")
    until(lambda: hook.seen)
    [(path, headers, _)], [alert] = hook.seen, hook.alerts
    assert (path, headers["Content-Type"], headers["User-Agent"]) == (f"/{SECRET}", "application/json", "tollspan")
    assert alert.pop("at") == pytest.approx(time.time(), abs=60)
    assert alert.pop("reset_at") == alert.pop("window_start") + 86_400
    assert alert == {
        "budget": "daily",
        "scope": "user=ada",
        "share": 0.1,
        "spent": "0.10025",
        "limit": "1",
        "unit": "USD",
    }


def test_a_server_that_fails_is_asked_again(hook, daily, caplog):
    """500, 429, 200: the same alert, until it has arrived; the next one comes after it."""
    hook.statuses = [500, 429]
    daily(times=2)
    until(lambda: len(hook.seen) == 4)
    assert [alert["share"] for alert in hook.alerts] == [0.1, 0.1, 0.1, 0.2]
    assert "did not reach" not in caplog.text


def test_after_five_tries_an_alert_is_left_out(hook, daily, caplog):
    """It is logged and counted, without the URL, and the next one arrives."""
    hook.statuses = [503] * 5
    daily(times=2)
    until(lambda: len(hook.seen) == 6)
    assert [alert["share"] for alert in hook.alerts] == [0.1] * 5 + [0.2]
    assert "an alert did not reach the webhook: HTTP status 503; 1 in all in this process" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("status", [302, 400, 404])
def test_a_server_that_refuses_is_not_asked_again(hook, daily, caplog, status):
    """Neither is a redirect followed: the alert would be lost on the way."""
    hook.statuses, hook.headers = [status], {"Location": f"{hook.url}/elsewhere"}
    daily(times=2)
    until(lambda: len(hook.seen) == 2)
    assert [alert["share"] for alert in hook.alerts] == [0.1, 0.2]
    assert f"HTTP status {status}" in caplog.text
    assert SECRET not in caplog.text


def test_where_nobody_listens_it_is_said_without_the_url(caplog, monkeypatch):
    """The log tells the kind of error; the alert is counted as lost."""
    monkeypatch.setattr(_webhook, "_BACKOFF_S", 0.001)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sender = Webhook(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}")
        sender.send(b"{}")
        sender.drain(60)
    assert sender.lost == 1
    assert "did not reach the webhook: ConnectionRefusedError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", [f"http://127.0.0.1:1/{SECRET} and more", f"https://[{SECRET}/", f"http:///{SECRET}"])
def test_a_url_that_cannot_be_asked_is_not_told_either(caplog, monkeypatch, url):
    """Errors about a URL have it in their texts; the log has only their kind."""
    monkeypatch.setattr(_webhook, "_BACKOFF_S", 0.001)
    sender = Webhook(url)
    sender.send(b"{}")
    sender.drain(60)
    assert sender.lost == 1
    assert SECRET not in caplog.text


def test_a_server_says_when_to_come_back(hook, monkeypatch):
    """`Retry-After` is waited for; a server that wants a second gets it."""
    pauses = []
    hook.statuses, hook.headers = [429], {"Retry-After": "7"}
    sender = Webhook(hook.url)
    monkeypatch.setattr(sender._ending, "wait", pauses.append)
    sender.send(b"{}")
    until(lambda: len(hook.seen) == 2)
    assert pauses == [7]


def test_name_and_password_go_into_a_header(hook):
    """They are sent as Basic authentication, and not as part of the host."""
    sender = Webhook(hook.url.replace("//", "//ada:p%40ss@"))
    sender.send(b"{}")
    sender.drain(60)
    [(path, headers, _)] = hook.seen
    assert (path, headers["Host"]) == (f"/{SECRET}", f"127.0.0.1:{hook.server.server_port}")
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"ada:p@ss").decode()


def test_a_server_that_hangs_holds_up_neither_calls_nor_commits(hook, daily, calls):
    """While the first alert waits for its answer, calls go on, and the others are told in their order."""
    hook.go_on.clear()
    daily(times=9)
    until(lambda: hook.seen)
    assert [alert["share"] for alert in hook.alerts] == [0.1]
    hook.go_on.set()
    until(lambda: len(hook.seen) == 9)
    assert [alert["share"] for alert in hook.alerts] == [n / 10 for n in range(1, 10)]


def test_what_does_not_fit_into_the_queue_is_left_out(hook, caplog):
    """A hundred wait at most; more are logged and counted, and nobody is held up."""
    hook.go_on.clear()
    sender = Webhook(hook.url)
    sender.send(b'"first"')
    until(lambda: hook.seen)
    for number in range(MOST + 3):
        sender.send(str(number).encode())
    assert sender.lost == 3
    assert "did not reach the webhook: it is too slow; 3 in all" in caplog.text
    hook.go_on.set()
    sender.drain(60)
    assert hook.alerts == ["first", *range(MOST)]


def test_its_requests_are_not_recorded(hook, daily, monkeypatch):
    """To OpenTelemetry's instrumentations they are suppressed, and the ledger has nothing of them."""
    enabled, open_url = [], OpenerDirector.open

    def open_and_note(*args, **kwargs):
        enabled.append(is_instrumentation_enabled())
        return open_url(*args, **kwargs)

    monkeypatch.setattr(OpenerDirector, "open", open_and_note)
    instrument()
    try:
        daily()
        until(lambda: hook.seen)
    finally:
        uninstrument()
    assert enabled == [False]
    assert [event.event_type for event in pipeline().ledger.events] == ["precheck_hold", "commit"]


SPEND = """
import sys, time
from tollspan.budget import CallIntent, admit, budget, _webhook
from tollspan.exporter import CallRecord, pipeline, settlement
from tollspan.ledger import Unpriced, new_call_id

def spend(name="b", flush=False):
    with budget("2 requests / day", name=name, mode="best_effort", warn_at=(0.5,)):
        record = CallRecord(call_id=new_call_id(), started=time.time(), operation="chat", request_model="m")
        admit(record, CallIntent(price=Unpriced("no price"), input_tokens=1, max_output_tokens=1))
        record.cost, record.usage = 0, {}
        pipeline().ledger.writer.put(settlement(record))
    if flush:
        pipeline().ledger.flush()
        pipeline().ledger.writer.listeners.drain(60)
"""


def test_the_last_alert_of_a_process_is_sent_at_its_end(hook):
    """The commit that reaches the share comes with the end of the process, and the alert still goes out."""
    done = run(hook, SPEND + "spend()")
    assert (done.returncode, done.stderr.count("has reached 50%")) == (0, 1)
    assert [alert["share"] for alert in hook.alerts] == [0.5]


def test_at_the_end_a_try_follows_soon(hook):
    """Pauses between tries do not use up the time that there is: one that has failed is repeated within it."""
    hook.statuses = [500]
    done = run(hook, SPEND + "_webhook._BACKOFF_S = 600\nspend()")
    assert done.returncode == 0
    assert [alert["share"] for alert in hook.alerts] == [0.5, 0.5]


def test_a_server_that_hangs_does_not_keep_a_process_from_ending(hook):
    """The end of a process waits for a bounded time, however long the server takes."""
    hook.go_on.clear()
    done = run(hook, SPEND + "_webhook.TIMEOUT_S = 600\nspend(flush=True)", timeout_s=60)
    assert done.returncode == 0
    assert len(hook.alerts) == 1


CHILD = """
import multiprocessing

def in_child(name):
    spend(name)

if __name__ == "__main__":
    spend("parent", flush=True)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=["child"])
    child.start()
    child.join(60)
    sys.exit(child.exitcode)
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_child_of_multiprocessing_sends_its_own(hook):
    """A forked child has no thread of its parent; its alert is sent by one of its own, at its end too."""
    hook.statuses = [200, 500]  # for the child, but where it is quicker than its parent
    done = run(hook, SPEND + "_webhook._BACKOFF_S = 600\n" + CHILD)
    assert done.returncode == 0
    assert {alert["budget"] for alert in hook.alerts} == {"parent", "child"}
    assert len(hook.alerts) == 3


def run(hook, text, timeout_s=60):
    """Run a script in a process of its own, with the webhook in its environment."""
    environment = os.environ | {"TOLLSPAN_WEBHOOK": hook.url}
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert SECRET not in done.stderr
    return done
