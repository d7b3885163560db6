"""dashscope over websockets, against the messages that Alibaba Cloud's Model Studio documents.

Tasks: the references "CosyVoice server-side events", "Fun-ASR server-side events", "Paraformer WebSocket API" and
"Multimodal interaction protocol". Realtime: "Qwen-TTS server events" and "Qwen-Omni server events"; all of them on
alibabacloud.com/help/en/model-studio. The SDK's classes speak by aiohttp and by websocket-client.
"""

import asyncio
import base64
import contextlib
import gc
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

dashscope = pytest.importorskip("dashscope", reason="the dashscope SDK is not installed")
pytest.importorskip("websocket", reason="websocket-client is not installed")

import websocket._core as websocket_client  # noqa: E402
from aiohttp.client_ws import ClientWebSocketResponse  # noqa: E402
from dashscope import Generation  # noqa: E402
from dashscope.aigc.generation import AioGeneration  # noqa: E402
from dashscope.audio import asr, qwen_omni, qwen_tts_realtime, tts, tts_v2  # noqa: E402
from dashscope.common.error import InvalidParameter  # noqa: E402
from dashscope.multimodal import multimodal_dialog, multimodal_request_params  # noqa: E402
from dashscope.multimodal.tingwu import tingwu_realtime  # noqa: E402
from dashscope.v2 import Client  # noqa: E402
from socket_server import CLOSE, DROP, SocketServer, settled  # noqa: E402

from tollspan.budget import BudgetExceeded, UnboundedCost, UnpricedModel, budget, scope  # noqa: E402
from tollspan.instrumentation import CALL_SITES, uncovered, uninstrument  # noqa: E402
from tollspan.ledger import open_ledger  # noqa: E402

INFERENCE, REALTIME = "/api-ws/v1/inference", "/api-ws/v1/realtime"
SOUND, HEARD = b"\x01\x02" * 300, b"\x00\x01" * 800
TEXT = "Before my bed, moonlight shines bright."
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning", "ignore:no workspace configured", "ignore:dashscope 2.0 audio API is a preview"
)


# ---- what the server says


def event(task, kind, payload=None, **header):
    """An event of a task."""
    return {"header": {"task_id": task, "event": kind, "attributes": {}} | header, "payload": payload or {}}


def told(task, usage=None, **output):
    """An event with a part of the result."""
    return event(task, "result-generated", {"output": output} | ({"usage": usage} if usage else {}))


def spoken(task):
    """A sentence of CosyVoice's, and what it has cost so far."""
    yield told(task, type="sentence-begin", sentence={"index": 0, "words": []})
    yield told(task, type="sentence-synthesis", sentence={"index": 0, "words": []})
    yield SOUND
    yield told(task, {"characters": len(TEXT)}, type="sentence-end", sentence={"index": 0, "words": []})


def recognised(task):
    """Two states of a sentence that Fun-ASR hears; the later one with the usage so far."""
    sentence = {"begin_time": 0, "end_time": None, "text": "Hello", "heartbeat": False, "sentence_end": False}
    yield told(task, sentence=sentence)
    done = sentence | {"end_time": 920, "text": "Hello, world.", "sentence_end": True}
    yield told(task, {"duration": 3}, sentence=done)


def translated(task):
    """A sentence that Gummy hears and translates."""
    times = {"sentence_id": 0, "begin_time": 0, "end_time": 920, "words": [], "sentence_end": True}
    heard = times | {"text": "Hello."}
    yield told(task, {"duration": 3}, transcription=heard, translations=[heard | {"lang": "zh", "text": "你好。"}])


def written(task):
    """Text, as it is asked for over a websocket."""
    yield told(task, {"input_tokens": 10, "output_tokens": 2}, text="Dan", finish_reason="null")
    yield told(task, {"input_tokens": 10, "output_tokens": 5}, text="Danube.", finish_reason="stop")


def conversed(task):
    """What a dialogue says when it has begun, and when it stops. Its usage is told by nobody."""
    yield told(task, event="Started", dialog_id="d1")
    yield told(task, event="Stopped", dialog_id="d1")


FAILURE = {"error_code": "InvalidParameter", "error_message": "[tts:]Engine return error code: 418"}


class Tasks:
    """Runs tasks: `result` is said as soon as `asked` comes, then `end`."""

    def __init__(self, result, asked="finish-task", usage=None, end="finished"):
        self.result, self.asked, self.usage, self.end = result, asked, usage, end

    def __call__(self, message):
        if isinstance(message, bytes):
            return
        action, task = message["header"]["action"], message["header"]["task_id"]
        if action == "run-task" and self.end == "refused":
            yield event(task, "task-failed", **FAILURE)
            return
        if action == "run-task":
            yield event(task, "task-started")
        if action == self.asked:
            yield from self.result(task)
            yield from self._ending(task)

    def _ending(self, task):
        if self.end == "finished":
            payload = {"output": {}} if self.usage is None else {"output": None, "usage": self.usage}
            yield event(task, "task-finished", payload)
        elif self.end == "failed":
            yield event(task, "task-failed", **FAILURE)
        elif self.end != "silence":
            yield self.end


TOKENS = {
    "total_tokens": 150,
    "input_tokens": 100,
    "output_tokens": 50,
    "input_tokens_details": {"text_tokens": 40, "audio_tokens": 60},
    "output_tokens_details": {"text_tokens": 10, "audio_tokens": 40},
}


class Realtime:
    """Makes a response whenever one of these is asked for."""

    def __init__(self, *asked, usage, end="finished"):
        self.asked, self.usage, self.end = asked, usage, end

    def __call__(self, message):
        kind = message["type"]
        if kind == "session.update":
            yield {"type": "session.updated", "session": {"id": "s1"}}
        if kind == "session.finish":
            yield {"type": "session.finished"}
            yield CLOSE
        if kind in self.asked and self.end == "refused":
            yield {"type": "error", "error": {"code": "invalid_value", "message": "no voice"}}
        elif kind in self.asked:
            yield {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
            yield {"type": "response.audio.delta", "delta": base64.b64encode(SOUND).decode(), "response_id": "resp_1"}
            yield from self._ending()

    def _ending(self):
        if self.end in {"finished", "failed"}:
            failed = self.end == "failed"
            response = {"id": "resp_1", "status": "failed" if failed else "completed"}
            yield {"type": "response.done", "response": response | ({} if failed else {"usage": self.usage})}
        elif self.end != "silence":
            yield self.end


# ---- what the application does


class Hears:
    """Callbacks of all classes: notes what it is told, and that the last of it has come."""

    def __init__(self):
        self.told, self.over = [], threading.Event()

    def note(self, name, *args):
        self.told.append(name)
        if name in {"on_complete", "on_error", "on_close", "on_stopped"} or _is_last(args):
            self.over.set()

    @property
    def heard(self):
        """What came, but for the end of the connection, which two threads of the SDK may tell."""
        return [name for name in self.told if name != "on_close"]


def _is_last(args):
    return any(isinstance(arg, dict) and arg.get("type") in {"response.done", "error"} for arg in args)


def hearing(base):
    """An instance of one of the SDK's callbacks that notes every call."""

    class Noting(base):
        def __init__(self):
            self.hears = Hears()

    for name in dir(base):
        if name.startswith("on_"):
            setattr(Noting, name, lambda self, *args, _name=name, **kw: self.hears.note(_name, *args, *kw.values()))
    return Noting()


def sambert(url):
    """Whole, by aiohttp."""
    return tts.SpeechSynthesizer.call("sambert-zhichu-v1", TEXT, base_address=url).get_audio_data()


def cosyvoice(url):
    """Whole, by websocket-client."""
    return tts_v2.SpeechSynthesizer("cosyvoice-v3-flash", "longanyang", url=url).call(TEXT)


def cosyvoice_by_callback(url):
    """At once; the sound comes to callbacks."""
    callback = hearing(tts_v2.ResultCallback)
    synthesizer = tts_v2.SpeechSynthesizer("cosyvoice-v3-flash", "longanyang", url=url, callback=callback)
    synthesizer.call(TEXT)
    callback.hears.over.wait(5)
    return callback.hears.heard


def cosyvoice_in_pieces(url):
    """Text in pieces, sound to callbacks."""
    callback = hearing(tts_v2.ResultCallback)
    synthesizer = tts_v2.SpeechSynthesizer("cosyvoice-v3-flash", "longanyang", url=url, callback=callback)
    for word in TEXT.split():
        synthesizer.streaming_call(word)
    synthesizer.streaming_complete(5000)
    return callback.hears.heard


def recognition(url):
    """A whole file."""
    made = asr.Recognition("fun-asr-realtime", None, "pcm", 16000, base_address=url)
    return made.call(sound_file()).get_sentence()


def recognition_by_callback(url):
    """Sound in pieces, text to callbacks."""
    callback = hearing(asr.RecognitionCallback)
    recogniser = asr.Recognition("fun-asr-realtime", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    with contextlib.suppress(InvalidParameter):  # it may have been told already that the task has failed
        recogniser.send_audio_frame(HEARD)
        recogniser.stop()
    return callback.hears.heard


def translation(url):
    """A whole file."""
    made = asr.TranslationRecognizerRealtime("gummy-realtime-v1", None, "pcm", 16000, base_address=url)
    return len(made.call(sound_file()).transcription_result_list)


def translation_by_callback(url):
    """Sound in pieces, text to callbacks."""
    callback = hearing(asr.TranslationRecognizerCallback)
    recogniser = asr.TranslationRecognizerRealtime("gummy-realtime-v1", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    with contextlib.suppress(InvalidParameter):  # it may have been told already that the task has failed
        recogniser.send_audio_frame(HEARD)
        recogniser.stop()
    return callback.hears.heard


def chat_by_callback(url):
    """One sentence, text to callbacks."""
    callback = hearing(asr.TranslationRecognizerCallback)
    recogniser = asr.TranslationRecognizerChat("gummy-chat-v1", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    with contextlib.suppress(InvalidParameter):  # it may have been told already that the task has failed
        recogniser.send_audio_frame(HEARD)
        recogniser.stop()
    return callback.hears.heard


def sound_file():
    """A file with something to hear."""
    path = _FOLDER / "heard.pcm"
    path.write_bytes(HEARD)
    return str(path)


ASK = {"model": "qwen-plus", "prompt": "One river.", "api_protocol": "websocket", "stream": True}


def generation(url):
    """Text, as a stream."""
    return [part.output.text for part in Generation.call(**ASK, base_address=url)]


def generation_in_a_task(url):
    """Text, as a stream."""

    async def work():
        parts = await AioGeneration.call(**ASK, base_address=url)
        return [part.output.text async for part in parts]

    return asyncio.run(work())


def dialog(url):
    """A dialogue that is stopped at once."""
    callback = hearing(multimodal_dialog.MultiModalCallback)
    params = multimodal_request_params
    asked = params.RequestParameters(
        upstream=params.Upstream(type="AudioOnly", mode="tap2talk"),
        downstream=params.Downstream(),
        client_info=params.ClientInfo(user_id="u", device=params.Device(uuid="d")),
    )
    made = multimodal_dialog.MultiModalDialog("app", asked, callback, url=url, api_key="k", model="multimodal-dialog")
    made.start(None)
    made.stop()
    callback.hears.over.wait(5)
    made.close()
    return callback.hears.told.count("on_started")


def meeting(url):
    """A meeting that nobody attends."""
    callback = hearing(tingwu_realtime.TingWuRealtimeCallback)
    made = tingwu_realtime.TingWuRealtime("tingwu-industrial", callback, api_key="k", base_address=url, app_id="a")
    made.start()
    made.stop()
    callback.hears.over.wait(5)
    made.close()
    return callback.hears.told.count("on_stopped")


def client_speech(url):
    """The `Client`'s, on a connection of its own."""
    with Client(api_key="k").audio.tts.connect(model="cosyvoice-v3-flash", ws_url=url) as session:
        session.send_text(TEXT)
        session.stop()
        return list(session.audio_chunks())


def client_speech_on_shared_connection(url):
    """The `Client`'s, two after one another on one connection."""
    with contextlib.closing(Client(api_key="k").ws_connection(url=url)) as connection:
        sounds = []
        for _ in range(2):
            with Client(api_key="k").audio.tts.connect(model="cosyvoice-v3-flash", connection=connection) as session:
                session.send_text(TEXT)
                session.stop()
                sounds += session.audio_chunks()
        return sounds


def qwen_speech(url):
    """Text that is committed at once, sound to callbacks."""
    callback = hearing(qwen_tts_realtime.QwenTtsRealtimeCallback)
    made = qwen_tts_realtime.QwenTtsRealtime("qwen3-tts-flash-realtime", callback=callback, url=url)
    made.connect()
    made.update_session(voice="Cherry", mode="commit")
    made.append_text(TEXT)
    made.commit()
    callback.hears.over.wait(5)
    made.close()
    return callback.hears.told.count("on_event")


def omni(url):
    """What was heard is answered when that is asked for."""
    callback = hearing(qwen_omni.OmniRealtimeCallback)
    made = qwen_omni.OmniRealtimeConversation("qwen3-omni-flash-realtime", callback, url=url)
    made.connect()
    made.update_session([qwen_omni.MultiModality.AUDIO], voice="Cherry", enable_turn_detection=False)
    made.append_audio(base64.b64encode(HEARD).decode())
    made.commit()
    made.create_response()
    callback.hears.over.wait(5)
    made.close()
    return callback.hears.told.count("on_event")


def client_omni(url):
    """The `Client`'s."""
    with Client(api_key="k").audio.realtime.connect(model="qwen3-omni-flash-realtime", ws_url=url) as session:
        session.send_event({"type": "input_audio_buffer.append", "audio": base64.b64encode(HEARD).decode()})
        session.send_event({"type": "response.create"})
        kinds = []
        for said in session.events():
            kinds.append(said["type"])
            if kinds[-1] in {"response.done", "error"}:
                return kinds
    return kinds


# ---- the cases


@dataclass(frozen=True)
class Case:
    """One way to talk. `site` is the row that covers it, `run` what the application does with the address."""

    name: str
    site: str
    run: Callable[[str], Any]
    server: Callable[..., Any]
    usage: Mapping[str, float] | None
    model: str
    path: str = INFERENCE
    operation: str = "text_to_speech"
    calls: int = 1

    @property
    def id(self):
        return self.name.replace(" ", "-")


def speaking(result, usage, asked="finish-task"):
    return lambda end="finished": Tasks(result, asked, usage, end)


def answering(*asked, usage):
    return lambda end="finished": Realtime(*asked, usage=usage, end=end)


A = "dashscope.audio"
CHARACTERS, SECONDS = {"characters_in": len(TEXT)}, {"audio_seconds": 3}
TOLD = {"tokens_in": 100, "tokens_out": 50, "tokens_audio_in": 60, "tokens_audio_out": 40}
SPEECH = speaking(spoken, {"characters": len(TEXT)})
OMNI = answering("response.create", usage=TOKENS)
HEARING, TRANSLATING = speaking(recognised, None), speaking(translated, None)
WRITING = speaking(written, None, asked="run-task")
COSY, FUN, GUMMY = "cosyvoice-v3-flash", "fun-asr-realtime", "gummy-realtime-v1"
REQUEST = "dashscope.api_entities.websocket_request:WebSocketRequest"
V2 = f"{A}.tts_v2.speech_synthesizer:SpeechSynthesizer"
ASR = f"{A}.asr.recognition:Recognition"
GUM = f"{A}.asr.translation_recognizer:TranslationRecognizer"
CASES = [
    Case("sambert", f"{REQUEST}.call", sambert, speaking(spoken_whole := lambda task: [
        told(task, sentence={"begin_time": 0, "end_time": 920, "words": []}), SOUND,
    ], {"characters": len(TEXT)}, asked="run-task"), CHARACTERS, "sambert-zhichu-v1"),
    Case("cosyvoice", f"{V2}.call", cosyvoice, SPEECH, CHARACTERS, COSY),
    Case("cosyvoice by callback", f"{V2}.call", cosyvoice_by_callback, SPEECH, CHARACTERS, COSY),
    Case("cosyvoice in pieces", f"{V2}.streaming_call", cosyvoice_in_pieces, SPEECH, CHARACTERS, COSY),
    Case("recognition", f"{ASR}.call", recognition, HEARING, SECONDS, FUN, operation="transcription"),
    Case("recognition by callback", f"{ASR}.start", recognition_by_callback, HEARING, SECONDS, FUN,
         operation="transcription"),
    Case("translation", f"{GUM}Realtime.call", translation, TRANSLATING, SECONDS, GUMMY, operation="transcription"),
    Case("translation by callback", f"{GUM}Realtime.start", translation_by_callback, TRANSLATING, SECONDS, GUMMY,
         operation="transcription"),
    Case("chat by callback", f"{GUM}Chat.start", chat_by_callback, TRANSLATING, SECONDS, "gummy-chat-v1",
         operation="transcription"),
    Case("generation", f"{REQUEST}.call", generation, WRITING, {"tokens_in": 10, "tokens_out": 5}, "qwen-plus",
         operation="generate_content"),
    Case("async generation", f"{REQUEST}.aio_call", generation_in_a_task, WRITING, {"tokens_in": 10, "tokens_out": 5},
         "qwen-plus", operation="chat"),
    Case("dialog", "dashscope.multimodal.multimodal_dialog:MultiModalDialog.start", dialog, speaking(conversed, None),
         None, "multimodal-dialog", operation="generate_content"),
    Case("meeting", "dashscope.multimodal.tingwu.tingwu_realtime:TingWuRealtime.start", meeting,
         speaking(lambda task: [told(task, action="speech-end")], None), None, "tingwu-industrial",
         operation="generate_content"),
    Case("client speech", "dashscope.v2.transport.ws:WsSession.run_task", client_speech, SPEECH, CHARACTERS, COSY),
    Case("client speech on a shared connection", "dashscope.v2.transport.ws_connection:WsTask.run_task",
         client_speech_on_shared_connection, SPEECH, CHARACTERS, COSY, calls=2),
    Case("qwen speech", f"{A}.qwen_tts_realtime.qwen_tts_realtime:QwenTtsRealtime.commit", qwen_speech,
         answering("input_text_buffer.commit", usage={"characters": len(TEXT)}), CHARACTERS,
         "qwen3-tts-flash-realtime", REALTIME, "chat"),
    Case("omni", f"{A}.qwen_omni.omni_realtime:OmniRealtimeConversation.create_response", omni, OMNI, TOLD,
         "qwen3-omni-flash-realtime", REALTIME, "chat"),
    Case("client omni", "dashscope.v2.resources.audio.realtime:RealtimeSession.send_event", client_omni, OMNI, TOLD,
         "qwen3-omni-flash-realtime", REALTIME, "chat"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def account(monkeypatch, tmp_path):
    """A key, and somewhere to put what is to be heard."""
    global _FOLDER  # noqa: PLW0603 - the functions above are called with an address alone
    _FOLDER = tmp_path
    monkeypatch.setattr(dashscope, "api_key", "sk-test")


def outcome(case, url):
    """What the application gets; of an exception, its type and text."""
    try:
        return case.run(url)
    except Exception as error:  # noqa: BLE001 - whichever it is, it is to be the same
        return type(error), re.sub(r"[0-9a-f]{32}", "", str(error).replace(url, ""))


def talk(case, end="finished", run=outcome):
    """Run a case against a server that ends in this way; gives what came of it, and the server."""
    with SocketServer(case.server(end)) as server:
        return run(case, server.url(case.path)), server


def test_a_talk(case, instrumented):
    """What comes is as without us; each task or response is one commit with exactly the usage that is told."""
    bare, _ = talk(case)
    assert not isinstance(bare, tuple), bare
    with instrumented() as seen:
        shown, _ = talk(case)
        events, spans = seen.of("commit", "cancel"), seen.spans
        assert seen.open_holds == 0
    assert shown == bare
    assert len(events) == len(spans) == case.calls
    for found, span in zip(events, spans, strict=True):
        assert (found.event_type, found.status, found.error_type) == ("commit", "ok", None)
        assert (found.provider, found.model, found.operation) == ("dashscope", case.model, case.operation)
        assert dict(found.usage) == (case.usage or {})
        assert found.cost_actual_usd is not None or (found.cost_source == "unpriced" and found.reason)
        assert span.attributes["gen_ai.request.model"] == case.model
    assert not uncovered


def test_time_to_the_first_chunk(case, instrumented):
    """Sound and text that come before the end have their time; what a thread of the SDK's hears, too."""
    with instrumented() as seen:
        talk(case)
        for found in seen.of("commit"):
            assert 0 < found.timing["ttft_ms"] <= found.timing["total_ms"]


# Others wait for ever, without us as well, where the server falls silent.
NOTICES = {"sambert", "recognition", "translation", "generation", "async generation", "client speech", "client omni"}
REALTIMES = {"qwen speech", "omni", "client omni"}
REFUSABLE = {case.name for case in CASES} - {"dialog", "meeting"}


def test_a_refused_task_costs_nothing(case, instrumented):
    """A task or response that the provider refuses before anything came of it is a cancel, and the error is its own."""
    if case.name not in REFUSABLE:
        pytest.skip("these tell an error to a callback, and wait")
    bare, _ = talk(case, "refused")
    with instrumented() as seen:
        shown, _ = talk(case, "refused")
        found = seen.end
        assert seen.open_holds == 0
    assert shown == bare
    assert (found.event_type, found.status) == ("cancel", "error")
    assert found.error_type == ("invalid_value" if case.name in REALTIMES else "InvalidParameter")


def test_a_task_that_fails_in_the_middle(case, instrumented):
    """What came before the failure may be billed: it is an estimate, and an error. A response bills none."""
    if case.name not in REFUSABLE:
        pytest.skip("these tell an error to a callback, and wait")
    bare, _ = talk(case, "failed")
    with instrumented() as seen:
        shown, _ = talk(case, "failed")
        found = seen.of("commit", "cancel")[0]
        assert seen.open_holds == 0
    assert shown == bare
    kind = ("cancel", "failed") if case.name in REALTIMES else ("commit", "InvalidParameter")
    assert (found.event_type, found.error_type, found.status) == (*kind, "error")
    assert not found.usage


@pytest.mark.parametrize("end", [DROP, CLOSE])
def test_a_connection_that_is_lost(case, end, instrumented):
    """Nobody can tell what has been billed: an estimate, as an error, once."""
    if case.name not in NOTICES:
        pytest.skip("these wait for ever, without us as well")
    bare, _ = talk(case, end)
    with instrumented() as seen:
        shown, _ = talk(case, end)
        found = seen.end
        assert seen.open_holds == 0
    assert shown == bare
    assert (found.event_type, found.status) == ("commit", "error")
    assert found.error_type
    assert not found.usage
    assert found.reason


def test_a_strict_budget_refuses_before_a_task_is_run(case, instrumented):
    """The caller of the method that would have sent it gets the refusal, and the server never hears of it."""
    with instrumented() as seen:

        def refused(case, url):
            with budget("0.000001 USD", name="strict"), pytest.raises((BudgetExceeded, UnboundedCost, UnpricedModel)):
                case.run(url)

        _, server = talk(case, run=refused)
        assert server.said("run-task", "response.create", "input_text_buffer.append", "input_audio_buffer.append") == []
        assert {found.event_type for found in seen.events} == {"cancel"}
        assert seen.open_holds == 0


def test_a_budget_that_is_told_what_to_hold(case, instrumented, monkeypatch):
    """It holds that for each task while it runs; what is without a price is held as spent, and the next is refused."""
    monkeypatch.setenv("TOLLSPAN_HOLD_USD", "0.0001")
    with instrumented() as seen:

        def twice(case, url):
            with budget("0.00015 USD", name="one task"):
                first = case.run(url)
                with pytest.raises(BudgetExceeded):
                    case.run(url)
            return first

        if case.calls > 1:
            pytest.skip("this makes two at once")
        if case.model == "qwen-plus":
            pytest.skip("it has a price, and is spent at that")
        bare, _ = talk(case)
        shown, server = talk(case, run=twice)
        assert shown == bare
        assert len(server.said("run-task", "response.create", "input_text_buffer.commit")) == 1
        assert seen.open_holds == 0


def test_a_budget_of_best_effort_blocks_nothing(case, instrumented):
    """It only counts, and what it cannot price says why."""
    with instrumented() as seen:

        def spent(case, url):
            with budget("0.000001 USD", name="soft", mode="best_effort"):
                return case.run(url)

        shown, _ = talk(case, run=spent)
        assert shown == talk(case)[0]
        assert len(seen.of("commit")) == 2 * case.calls


def test_without_us_again(case, instrumented):
    """After `uninstrument` every method is what it was, and nothing is counted."""
    methods = websocket_client.WebSocket.send, ClientWebSocketResponse.send_str, ClientWebSocketResponse.receive
    with instrumented():
        assert websocket_client.WebSocket.send is not methods[0]
    assert methods == (
        websocket_client.WebSocket.send,
        ClientWebSocketResponse.send_str,
        ClientWebSocketResponse.receive,
    )
    bare, _ = talk(case)
    with instrumented() as seen:
        pass
    assert talk(case)[0] == bare
    assert seen.events == []


def test_the_row_is_in_the_table(case):
    """The method that a case calls has its row."""
    assert case.site in {f"{site.module}:{site.name}" for site in CALL_SITES}


# ---- endings, one by one


def speaker(server):
    """A synthesizer whose text comes in pieces."""
    url = server.url(INFERENCE)
    return tts_v2.SpeechSynthesizer(COSY, "longanyang", url=url, callback=tts_v2.ResultCallback())


def test_a_connection_is_lost_under_a_class_that_waits(instrumented):
    """It waits for its time-out; the call was settled when the connection was lost."""
    with instrumented() as seen, SocketServer(SPEECH(DROP)) as server:
        synthesizer = tts_v2.SpeechSynthesizer(
            COSY, "longanyang", url=server.url(INFERENCE), callback=tts_v2.ResultCallback()
        )
        synthesizer.streaming_call(TEXT)
        with pytest.raises(TimeoutError):
            synthesizer.streaming_complete(200)
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "error")
    assert found.error_type


def test_a_synthesis_that_is_cancelled(instrumented):
    """The server says how much it has spoken: that is billed, and no estimate."""
    with instrumented() as seen, SocketServer(SPEECH()) as server:
        synthesizer = tts_v2.SpeechSynthesizer(
            COSY, "longanyang", url=server.url(INFERENCE), callback=tts_v2.ResultCallback()
        )
        synthesizer.streaming_call(TEXT)
        synthesizer.streaming_cancel()
        found = settled(seen)
    assert (found.event_type, found.status, dict(found.usage)) == ("commit", "ok", CHARACTERS)


def test_a_synthesis_that_is_closed_early(instrumented):
    """Nobody tells what it has used: an estimate, and the caller's doing."""
    with instrumented() as seen, SocketServer(SPEECH("silence")) as server:
        synthesizer = tts_v2.SpeechSynthesizer(
            COSY, "longanyang", url=server.url(INFERENCE), callback=tts_v2.ResultCallback()
        )
        synthesizer.streaming_call(TEXT)
        synthesizer.close()
        found = settled(seen)
    assert (found.event_type, found.status, found.error_type) == ("commit", "cancelled", None)
    assert found.reason


def test_a_session_that_is_left_by_its_block(instrumented):
    """As with a stream that is left: one commit, cancelled."""
    with instrumented() as seen, SocketServer(SPEECH("silence")) as server:
        with Client(api_key="k").audio.tts.connect(model=COSY, ws_url=server.url(INFERENCE)) as session:
            session.send_text(TEXT)
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_a_session_that_is_dropped(instrumented):
    """Nobody closes it: when the garbage collector finds it, its call is settled."""
    with instrumented() as seen, SocketServer(OMNI("silence")) as server:
        session = Client(api_key="k").audio.realtime.connect(model="qwen", ws_url=server.url(REALTIME)).connect()
        session.send_event({"type": "response.create"})
        del session
        gc.collect()
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_a_stream_that_is_closed_goes_on_in_its_thread(instrumented):
    """The SDK's thread hears the rest, without us as well: so its usage is known."""
    with instrumented() as seen, SocketServer(WRITING()) as server:
        stream = Generation.call(**ASK, base_address=server.url(INFERENCE))
        next(stream)
        stream.close()
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "ok")
    assert dict(found.usage) == {"tokens_in": 10, "tokens_out": 5}


def test_a_stream_that_is_never_read_is_no_call(instrumented):
    """Nothing is sent before its first item is asked for."""
    with instrumented() as seen, SocketServer(WRITING()) as server:
        stream = Generation.call(**ASK, base_address=server.url(INFERENCE))
        del stream
        gc.collect()
        assert seen.events == server.heard == []


def test_a_task_that_is_cancelled(instrumented):
    """A task of asyncio that is cancelled while it waits for the rest: one commit, cancelled."""

    async def work(url):
        parts = await AioGeneration.call(**ASK, base_address=url)
        reading = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0.2)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await parts.aclose()

    with (
        instrumented() as seen,
        SocketServer(lambda message: [event(message["header"]["task_id"], "task-started")]) as server,
    ):
        asyncio.run(work(server.url(INFERENCE)))
        found = settled(seen)
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_no_server_is_there(instrumented):
    """Nothing was sent: a cancel, and what the SDK says of it."""
    with SocketServer(SPEECH()) as server:
        url = server.url(INFERENCE)
    with instrumented() as seen:
        assert [part.status_code for part in Generation.call(**ASK, base_address=url)] == [-1]
        assert settled(seen).event_type == "cancel"


def test_a_thread_that_finds_no_server(instrumented):
    """The call that was admitted for it is a cancel."""
    with SocketServer(SPEECH()) as server:
        url = server.url(INFERENCE)
    with instrumented() as seen:
        callback = hearing(asr.RecognitionCallback)
        recogniser = asr.Recognition(FUN, callback, "pcm", 16000, base_address=url)
        recogniser.start()
        assert callback.hears.over.wait(10)
        assert settled(seen).event_type == "cancel"


def test_a_method_that_refuses_by_itself(instrumented):
    """A recogniser that runs already says so, and no second call is made of it."""
    with instrumented() as seen, SocketServer(HEARING()) as server:
        recogniser = asr.Recognition(
            FUN, hearing(asr.RecognitionCallback), "pcm", 16000, base_address=server.url(INFERENCE)
        )
        recogniser.start()
        with pytest.raises(InvalidParameter):
            recogniser.start()
        recogniser.send_audio_frame(HEARD)
        recogniser.stop()
        assert settled(seen).status == "ok"


def test_after_a_refusal_the_same_object_still_works(instrumented):
    """A budget refuses before the SDK has noted that it has begun."""
    with instrumented() as seen, SocketServer(SPEECH()) as speech, SocketServer(HEARING()) as heard:
        synthesizer = tts_v2.SpeechSynthesizer(COSY, "longanyang", url=speech.url(INFERENCE))
        recogniser = asr.Recognition(FUN, None, "pcm", 16000, base_address=heard.url(INFERENCE))
        for call in (lambda: synthesizer.call(TEXT), lambda: recogniser.call(sound_file())):
            with budget("1 USD", name="strict"), pytest.raises(UnboundedCost):
                call()
            assert call()
        assert [event.event_type for event in seen.of("commit", "cancel")] == ["cancel", "commit"] * 2


def test_what_a_thread_hears_belongs_to_the_scope_of_its_caller(instrumented):
    """The thread knows no scope; the call was opened where it was started."""
    with instrumented() as seen, SocketServer(HEARING()) as server:
        with scope(user="ada"):
            recognition_by_callback(server.url(INFERENCE))
        assert settled(seen).user_id == "ada"


def test_two_tasks_at_a_time(instrumented):
    """On one connection, each is a call with its own usage."""
    spent = {}

    def answers(message):
        task = message["header"]["task_id"]
        if message["header"]["action"] == "run-task":
            yield event(task, "task-started")
        elif message["header"]["action"] == "continue-task":
            spent[task] = len(message["payload"]["input"]["text"])
        else:
            yield event(task, "task-finished", {"usage": {"characters": spent[task]}})

    asked = {"task_group": "audio", "task": "tts", "function": "SpeechSynthesizer"}
    with instrumented() as seen, SocketServer(answers) as server:
        with contextlib.closing(Client(api_key="k").ws_connection(url=server.url(INFERENCE))) as connection:
            one, other = connection.open_task(), connection.open_task()
            one.run_task(**asked, model="one")
            other.run_task(**asked, model="other")
            other.continue_task({"text": "Danube"})
            one.continue_task({"text": "Po"})
            for task in (one, other):
                task.finish_task()
                assert task.recv_event()["header"]["event"] == "task-finished"
        used = {event.model: dict(event.usage) for event in seen.of("commit")}
    assert used == {"one": {"characters_in": 2}, "other": {"characters_in": 6}}


def test_sound_in_which_nothing_is_heard_costs_nothing(instrumented):
    """A session that was only listened to is a cancel when it is closed."""
    with instrumented() as seen, SocketServer(OMNI()) as server:
        with Client(api_key="k").audio.realtime.connect(model="qwen", ws_url=server.url(REALTIME)) as session:
            session.send_event({"type": "input_audio_buffer.append", "audio": "AAAA"})
        assert settled(seen).event_type == "cancel"


def test_what_the_server_begins_is_counted_too(instrumented):
    """In a session that takes turns by itself, each response is one commit, whoever has begun it."""
    done = {"type": "response.done", "response": {"id": "r", "status": "completed", "usage": TOKENS}}
    turns = ({"type": "response.created", "response": {"id": "r"}}, done)
    server = SocketServer(lambda message: (*turns, *turns, CLOSE))
    with instrumented() as seen, server:
        with Client(api_key="k").audio.realtime.connect(model="qwen", ws_url=server.url(REALTIME)) as session:
            session.send_event({"type": "input_audio_buffer.append", "audio": "AAAA"})
            list(session.events())
        assert [dict(event.usage) for event in seen.of("commit")] == [TOLD, TOLD]
        assert seen.open_holds == 0


def test_other_websockets_are_left_alone(instrumented):
    """What is neither a task nor a realtime session is nobody's call."""
    import websocket  # noqa: PLC0415 - websocket-client's, only here

    with instrumented() as seen, SocketServer(lambda message: [message]) as server:
        plain = websocket.create_connection(server.url("/chat"))
        plain.send('{"header": {"action": "run"}, "payload": {"model": "m"}}')
        assert "run" in plain.recv()
        plain.close()
        assert seen.events == []


_LEFT_OPEN = """
import sys
from tollspan.instrumentation import instrument
instrument()
from dashscope.v2 import Client
session = Client(api_key="k").audio.realtime.connect(model="qwen", ws_url=sys.argv[1]).connect()
session.send_event({"type": "response.create"})
"""


def test_a_process_that_ends_with_an_open_session(ledger_path):
    """It is settled when the process ends, and no hold stays."""
    with SocketServer(OMNI("silence")) as server:
        command = [sys.executable, "-W", "ignore", "-c", _LEFT_OPEN, server.url(REALTIME)]
        subprocess.run(command, check=True, timeout=60)
    with open_ledger(f"sqlite:///{ledger_path}") as ledger:
        (found,) = ledger.events
        assert ledger.open_holds().calls == 0
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_what_is_open_when_we_are_taken_away(instrumented):
    """Nobody is going to hear its end, so it is settled then."""
    with instrumented() as seen, SocketServer(SPEECH("silence")) as server:
        synthesizer = speaker(server)
        synthesizer.streaming_call(TEXT)
        uninstrument()
        found = settled(seen)
        synthesizer.close()
    assert (found.event_type, found.status) == ("commit", "cancelled")


def test_what_is_only_put_into_a_conversation_costs_nothing(instrumented):
    """Nobody has asked for a response: a cancel."""
    with instrumented() as seen, SocketServer(OMNI()) as server:
        with Client(api_key="k").audio.realtime.connect(model="qwen", ws_url=server.url(REALTIME)) as session:
            session.send_event({"type": "conversation.item.create", "item": {"type": "message"}})
        assert settled(seen).event_type == "cancel"


def test_a_connection_that_is_opened_once_more(instrumented):
    """What was open on it is settled, and what comes then belongs to where it leads now."""
    import websocket  # noqa: PLC0415 - websocket-client's, only here

    run = {"action": "run-task", "streaming": "duplex"}
    with instrumented() as seen, SocketServer(SPEECH("silence")) as first, SocketServer(OMNI()) as other:
        socket = websocket.WebSocket()
        socket.connect(first.url(INFERENCE))
        socket.send(json.dumps({"header": run | {"task_id": "t"}, "payload": {"model": COSY, "task": "tts"}}))
        socket.connect(f"{other.url(REALTIME)}?model=qwen")
        socket.send(json.dumps({"type": "response.create"}))
        while json.loads(socket.recv())["type"] != "response.done":
            pass
        socket.close()
        assert [(event.model, event.status) for event in seen.of("commit")] == [(COSY, "cancelled"), ("qwen", "ok")]
