"""Tasks of DashScope: each, from `run-task` to `task-finished` or `task-failed`, is a call.

A connection may run several at a time, or one after the other. Sound has no task's id on it.
"""

from typing import Any

import orjson

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._dashscope._sockets import DASHSCOPE_TASK, FAILED, ending
from tollspan.instrumentation._sockets._ahead import taken
from tollspan.instrumentation._sockets._talk import Heard, Message, Talk

_HEAD = 512


def tasks(url: Any, message: Message) -> Talk | None:
    """A connection that begins with this message, or None."""
    return None if _asked(message) is None else _Tasks(url)


def _asked(message: Message) -> tuple[str, dict[str, Any]] | None:
    """The id and the payload of a task, where a message runs one."""
    if not _may_run(message):
        return None
    said = orjson.loads(message)
    task, payload = sse.text(sse.at(said, "header", "task_id")), sse.at(said, "payload")
    runs = sse.at(said, "header", "action") == "run-task"
    return (task, payload) if runs and task is not None and isinstance(payload, dict) else None


def _may_run(message: Message) -> bool:
    return isinstance(message, str) and '"run-task"' in message[:_HEAD]


class _Tasks(Talk):
    """The tasks of one connection that are open."""

    def __init__(self, url: Any) -> None:
        super().__init__()
        self._url = url
        self._open: dict[str, Heard] = {}

    def says_no_more(self, message: Message) -> bool:
        """See `Talk.says_no_more`."""
        return not _may_run(message)

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`."""
        asked = _asked(message)
        if asked is None:
            return None
        task, payload = asked
        if (call := taken(task)) is not None:
            self._open[task] = Heard(call)
            return None
        return open_call(DASHSCOPE_TASK, self._url, payload, self._url.path, vendor=None, changeable=False)

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        if (asked := _asked(message)) is not None:
            self._open[asked[0]] = Heard(call)

    def sending(self, message: Message) -> None:
        """See `Talk.sending`: what a task is told on its way changes nothing."""

    def received(self, message: Message) -> None:
        """See `Talk.received`."""
        if isinstance(message, bytes):
            self._heard_sound()
            return
        content = message.encode()
        event = sse.parsed_object(content)
        task, kind = sse.text(sse.at(event, "header", "task_id")) or "", sse.at(event, "header", "event")
        heard = self._open.get(task)
        if heard is None or kind == "task-started":
            return
        if end := ending(event):
            del self._open[task]
            _end(heard, content, failed=end == FAILED)
        elif '"usage"' in message:
            heard.hear(content)
        else:
            heard.hear_sound()

    def _heard_sound(self) -> None:
        if len(self._open) == 1:
            for heard in tuple(self._open.values()):
                heard.hear_sound()

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`."""
        while self._open:
            _, heard = self._open.popitem()
            heard.sink.end(error, left=left)

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        for heard in tuple(self._open.values()):
            heard.sink.abandon()


def _end(heard: Heard, content: bytes, *, failed: bool) -> None:
    """A task that fails before anything came of it costs nothing (Model Studio, "Model pricing")."""
    if failed and heard.sink.first_at is None:
        heard.call.unbilled(b"data: %b\n\n" % content)
    else:
        heard.hear(content)
        heard.sink.end()
