"""Alibaba Cloud's dashscope: what its many classes send passes one method, or of its `Client` one of two.

Its websockets are seen on the wire: each task, or response, is a call (`_sockets`). Where the SDK opens one in a thread
of its own, the row of the method that starts it finds the task ahead.
"""

import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tollspan.instrumentation._readers._dashscope._sockets import DASHSCOPE_TASK
from tollspan.instrumentation._sites._site import CallSite, Kind, Task

_REQUEST = "dashscope.api_entities.http_request"
_TRANSPORT = "dashscope.v2.transport"
_SOCKET = "dashscope.api_entities.websocket_request"
_RECOGNITION = "dashscope.audio.asr.recognition"
_TRANSLATION = "dashscope.audio.asr.translation_recognizer"
_SPEECH = "dashscope.audio.tts_v2.speech_synthesizer"
_QWEN_SPEECH = "dashscope.audio.qwen_tts_realtime.qwen_tts_realtime"
_OMNI = "dashscope.audio.qwen_omni.omni_realtime"
_HEARD = ("format", "sample_rate")


def _row(since: str, module: str, name: str, kind: Kind) -> CallSite:
    return CallSite("dashscope", since, module, name, kind, vendor="dashscope")


def _starting(module: str, name: str, task: Callable[[Any], Task | None]) -> CallSite:
    return CallSite("dashscope", "2.0", module, name, "starts", DASHSCOPE_TASK, vendor="dashscope", task=task)


def _sending(module: str, owner: str, *names: str) -> Iterator[CallSite]:
    for name in names:
        yield _row("2.0", module, f"{owner}.{name}", "sends")


def _requested(request: Any) -> Task:
    """The task of a request, which gets its id here where it has none. Its input may only be read once."""
    if request.pre_task_id is None:
        request.pre_task_id = uuid.uuid4().hex
    data = request.data
    asked = {"model": data.model, "task": data.task, "parameters": dict(data.parameters)}
    return Task(request.pre_task_id, request.url, asked, "in steps" if request.stream else "whole")


def _recognised(recognizer: Any) -> Task | None:
    """The task of a recognizer that is not running yet, which it runs itself."""
    if recognizer._running:  # noqa: SLF001 - nothing public tells
        return None
    default = getattr(sys.modules.get("dashscope"), "base_websocket_api_url", "")
    asked = {"model": recognizer.model, "task": "asr", "parameters": {k: getattr(recognizer, k) for k in _HEARD}}
    url = recognizer._kwargs.get("base_address") or default  # noqa: SLF001 - nothing public tells
    return Task(recognizer.last_request_id, str(url), asked, "whole")


def _recognised_by_thread(recognizer: Any) -> Task | None:
    found = _recognised(recognizer)
    return None if found is None else found._replace(runs="in a thread")


def _spoken(synthesizer: Any) -> Task | None:
    """The task of a synthesizer that has not begun yet. Its text comes after it."""
    if synthesizer._is_started:  # noqa: SLF001 - nothing public tells
        return None
    asked = {"model": synthesizer.model, "task": "tts", "parameters": {"voice": synthesizer.voice}}
    return Task(synthesizer.request.task_id, synthesizer.url, asked, "whole")


DASHSCOPE: tuple[CallSite, ...] = (
    _row("1.0", _REQUEST, "HttpRequest.call", "sends"),
    _row("1.19", _REQUEST, "HttpRequest.aio_call", "async sends"),
    _row("2.0", f"{_TRANSPORT}.http", "SyncTransport.request", "sends"),
    _row("2.0", f"{_TRANSPORT}.http", "SyncTransport.open_stream", "sends"),
    _row("2.0", f"{_TRANSPORT}.http", "AsyncTransport.request", "async sends"),
    _row("2.0", f"{_TRANSPORT}.http", "AsyncTransport.open_stream", "async sends"),
    _starting(_SOCKET, "WebSocketRequest.call", _requested),
    _row("2.0", _SOCKET, "WebSocketRequest.aio_call", "async sends"),
    _starting(_RECOGNITION, "Recognition.call", _recognised),
    _starting(_RECOGNITION, "Recognition.start", _recognised_by_thread),
    _starting(_TRANSLATION, "TranslationRecognizerRealtime.call", _recognised),
    _starting(_TRANSLATION, "TranslationRecognizerRealtime.start", _recognised_by_thread),
    _starting(_TRANSLATION, "TranslationRecognizerChat.start", _recognised_by_thread),
    _starting(_SPEECH, "SpeechSynthesizer.call", _spoken),
    _starting(_SPEECH, "SpeechSynthesizer.streaming_call", _spoken),
    *_sending(_QWEN_SPEECH, "QwenTtsRealtime", "append_text", "commit", "finish", "send_raw"),
    *_sending(
        _OMNI, "OmniRealtimeConversation",
        "append_audio", "append_video", "commit", "create_item", "create_response", "send_raw",
    ),
    *_sending("dashscope.multimodal.multimodal_dialog", "MultiModalDialog", "start"),
    *_sending("dashscope.multimodal.tingwu.tingwu_realtime", "TingWuRealtime", "start"),
    *_sending(f"{_TRANSPORT}.ws", "WsSession", "run_task"),
    *_sending(f"{_TRANSPORT}.ws_connection", "WsTask", "run_task"),
    *_sending("dashscope.v2.resources.audio.realtime", "RealtimeSession", "send_event"),
)  # fmt: skip
