"""What is read from the messages of websockets, without any SDK.

Formats: OpenAI's API reference "Realtime" (server events); Alibaba Cloud's Model Studio, "Fun-ASR server-side events",
"CosyVoice server-side events" and "Qwen-TTS server events".
"""

import json

import pytest

from tollspan.instrumentation._readers._dashscope._sockets import DASHSCOPE_TASK
from tollspan.instrumentation._readers._realtime import OPENAI_HEARING, OPENAI_REALTIME, QWEN_REALTIME


def framed(*events):
    """Messages as the sockets hand them to a reader."""
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def of_task(kind, usage=None, output=None, **header):
    """An event of a task of DashScope's."""
    payload = {"output": output or {}} | ({} if usage is None else {"usage": usage})
    return {"header": {"task_id": "t1", "event": kind} | header, "payload": payload}


FINISHED = of_task("task-finished")


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ((of_task("task-finished", {"characters": 13}),), {"characters_in": 13}),
        ((of_task("result-generated", {"characters": 5}), of_task("task-finished", {"characters": 13})), 13),
        ((of_task("result-generated", {"duration": 3}), of_task("result-generated", {"duration": 7}), FINISHED), 7),
        ((of_task("task-finished", {"characters": 0}),), {"characters_in": 0}),
        ((FINISHED,), None),
        ((of_task("result-generated", {"duration": 3}),), None),
    ],
    ids=["at the end", "so far, and at the end", "so far", "none", "not told", "cut"],
)
def test_the_usage_of_a_task_is_its_last_one(events, usage):
    """Each usage has all that came before it; without the end of the task it is that of a part, and none."""
    facts = DASHSCOPE_TASK.stream(framed(*events))
    found = facts.usage
    assert (found if isinstance(usage, dict | None) else next(iter(found.values()))) == usage
    assert facts.complete == (events[-1]["header"]["event"] == "task-finished")
    assert DASHSCOPE_TASK.is_complete(framed(*events)) == facts.complete
    assert facts.response_id == "t1"


def test_a_failed_task_tells_its_error():
    """It has a code and a message in its header; what looks like a key is not kept."""
    failed = of_task("task-failed", error_code="InvalidParameter", error_message="no voice for sk-1234567890abcdef")
    facts = DASHSCOPE_TASK.stream(framed(failed))
    assert (facts.error_type, facts.error_message) == ("InvalidParameter", "no voice for [redacted]")
    assert not facts.complete


def test_a_dialogue_ends_before_its_task():
    """Its own last event is the end: the SDK closes the connection then."""
    stopped = of_task("result-generated", output={"event": "Stopped", "dialog_id": "d"})
    assert DASHSCOPE_TASK.stream(framed(stopped)).complete


def test_a_task_of_text_is_bounded_by_its_input():
    """What is spoken or heard later has no bound; text that comes with the request has."""
    asked = {
        "model": "qwen-plus",
        "task": "text-generation",
        "parameters": {"max_tokens": 10, "enable_thinking": False},
    }
    facts = DASHSCOPE_TASK.request(asked | {"input": {"prompt": "One river."}})
    assert (facts.unbounded, facts.max_output_tokens, facts.priced) == (None, 10, True)
    for later in (asked, {"model": "cosyvoice-v3-flash", "task": "tts", "input": {}}):
        facts = DASHSCOPE_TASK.request(later)
        assert (facts.unbounded, facts.priced) == ("speech in real time", False)


USAGE = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (USAGE, {"tokens_in": 9, "tokens_out": 5}),
        (
            USAGE | {"input_token_details": {"audio_tokens": 4}, "output_token_details": {"audio_tokens": 5}},
            {"tokens_in": 9, "tokens_out": 5, "tokens_audio_in": 4, "tokens_audio_out": 5},
        ),
        (
            USAGE | {"input_tokens_details": {"audio_tokens": 4}},
            {"tokens_in": 9, "tokens_out": 5, "tokens_audio_in": 4},
        ),
        ({"characters": 12}, {"characters_in": 12}),
        ({"type": "duration", "seconds": 2.5}, {"audio_seconds": 2.5}),
        ({"input_tokens": 9}, None),
        (None, None),
    ],
    ids=["tokens", "OpenAI's details", "Qwen's details", "characters", "seconds", "half", "nothing"],
)
def test_the_usage_of_a_response(raw, usage):
    """Tokens with their parts, or whatever else the model is billed by."""
    done = {"type": "response.done", "response": {"id": "r1", "status": "completed", "usage": raw}}
    for reader in (OPENAI_REALTIME, QWEN_REALTIME):
        facts = reader.stream(framed({"type": "response.created", "response": {"id": "r0"}}, done))
        assert (facts.usage, facts.response_id, facts.finish_reasons) == (usage, "r1", ("completed",))
        assert facts.complete
        assert facts.error_type is None
    heard = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i1", "usage": raw}
    assert OPENAI_HEARING.stream(framed(heard)).usage == usage


def test_a_response_that_failed():
    """Its error stands in the details of its status; without any, the status stands for it."""
    error = {"type": "rate_limit_exceeded", "code": "slow_down", "message": "wait"}
    response = {"id": "r1", "status": "failed", "status_details": {"type": "failed", "error": error}}
    facts = OPENAI_REALTIME.response(json.dumps({"type": "response.done", "response": response}).encode())
    assert (facts.error_type, facts.error_message, facts.usage) == ("rate_limit_exceeded", "wait", None)
    plain = {"type": "response.done", "response": {"id": "r1", "status": "failed"}}
    assert OPENAI_REALTIME.response(json.dumps(plain).encode()).error_type == "failed"


def test_what_a_session_asks_for():
    """Speech needs a price of its own, and text that is asked for alone does not."""
    spoken = OPENAI_REALTIME.request({"model": "gpt-realtime", "max_output_tokens": 50})
    assert (spoken.model, spoken.max_output_tokens, spoken.find_units()) == ("gpt-realtime", 50, ("tokens_audio_out",))
    assert spoken.unbounded == "realtime session"
    assert OPENAI_REALTIME.request({"output_modalities": ["text"], "max_output_tokens": "inf"}).find_units() == ()
