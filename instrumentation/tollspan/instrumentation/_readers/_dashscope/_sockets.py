"""Tasks of DashScope over a websocket: speech, recognition and dialogues, and text where it is asked for there.

Wire format: Model Studio's references "WebSocket API" and "server-side events" of CosyVoice, Sambert, Fun-ASR and
Paraformer. A task begins with `run-task`; its events tell the usage so far, and the last of them that of all.
"""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._dashscope import GENERATION
from tollspan.instrumentation._readers._dashscope import _answers as answers
from tollspan.instrumentation._readers._dashscope._bounds import input_bound
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts

FINISHED, FAILED = "task-finished", "task-failed"
_OPERATIONS = {"tts": "text_to_speech", "asr": "transcription"}


class _DashScopeTask(Flavour):
    """Its request is the payload of `run-task`, its answer the events of the task, framed as server-sent ones."""

    __slots__ = ()
    name = "dashscope.task"
    vendor = "dashscope"
    operation = "generate_content"
    path_suffixes: tuple[str, ...] = ()
    terminal_marks: tuple[bytes, ...] = (b'"task-finished"',)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Whatever is to be spoken or heard comes after it."""
        if sse.text(body.get("task")) == "text-generation" and body.get("input"):
            facts = GENERATION.request(body, path)
            facts.operation, facts.stream = GENERATION.operation, True
            return facts
        return RequestFacts(
            measure=partial(_bound, body),
            model=sse.text(body.get("model")),
            operation=_OPERATIONS.get(str(body.get("task"))),
            stream=True,
            max_output_tokens=0,
            attributes={"gen_ai.request.stream": True},
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`: there are streams alone."""
        return self.stream(body)

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. A usage without the end of its task is that of a part, and is none."""
        events = sse.newest(received, b'"header"')
        last = next(events, {})
        header, kind = last.get("header"), sse.at(last, "header", "event")
        facts = ResponseFacts(response_id=sse.text(sse.at(header, "task_id")), complete=ending(last) == FINISHED)
        if kind == FAILED:
            error = {"code": sse.at(header, "error_code"), "message": sse.at(header, "error_message")}
            facts.error_type, facts.error_message = sse.failure(error)
        if facts.complete:
            usages = (sse.at(event, "payload", "usage") for event in chain((last,), events))
            _take_usage(facts, next(filter(None, usages), None))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        events = sse.newest(tail, b'"task-finished"')
        return any(ending(event) == FINISHED for event in events)


DASHSCOPE_TASK = _DashScopeTask()


def ending(event: Mapping[str, Any]) -> str | None:
    """Tell how an event ends its task, if it does. Dialogues and meetings have an end of their own before that."""
    kind = sse.at(event, "header", "event")
    if kind in {FINISHED, FAILED}:
        return str(kind)
    output = sse.at(event, "payload", "output")
    is_over = sse.at(output, "event") == "Stopped" or sse.at(output, "action") == "speech-end"
    return FINISHED if is_over else None


def _bound(body: Mapping[str, Any]) -> InputBound:
    return input_bound(body, "messages")[0], "speech in real time"


def _take_usage(facts: ResponseFacts, raw: object) -> None:
    answers.take_usage(facts, raw)
    if facts.usage is None and sse.count(sse.at(raw, "characters")) == 0:
        facts.usage = {"characters_in": 0}
