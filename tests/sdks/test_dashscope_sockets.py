"""dashscope over websockets, against the messages that Alibaba Cloud's Model Studio documents.

Tasks: the references "CosyVoice server-side events", "Fun-ASR server-side events", "Paraformer WebSocket API" and
"Multimodal interaction protocol". Realtime: "Qwen-TTS server events" and "Qwen-Omni server events". (help.aliyun.com and
alibabacloud.com/help/en/model-studio.) Its classes speak by aiohttp and by websocket-client.
"""

import asyncio
import base64
import contextlib
import gc
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
from dashscope.multimodal import multimodal_dialog, multimodal_request_params  # noqa: E402
from dashscope.multimodal.tingwu import tingwu_realtime  # noqa: E402
from dashscope.v2 import Client  # noqa: E402
from socket_server import CLOSE, DROP, SocketServer  # noqa: E402

from tollspan.budget import BudgetExceeded, UnboundedCost, budget  # noqa: E402
from tollspan.instrumentation import CALL_SITES, uncovered  # noqa: E402

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
            payload = {"output": {"event": "Stopped"}} if self.usage is None else {"output": {}, "usage": self.usage}
            yield event(task, "task-finished", payload if self.usage else {"output": {}})
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
    return callback.hears.told


def cosyvoice_in_pieces(url):
    """Text in pieces, sound to callbacks."""
    callback = hearing(tts_v2.ResultCallback)
    synthesizer = tts_v2.SpeechSynthesizer("cosyvoice-v3-flash", "longanyang", url=url, callback=callback)
    for word in TEXT.split():
        synthesizer.streaming_call(word)
    synthesizer.streaming_complete(5000)
    return callback.hears.told


def recognition(url, tmp="/dev/null"):
    """A whole file."""
    made = asr.Recognition("fun-asr-realtime", None, "pcm", 16000, base_address=url)
    return made.call(sound_file()).get_sentence()


def recognition_by_callback(url):
    """Sound in pieces, text to callbacks."""
    callback = hearing(asr.RecognitionCallback)
    recogniser = asr.Recognition("fun-asr-realtime", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    recogniser.send_audio_frame(HEARD)
    recogniser.stop()
    return callback.hears.told


def translation(url):
    """A whole file."""
    made = asr.TranslationRecognizerRealtime("gummy-realtime-v1", None, "pcm", 16000, base_address=url)
    return len(made.call(sound_file()).transcription_result_list)


def translation_by_callback(url):
    """Sound in pieces, text to callbacks."""
    callback = hearing(asr.TranslationRecognizerCallback)
    recogniser = asr.TranslationRecognizerRealtime("gummy-realtime-v1", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    recogniser.send_audio_frame(HEARD)
    recogniser.stop()
    return callback.hears.told


def chat_by_callback(url):
    """One sentence, text to callbacks."""
    callback = hearing(asr.TranslationRecognizerCallback)
    recogniser = asr.TranslationRecognizerChat("gummy-chat-v1", callback, "pcm", 16000, base_address=url)
    recogniser.start()
    recogniser.send_audio_frame(HEARD)
    recogniser.stop()
    return callback.hears.told


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
        return type(error), str(error).replace(url, "")


def talk(case, end="finished", run=outcome):
    """Run a case against a server that ends in this way; gives what came of it, and the server."""
    with SocketServer(case.server(end)) as server:
        return run(case, server.url(case.path)), server


def test_a_talk(case, instrumented):
    """What comes is as without us; each task or response is one commit with exactly the usage that is told."""
    bare, _ = talk(case)
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
        assert found.cost_source in {"price", "unpriced"}
        assert found.reason or found.cost_source == "price"
        assert span.attributes["gen_ai.request.model"] == case.model
    assert not uncovered


def test_time_to_the_first_chunk(case, instrumented):
    """Sound and text that come before the end have their time; what a thread of the SDK's hears, too."""
    with instrumented() as seen:
        talk(case)
        for found in seen.of("commit"):
            assert 0 < found.timing["ttft_ms"] <= found.timing["total_ms"]
