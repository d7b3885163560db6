"""OpenAI's SDK over websockets, against the events of its API reference ("Realtime", "Responses: WebSocket mode")."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the OpenAI SDK is not installed")
pytest.importorskip("websockets", reason="websockets is not installed")
pytest.importorskip("aiohttp", reason="aiohttp, by which the server here speaks, is not installed")

from socket_server import CLOSE, DROP, SocketServer, outcome, settled  # noqa: E402
from websockets.asyncio.client import ClientConnection as AsyncConnection  # noqa: E402
from websockets.exceptions import ConnectionClosedError  # noqa: E402
from websockets.sync.client import ClientConnection  # noqa: E402

from tollspan.budget import BudgetExceeded, UnboundedCost, budget  # noqa: E402
from tollspan.exporter import pipeline  # noqa: E402
from tollspan.instrumentation import CALL_SITES, uncovered  # noqa: E402

VOICE, WRITER, TALKER = "gpt-realtime", "gpt-5-mini", "gpt-live-1"
USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
SPOKEN = {
    "tokens_in": 132,
    "tokens_out": 121,
    "tokens_cache_read": 64,
    "tokens_audio_cache_read": 4,
    "tokens_audio_in": 13,
    "tokens_audio_out": 91,
}
COUNTED = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}
WRITTEN = {"tokens_in": 36, "tokens_out": 87, "tokens_reasoning": 64}


class Voices:
    """Answers when it is asked for a response, with a voice."""

    def __init__(self, end="finished"):
        self.end = end

    def __call__(self, message):
        if message["type"] == "session.update":
            yield {"type": "session.updated", "session": {"type": "realtime"}}
        elif message["type"] == "response.create" and self.end == "refused":
            error = {"type": "invalid_request_error", "code": "missing", "message": "no such voice", "event_id": None}
            yield {"type": "error", "event_id": "e1", "error": error}
        elif message["type"] == "response.create":
            yield {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
            yield {"type": "response.output_audio.delta", "delta": "AAAA" * 100, "response_id": "resp_1"}
            yield from self._ending()

    def _ending(self):
        response = {"id": "resp_1", "object": "realtime.response"}
        if self.end == "finished":
            yield {"type": "response.done", "response": response | {"status": "completed", "usage": USAGE}}
        elif self.end == "failed":
            error = {"type": "insufficient_quota", "code": "insufficient_quota"}
            failed = {"status": "failed", "status_details": {"type": "failed", "error": error}, "usage": None}
            yield {"type": "response.done", "response": response | failed}
        elif self.end != "silence":
            yield self.end


class Writes:
    """Answers with text, as a stream of the Responses API does."""

    def __init__(self, end="finished"):
        self.end = end

    def __call__(self, message):
        answer = {"id": "resp_2", "object": "response", "model": WRITER, "output": []}
        lane = {"stream_id": message["stream_id"]} if "stream_id" in message else {}
        if message["type"] == "response.create" and self.end == "refused":
            error = {"type": "invalid_request_error", "code": "missing", "message": "no such model"}
            yield {"type": "error", "status": 400, "error": error} | lane
        elif message["type"] == "response.create":
            created = answer | {"status": "in_progress", "usage": None}
            yield {"type": "response.created", "response": created, "sequence_number": 0} | lane
            yield {"type": "response.output_text.delta", "delta": "Danube.", "sequence_number": 1} | lane
            yield from self._ending(answer, lane)

    def _ending(self, answer, lane):
        if self.end == "finished":
            done = answer | {"status": "completed", "usage": COUNTED}
            yield {"type": "response.completed", "response": done, "sequence_number": 2} | lane
        elif self.end == "failed":
            error = {"code": "insufficient_quota", "message": "no"}
            failed = answer | {"status": "failed", "error": error, "usage": None}
            yield {"type": "response.failed", "response": failed, "sequence_number": 2} | lane
        elif self.end != "silence":
            yield self.end


class Lives:
    """Talks until it is told to close."""

    def __init__(self, end="finished"):
        self.end = end

    def __call__(self, message):
        session = {"id": "live_1", "model": TALKER}
        if message["type"] == "session.start" and self.end == "refused":
            error = {"type": "invalid_request_error", "code": "missing", "message": "no such model"}
            yield {"type": "error", "event_id": "e1", "error": error}
        elif message["type"] == "session.start":
            yield {"type": "session.started", "event_id": "e1", "session": session}
            yield {"type": "session.output_audio.delta", "event_id": "e2", "delta": "AAAA"}
            answer = {"id": "resp_3", "object": "response", "model": WRITER, "status": "completed", "usage": COUNTED}
            nested = {"type": "response.completed", "response": answer}
            if self.end == "delegated":
                yield {"type": "response.event", "event_id": "e3", "delegation_id": "d1", "event": nested}
            yield {"type": "session.usage.updated", "event_id": "e4", "usage": {"seconds": 1.5}}
        elif self.end in {DROP, CLOSE}:
            yield self.end
        elif message["type"] == "session.close":
            closed = {"reason": "close_requested", "session": session, "usage": {"seconds": 2.5}}
            yield {"type": "session.closed", "event_id": "e5"} | closed


ENDS = {"session.closed", "response.done", "response.completed", "response.failed", "error"}


def heard(connection):
    """The types of what the server says, up to the end of a response."""
    kinds = []
    for event in connection:
        kinds.append(event.type)
        if event.type in ENDS:
            break
    return kinds


async def heard_in_a_task(connection):
    """As heard."""
    kinds = []
    async for event in connection:
        kinds.append(event.type)
        if event.type in ENDS:
            break
    return kinds


def options(url):
    """What makes a client of the server here."""
    return {"api_key": "sk-test", "base_url": url, "websocket_base_url": url.replace("http", "ws"), "max_retries": 0}


def voice(resource):
    """A response that is spoken."""

    def run(url):
        client = openai.OpenAI(**options(url))
        with resource(client).connect(model=VOICE) as connection:
            connection.session.update(session={"type": "realtime", "instructions": "Be short."})
            connection.response.create()
            return heard(connection)

    return run


def voice_in_a_task(resource):
    """As voice."""

    async def work(url):
        client = openai.AsyncOpenAI(**options(url))
        async with client, resource(client).connect(model=VOICE) as connection:
            await connection.session.update(session={"type": "realtime", "instructions": "Be short."})
            await connection.response.create()
            return await heard_in_a_task(connection)

    return lambda url: asyncio.run(work(url))


def text(url):
    """A response that is written."""
    client = openai.OpenAI(**options(url))
    with client.responses.connect() as connection:
        connection.response.create(model=WRITER, input="One river.", max_output_tokens=100)
        return heard(connection)


def text_in_a_task(url):
    """As text."""

    async def work():
        client = openai.AsyncOpenAI(**options(url))
        async with client, client.responses.connect() as connection:
            await connection.response.create(model=WRITER, input="One river.", max_output_tokens=100)
            return await heard_in_a_task(connection)

    return asyncio.run(work())


def live(url):
    """A session that is closed when it has said something."""
    client = openai.OpenAI(**options(url))
    with client.live.connect() as connection:
        connection.send({"type": "session.start", "session": {"model": TALKER}})
        kinds = []
        for event in connection:
            kinds.append(event.type)
            if event.type == "session.usage.updated":
                connection.send({"type": "session.close"})
            if event.type in ENDS:
                break
        return kinds


def live_in_a_task(url):
    """As live."""

    async def work():
        client = openai.AsyncOpenAI(**options(url))
        async with client, client.live.connect() as connection:
            await connection.send({"type": "session.start", "session": {"model": TALKER}})
            kinds = []
            async for event in connection:
                kinds.append(event.type)
                if event.type == "session.usage.updated":
                    await connection.send({"type": "session.close"})
                if event.type in ENDS:
                    break
            return kinds

    return asyncio.run(work())


@dataclass(frozen=True)
class Case:
    """One way to talk. `site` is the row that covers it, `run` what the application does with the address."""

    id: str
    site: str
    run: Callable[[str], Any]
    answers: Callable[..., Any]
    usage: Mapping[str, float]
    model: str

    @property
    def has_bound(self):
        """Whether a strict budget can tell what it may cost: a session has no end."""
        return self.model == WRITER


def _connections(module, name):
    return f"openai.resources.{module}:{name}", f"openai.resources.{module}:Async{name}"


GA, AGA = _connections("realtime.realtime", "RealtimeConnection.send")
BETA, ABETA = _connections("beta.realtime.realtime", "RealtimeConnection.send")
LIVE, ALIVE = _connections("live.live", "LiveConnection.send")
TEXT, ATEXT = _connections("responses.responses", "ResponsesConnection.send")
CASES = [
    Case("realtime", GA, voice(lambda client: client.realtime), Voices, SPOKEN, VOICE),
    Case("async-realtime", AGA, voice_in_a_task(lambda client: client.realtime), Voices, SPOKEN, VOICE),
    Case("beta", BETA, voice(lambda client: client.beta.realtime), Voices, SPOKEN, VOICE),
    Case("async-beta", ABETA, voice_in_a_task(lambda client: client.beta.realtime), Voices, SPOKEN, VOICE),
    Case("live", LIVE, live, Lives, {"audio_seconds": 2.5}, TALKER),
    Case("async-live", ALIVE, live_in_a_task, Lives, {"audio_seconds": 2.5}, TALKER),
    Case("responses", TEXT, text, Writes, WRITTEN, WRITER),
    Case("async-responses", ATEXT, text_in_a_task, Writes, WRITTEN, WRITER),
]


def talk(case, end="finished", run=outcome):
    """Run a case against a server that ends in this way; gives what came of it, and the server."""
    with SocketServer(case.answers(end)) as server:
        return run(case, f"http://127.0.0.1:{server.port}/v1"), server


def test_a_response(case, instrumented):
    """What comes is as without us; one commit has exactly the usage that is told, and its cost, and one span."""
    bare, _ = talk(case)
    assert not isinstance(bare, tuple), bare
    with instrumented() as seen:
        assert talk(case)[0] == bare
        found = settled(seen)
        (span,) = seen.spans
    assert (found.event_type, found.status, found.error_type) == ("commit", "ok", None)
    assert (found.provider, found.model, dict(found.usage)) == ("openai", case.model, case.usage)
    assert found.cost_actual_usd or (case.model == TALKER and found.cost_source == "unpriced" and found.reason)
    assert 0 < found.timing["ttft_ms"] <= found.timing["total_ms"]
    assert span.attributes.get("gen_ai.usage.input_tokens") == case.usage.get("tokens_in")
    assert not uncovered


def test_a_refused_response_costs_nothing(case, instrumented):
    """An error in place of a response is a cancel."""
    bare, _ = talk(case, "refused")
    with instrumented() as seen:
        assert talk(case, "refused")[0] == bare
        found = settled(seen)
    assert (found.event_type, found.status, found.error_type) == ("cancel", "error", "invalid_request_error")


def test_a_response_that_fails(case, instrumented):
    """It is an error of the provider's; a session's tells that nothing is billed."""
    if case.model == TALKER:
        pytest.skip("a session that is started does not fail")
    bare, _ = talk(case, "failed")
    with instrumented() as seen:
        assert talk(case, "failed")[0] == bare
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit" if case.has_bound else "cancel", "error")
    assert found.error_type == "insufficient_quota"


@pytest.mark.parametrize("end", [DROP, CLOSE])
def test_a_connection_that_is_lost(case, end, instrumented):
    """Nobody can tell what has been billed: one estimate, as an error."""
    bare, _ = talk(case, end)
    with instrumented() as seen:
        assert talk(case, end)[0] == bare
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "error")
    assert found.estimated or found.cost_source == "unpriced"
    assert found.error_type


def test_a_response_that_is_left(instrumented):
    """Whoever leaves before the usage comes gets one estimate, cancelled."""
    for answers, ask in ((Voices, {}), (Writes, {"model": WRITER, "input": "One river."})):
        with instrumented() as seen, SocketServer(answers("silence")) as server:
            before = len(seen.events)
            with connecting(server, answers) as connection:
                connection.response.create(**ask)
                connection.recv()
            (found,) = [event for event in seen.events[before:] if event.event_type == "commit"]
            assert (found.status, found.estimated, seen.open_holds) == ("cancelled", True, 0)


def connecting(server, answers=Voices):
    """A connection of the API that a server speaks."""
    client = openai.OpenAI(**options(f"http://127.0.0.1:{server.port}/v1"))
    return client.realtime.connect(model=VOICE) if answers is Voices else client.responses.connect()


def test_a_connection_that_is_dropped(instrumented):
    """Nobody closes it: its thread keeps it until the server does, and then nobody has heard the usage."""
    with instrumented() as seen:
        with SocketServer(Voices("silence")) as server:
            connection = connecting(server).enter()
            connection.response.create()
            connection.recv()
            del connection
        found = settled(seen, by_collector=True)
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_a_task_that_is_cancelled(instrumented):
    """A task that is cancelled while it listens: one estimate, cancelled."""

    async def work(url):
        client = openai.AsyncOpenAI(**options(url))
        async with client, client.realtime.connect(model=VOICE) as connection:
            await connection.response.create()
            await connection.recv()
            await asyncio.wait_for(heard_in_a_task(connection), 0.2)

    with instrumented() as seen, SocketServer(Voices("silence")) as server:
        with pytest.raises(TimeoutError):
            asyncio.run(work(f"http://127.0.0.1:{server.port}/v1"))
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_a_strict_budget_refuses_before_anything_is_asked_for(case, instrumented):
    """The refusal comes out of `response.create`; a session has no bound, a response is held to what it may cost."""

    def refused(case, url):
        with budget("0.000001 USD", name="strict"), pytest.raises(BudgetExceeded if case.has_bound else UnboundedCost):
            case.run(url)

    with instrumented() as seen:
        _, server = talk(case, run=refused)
        assert server.said("response.create", "session.start") == []
        assert settled(seen).event_type == "cancel"


def test_a_budget_that_is_told_what_to_hold(case, instrumented, monkeypatch):
    """It holds that for the response, and what was used takes its place."""
    monkeypatch.setenv("TOLLSPAN_HOLD_USD", "0.5")

    def held(case, url):
        with budget("1 USD", name="roomy") as room:
            assert case.run(url)
            assert pipeline().ledger.flush(timeout_s=10)
            return room.spent, room.held

    with instrumented() as seen:
        (spent, still_held), _ = talk(case, run=held)
        assert (settled(seen).cost_actual_usd or Decimal("0.5")) == spent > still_held == 0


def test_a_budget_of_best_effort_blocks_nothing(case, instrumented):
    """It only counts."""

    def spent(case, url):
        with budget("0.000001 USD", name="soft", mode="best_effort"):
            return case.run(url)

    with instrumented() as seen:
        assert talk(case, run=spent)[0] == talk(case)[0]
        assert {event.event_type for event in seen.events} == {"commit"}


def test_two_responses_of_one_session(instrumented):
    """Each is a call; what is asked for while one is made begins another, and their usage stays apart."""
    usages = [USAGE, USAGE | {"output_tokens": 7, "output_token_details": {"text_tokens": 7}}]

    def answers(message):
        if len(server.said("response.create")) == 2:  # both are asked for before one is made
            for number, usage in enumerate(usages):
                yield {"type": "response.created", "response": {"id": f"r{number}"}}
                done = {"id": f"r{number}", "status": "completed", "usage": usage}
                yield {"type": "response.done", "response": done}

    server = SocketServer(answers)
    with instrumented() as seen, server:
        with connecting(server) as connection:
            connection.response.create()
            connection.response.create(response={"conversation": "none"})
            heard(connection)
            heard(connection)
        assert [event.usage["tokens_out"] for event in seen.of("commit")] == [121, 7]
        assert seen.of("cancel") == []
        assert seen.open_holds == 0


def test_what_a_live_session_delegates_is_a_call_of_its_own(instrumented):
    """The model that thinks for it is billed by tokens, and the session by seconds."""
    if not hasattr(openai.OpenAI, "live"):
        pytest.skip("this version of openai has no live sessions")
    with instrumented() as seen, SocketServer(Lives("delegated")) as server:
        live(f"http://127.0.0.1:{server.port}/v1")
        used = {event.model: dict(event.usage) for event in seen.of("commit")}
    assert used == {WRITER: WRITTEN, TALKER: {"audio_seconds": 2.5}}


def test_who_only_listens_to_a_live_session_counts_nothing(instrumented):
    """What a session delegates is counted where it was started, and not once more by those who listen as well."""
    if not hasattr(openai.OpenAI, "live"):
        pytest.skip("this version of openai has no live sessions")
    nested = {"type": "response.completed", "response": {"id": "r", "model": WRITER, "usage": COUNTED}}
    server = SocketServer(lambda message: [{"type": "response.event", "event_id": "e1", "event": nested}])
    with instrumented() as seen, server:
        client = openai.OpenAI(**options(f"http://127.0.0.1:{server.port}/v1"))
        with client.live.connect() as connection:
            connection.send({"type": "session.update", "session": {}})
            assert connection.recv().type == "response.event"
        assert seen.events == []


def test_the_user_is_transcribed_by_another_model(instrumented):
    """What a session hears with another model is a call of that model's, at its price."""
    tokens = {"type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9}
    told = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "transcript": "Hi."}
    server = SocketServer(lambda message: [told | {"usage": tokens}] if message["type"].endswith("commit") else [])
    hearing = {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}
    with instrumented() as seen, server:
        with connecting(server) as connection:
            connection.session.update(session={"type": "realtime", **hearing})
            connection.input_audio_buffer.append(audio="AAAA")
            connection.input_audio_buffer.commit()
            assert connection.recv().transcript == "Hi."
        (heard_by,) = seen.of("commit")
    assert (heard_by.model, dict(heard_by.usage)) == ("gpt-4o-transcribe", {"tokens_in": 13, "tokens_out": 9})
    assert heard_by.operation == "transcription"


def test_content_is_told_where_it_is_asked_for(instrumented, monkeypatch):
    """What a response over a websocket was asked stands on its span then, and on no other."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with instrumented() as seen, SocketServer(Writes()) as server:
        text(f"http://127.0.0.1:{server.port}/v1")
        assert "One river." in seen.spans[0].attributes["gen_ai.input.messages"]
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false")
    with instrumented() as seen, SocketServer(Writes()) as server:
        text(f"http://127.0.0.1:{server.port}/v1")
        assert "gen_ai.input.messages" not in seen.spans[0].attributes


def test_lanes_of_one_connection(instrumented):
    """Responses that are made side by side are told apart by their lane."""
    waiting = []

    def answers(message):
        waiting.append(message)
        if len(waiting) == 2:
            for asked in reversed(waiting):
                yield from Writes()(asked)

    with instrumented() as seen, SocketServer(answers) as server:
        with connecting(server, Writes) as connection:
            for lane, model in (("a", "gpt-5-mini"), ("b", "gpt-5-nano")):
                asked = {"type": "response.create", "model": model, "input": "One river.", "stream_id": lane}
                connection.send(asked)
            heard(connection)
            heard(connection)
        assert [event.status for event in seen.of("commit")] == ["ok", "ok"]
        assert {event.usage["tokens_out"] for event in seen.of("commit")} == {87}


def test_what_a_lost_response_may_have_cost_goes_by_its_sound(instrumented):
    """A second of sound is sixty tokens at the most, and not as many as it has bytes."""
    second = base64.b64encode(bytes(48_000)).decode()
    server = SocketServer(lambda message: [DROP] if message["type"] == "response.create" else [])
    with instrumented() as seen, server:
        with connecting(server) as connection:
            connection.input_audio_buffer.append(audio=second)
            connection.response.create()
            with pytest.raises(ConnectionClosedError):
                connection.recv()
        found = settled(seen)
    assert found.estimated
    assert 0 < found.cost_est_usd < Decimal("0.1")


def test_without_us_again(case, instrumented):
    """After `uninstrument` the connections of websockets are what they were."""
    names = ("send", "recv", "close")
    before = [getattr(owner, name) for owner in (ClientConnection, AsyncConnection) for name in names]
    with instrumented() as seen:
        assert ClientConnection.send is not before[0]
    assert [getattr(owner, name) for owner in (ClientConnection, AsyncConnection) for name in names] == before
    assert talk(case)[0]
    assert seen.events == []


def test_the_row_is_in_the_table(case):
    """The method that a case calls has its row."""
    assert case.site in {f"{site.module}:{site.name}" for site in CALL_SITES}
