"""Web servers that are told to stop: every answered request is in the ledger once, in whichever worker it was made."""

import importlib.util
import json
import socket
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

import pytest
from calling import ROUNDS
from families import SERVED, SERVED_STRICT, SERVED_WITHOUT_JOURNAL, WITHOUT_US, until

pytest.importorskip("uvicorn", reason="the real server is not installed")
pytest.importorskip("gunicorn", reason="the real server is not installed")

REQUESTS = 24
UVICORN_WORKER = "uvicorn_worker" if importlib.util.find_spec("uvicorn_worker") else "uvicorn.workers"
UVICORN = ["uvicorn", "served:asgi", "--log-level", "warning"]
GUNICORN = ["gunicorn", "--workers", "2", "--log-level", "warning"]
WORKERS = {
    "sync": ["served:wsgi", "--worker-class", "sync"],
    "gthread": ["served:wsgi", "--worker-class", "gthread", "--threads", "4"],
    "uvicorn": ["served:asgi", "--worker-class", f"{UVICORN_WORKER}.UvicornWorker"],
}
MODES = [SERVED, SERVED_WITHOUT_JOURNAL, SERVED_STRICT]
LATE = {"APP_CALLS_AT_THE_END": "yes"}
# Where the master has imported the application, uvicorn's worker sets SIGTERM back and later dies by it: only a journal
# keeps what it has not written by then.
NEEDS_A_JOURNAL = ("uvicorn", SERVED_WITHOUT_JOURNAL)

_plain = {}


class Clients:
    """Threads that ask a server until it does not answer any more, and what was answered."""

    def __init__(self, address):
        self._address = address
        self.answers = []
        self.processes = set()
        self._threads = [threading.Thread(target=self._ask, args=(path,)) for path in ("/task", "/thread") * 2]
        self._over = threading.Event()
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, path):
        while not self._over.is_set():
            try:
                answer = self.ask(path)
            except (OSError, HTTPException, ValueError):
                return  # it is gone, or about to go
            self.processes.add(answer["process"])
            self.answers.append(answer["names"])

    def ask(self, path):
        with closing(HTTPConnection(*self._address, timeout=20)) as connection:
            connection.request("GET", path)
            return json.load(connection.getresponse())


def serve(one, command, *, workers, quiet, **environment):
    """Start a server, ask it, and have it stopped by a last request, alone or not; gives its status and the answers.

    The socket is ours and listens before the server does: nobody has to wait for a free port, or for the server.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        number = listening.fileno()
        where = ["--fd", number] if command[0] == "uvicorn" else ["--bind", f"fd://{number}"]
        one.start("-m", *command, *where, pass_fds=[number], **environment)
        clients = Clients(listening.getsockname())

    def is_known():
        enough = len(clients.answers) >= REQUESTS and len(clients.processes) == workers
        return enough or one.process.poll() is not None

    try:
        until(is_known, "answers of all workers")
        if quiet:
            clients.stop()
        with suppress(OSError, HTTPException, ValueError):  # gone before it could answer
            clients.ask(f"/task?{one.process.pid}")
        status = one.ended()
    finally:
        clients.stop()
    return status, [name for names in clients.answers for name in names]


def status_without_us(family, command, **terms):
    """How the server ends by SIGTERM with an application that knows nothing of us."""
    key = tuple(command)
    if key not in _plain:
        _plain[key], _ = serve(family(WITHOUT_US), command, **terms)
    return _plain[key]


def stops_as_without_us(family, mode, command, *, workers=1, at_import=0, **environment):
    """Serve and stop. Without a journal SIGTERM comes when all other requests have been answered."""
    ours = family(mode)
    terms = {"workers": workers, "quiet": not mode.has_journal, **environment}
    status, answered = serve(ours, command, **terms)
    assert status == status_without_us(family, command, **terms), ours.errors
    assert set(answered) <= set(ours.acknowledged)
    ours.assert_kept(at_least=REQUESTS * len(mode.kinds) + at_import)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_uvicorn(family, mode):
    """Uvicorn raises SIGTERM again after its graceful stop, so that no handler of `atexit` ever runs."""
    stops_as_without_us(family, mode, UVICORN, **LATE)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_uvicorn_with_workers(family, mode):
    """The workers of uvicorn are told to stop by their master.

    They import the application when uvicorn's own handlers are in place, and at the very end put back what was there
    before: a call that comes after ours has run needs a journal.
    """
    late = LATE if mode.has_journal else {}
    stops_as_without_us(family, mode, [*UVICORN, "--workers", 2], workers=2, **late)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("worker", WORKERS)
def test_gunicorn(family, worker, mode):
    """Each worker of gunicorn imports the application, and stops when its master does."""
    stops_as_without_us(family, mode, [*GUNICORN, *WORKERS[worker]], workers=2, **LATE)


@pytest.mark.parametrize(
    ("worker", "mode"),
    [(worker, mode) for worker in WORKERS for mode in MODES if (worker, mode) != NEEDS_A_JOURNAL],
    ids=str,
)
def test_gunicorn_with_preload(family, worker, mode):
    """The master has imported the application and made calls of its own before the workers are forked."""
    command = [*GUNICORN, *WORKERS[worker], "--preload"]
    at_import = ROUNDS * len(mode.kinds)
    stops_as_without_us(family, mode, command, workers=2, at_import=at_import, APP_CALLS_AT_IMPORT="yes", **LATE)
