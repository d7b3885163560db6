"""What the applications of these tests do: they make calls, and acknowledge each one when it has returned.

APP_KINDS names what each round makes: an `event` written by hand, a `call` of the OpenAI SDK, a `strict` one under a
budget. Without kinds the application is as it would be without tollspan, which it does not even import.
"""

import asyncio
import contextlib
import os
import secrets
import threading
import time
from decimal import Decimal

KINDS = tuple(filter(None, os.environ.get("APP_KINDS", "").split(",")))
BUDGET = "lifecycle"
ROUNDS = 20
MODEL = "gpt-4o"

_clients = {}


def instrument():
    """Instrument this process, unless it is to be as it was without us; what it needs later is imported now."""
    if not KINDS:
        return
    from tollspan.instrumentation import instrument  # noqa: PLC0415 - absent where there are no kinds

    if set(KINDS) & {"call", "strict"}:
        import openai  # noqa: F401, PLC0415 - half a second that only SDK calls need
    instrument()


def act():
    """One round: a call of each kind, acknowledged when it has returned; gives their names."""
    return [_acknowledged_one(kind) for kind in KINDS or ("nothing",)]


def act_often(rounds=ROUNDS):
    """So many rounds."""
    for _ in range(rounds):
        act()


def act_until_the_end(pause_s=0.0):
    """Round after round, until somebody ends this process; threads pause, or one of them would keep the others out."""
    while True:
        act()
        time.sleep(pause_s)


async def aact():
    """One round, by a task; gives their names."""
    names = [_new_name(kind) for kind in KINDS or ("nothing",)]
    for name in names:
        kind = name.partition("-")[0]
        if kind == "event":
            from tollspan.exporter import pipeline  # noqa: PLC0415

            await pipeline().ledger.awrite_event(_event(name))
        elif kind != "nothing":
            with _marks(kind, name):
                await _client("AsyncOpenAI").chat.completions.create(**_request(name))
        acknowledge(name)
    return names


def acknowledge(name):
    """Tell the test that this call has returned. The file is opened anew: any process of the family may write it."""
    file = os.open(os.environ["APP_ACKNOWLEDGED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{name}\n".encode())
    finally:
        os.close(file)


def _acknowledged_one(kind):
    name = _new_name(kind)
    if kind == "event":
        from tollspan.exporter import pipeline  # noqa: PLC0415

        pipeline().ledger.write_event(_event(name))
    elif kind != "nothing":
        with _marks(kind, name):
            _client("OpenAI").chat.completions.create(**_request(name))
    acknowledge(name)
    return name


def _new_name(kind):
    return f"{kind}-{os.environ['APP_FAMILY']}-{secrets.token_hex(6)}"


def _event(name):
    from tollspan.ledger import LedgerEvent  # noqa: PLC0415

    return LedgerEvent(event_type="commit", run_id=name, cost_actual_usd=Decimal("0.01"))


@contextlib.contextmanager
def _marks(kind, name):
    from tollspan.budget import budget, scope  # noqa: PLC0415

    limit = budget("1000 USD / total", name=BUDGET) if kind == "strict" else contextlib.nullcontext()
    with scope(run=name), limit:
        yield


def _client(kind):
    """A client of this thread (of this loop, for tasks): connections are shared neither by processes nor by threads."""
    key = (kind, os.getpid(), threading.get_ident())
    if key not in _clients:
        import openai  # noqa: PLC0415

        _clients[key] = getattr(openai, kind)(base_url=os.environ["APP_PROVIDER"], api_key="local", max_retries=0)
    return _clients[key]


def _request(name):
    messages = [{"role": "user", "content": "hello"}]
    return {"model": MODEL, "max_tokens": 50, "messages": messages, "extra_headers": {"x-local-provider-key": name}}


def together(count):
    """So many rounds at once, by the tasks of one loop."""

    async def rounds():
        await asyncio.gather(*(aact() for _ in range(count)))

    asyncio.run(rounds())
