"""Live sessions of google-genai, against the messages of Gemini's Live API (ai.google.dev/api/live)."""

import asyncio
import contextlib
import json
from decimal import Decimal

import pytest

from tollspan.budget import BudgetExceeded, UnboundedCost, budget
from tollspan.instrumentation import uncovered

genai = pytest.importorskip("google.genai", reason="google-genai is not installed")
serving = pytest.importorskip("websockets.asyncio.server", reason="websockets is not installed")
connecting = pytest.importorskip("websockets.asyncio.client", reason="websockets is not installed")
from google.genai import live, types  # noqa: E402

MODEL = "gemini-live-2.5-flash"
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def _turn(prompt, *, thoughts=0):
    """The messages of one turn."""
    counted = {
        "promptTokenCount": prompt,
        "responseTokenCount": 20,
        "totalTokenCount": prompt + 20,
    }
    counted |= {"thoughtsTokenCount": thoughts} if thoughts else {}
    details = {"responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}]}
    yield {"serverContent": {"modelTurn": {"parts": [{"text": "Danube."}]}}}
    yield {"serverContent": {"turnComplete": True}, "usageMetadata": counted | details}


def _used(prompt, *, thoughts=0):
    used = {"tokens_in": prompt, "tokens_out": 20 + thoughts, "tokens_audio_out": 20}
    return used | ({"tokens_reasoning": thoughts} if thoughts else {})


class _Server:
    """Answers the setup, and each message after it with the next of its turns; after those, with silence."""

    def __init__(self, *turns):
        self.turns, self.said = list(turns), []

    async def _serve(self, connection):
        with contextlib.suppress(Exception):
            self.said.append(json.loads(await connection.recv()))
            await connection.send(json.dumps({"setupComplete": {}}))
            async for message in connection:
                self.said.append(json.loads(message))
                if self.turns:
                    for answer in self.turns.pop(0):
                        await connection.send(json.dumps(answer))

    def drive(self, use):
        """Connect, and have `use` do something with the session."""

        async def work():
            async with serving.serve(self._serve, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                client = genai.Client(
                    api_key="k",
                    http_options=types.HttpOptions(base_url=f"http://127.0.0.1:{port}"),
                )
                async with client.aio.live.connect(model=MODEL, config={"max_output_tokens": 100}) as session:
                    return await use(session)

        return asyncio.run(work())


async def _say(session):
    await session.send_client_content(turns=types.Content(role="user", parts=[types.Part(text="One river.")]))


async def _converse(session, turns=1):
    heard = []
    for _ in range(turns):
        await _say(session)
        heard += [message async for message in session.receive()]
    return heard


@pytest.fixture(autouse=True)
def without_tls(monkeypatch):
    """The SDK always asks for TLS, which the server here does not speak."""

    def connect(uri, *, additional_headers, **_tls):
        return connecting.connect(uri.replace("wss://", "ws://"), additional_headers=additional_headers)

    monkeypatch.setattr(live, "ws_connect", connect)


def test_each_turn_is_a_call(instrumented):
    """Google bills each turn, with all that was said before it: a commit each, and the messages are as without us."""
    turns = (_turn(10), _turn(40, thoughts=5))
    bare = _Server(*map(list, turns)).drive(lambda session: _converse(session, 2))
    server = _Server(_turn(10), _turn(40, thoughts=5))
    with instrumented() as seen:
        assert server.drive(lambda session: _converse(session, 2)) == bare
        events, spans = seen.of("commit", "cancel"), seen.spans
        assert seen.open_holds == 0
    assert [event.usage for event in events] == [_used(10), _used(40, thoughts=5)]
    assert {(event.event_type, event.model, event.provider, event.status) for event in events} == {
        ("commit", MODEL, "gcp.gemini", "ok")
    }
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in spans] == [10, 40]
    assert not uncovered


def test_a_strict_budget_refuses_a_session(instrumented):
    """What a session will cost has no bound, so a strict budget that is not told what to hold lets none begin."""
    server = _Server(_turn(10))
    with instrumented() as seen:
        with budget("1 USD", name="strict"), pytest.raises(UnboundedCost):
            server.drive(_converse)
        assert seen.open_holds == 0
    assert server.said == []


def test_a_budget_that_is_spent_refuses_the_next_turn(instrumented, monkeypatch):
    """Where it is told what a turn may hold, it holds that for each, and the turn that has no room is not sent."""
    monkeypatch.setenv("TOLLSPAN_HOLD_USD", "0.0001")
    server = _Server(_turn(10), _turn(40))
    with instrumented() as seen:
        with budget("0.0003 USD", name="two turns"), pytest.raises(BudgetExceeded):
            server.drive(lambda session: _converse(session, 2))
        assert [event.usage for event in seen.of("commit")] == [_used(10)]
        assert seen.open_holds == 0
    assert len(server.said) == 2


def test_a_session_in_which_nothing_is_said_costs_nothing(instrumented):
    """It is opened and closed again: that is a cancel."""

    async def nothing(_session):
        pass

    with instrumented() as seen:
        _Server().drive(nothing)
        assert seen.end.event_type == "cancel"
        assert seen.open_holds == 0


def test_a_turn_that_is_not_heard_to_its_end_is_an_estimate(instrumented):
    """Whoever closes the session before the usage comes will be billed for what nobody has told."""
    with instrumented() as seen:
        _Server().drive(_say)
        event = seen.end
    assert (event.event_type, event.status, event.estimated) == (
        "commit",
        "cancelled",
        True,
    )
    assert event.cost_est_usd > 0


def test_what_a_turn_may_have_cost_goes_by_its_sound(instrumented):
    """A second of sound is a few tokens, and not as many as it has bytes."""

    async def hum(session):
        sound = types.Blob(data=bytes(32_000), mime_type="audio/pcm;rate=16000")
        await session.send_realtime_input(audio=sound)

    with instrumented() as seen:
        _Server().drive(hum)
        assert 0 < seen.end.cost_est_usd < Decimal("0.005")


class _Leaving(_Server):
    """Closes the connection as soon as something is said."""

    async def _serve(self, connection):
        self.said.append(json.loads(await connection.recv()))
        await connection.send(json.dumps({"setupComplete": {}}))
        await connection.recv()
        await connection.close(1011)


def test_a_session_that_the_server_ends_is_an_error(instrumented):
    """Nobody can tell what the turn has used that was going on: one estimate."""
    with instrumented() as seen:
        with pytest.raises(genai.errors.APIError):
            _Leaving().drive(_converse)
        event = seen.end
        assert seen.open_holds == 0
    assert (event.event_type, event.status, event.estimated) == ("commit", "error", True)
    assert event.error_type


def test_what_the_server_begins_is_counted_too(instrumented):
    """A model may speak again without being spoken to: that turn has its usage as well."""
    with instrumented() as seen:
        _Server([*_turn(10), *_turn(50)]).drive(_twice_heard)
        assert [event.usage for event in seen.of("commit")] == [_used(10), _used(50)]


async def _twice_heard(session):
    await _converse(session)
    return [message async for message in session.receive()]


def test_other_websockets_are_left_alone(instrumented):
    """A connection that does not begin with the setup of a live session is nobody's call."""

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def work():
        async with serving.serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connecting.connect(f"ws://127.0.0.1:{port}") as connection:
                await connection.send('{"setup": {}, "usageMetadata": {"promptTokenCount": 1}}')
                return await connection.recv()

    with instrumented() as seen:
        assert "setup" in asyncio.run(work())
        assert seen.events == []
