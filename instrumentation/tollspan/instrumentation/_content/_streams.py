"""From the pieces of a stream to the answer that they make, in the shape that a whole answer has."""

from collections.abc import Callable, Iterator
from typing import Any

from tollspan.instrumentation._readers import _sse as sse

Event = dict[str, Any]

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_GROWING = ("text", "thinking", "partial_json")
_NESTED = frozenset({"audio", "custom", "function", "function_call"})
_WHOLE = frozenset({"data", "id", "name", "role", "type"})


def joined(received: bytes) -> dict[str, Any]:
    """The answer in the bytes of a stream, as far as they go; {} where they tell none."""
    answer = _Answer()
    for event in _events(received):
        answer.take(event)
    return answer.whole()


def _events(received: bytes) -> Iterator[Event]:
    """The events: server-sent ones, lines of JSON, or the elements of one JSON array."""
    if received[:1] not in (b"{", b"["):
        yield from sse.events(sse.normal(received))
        return
    value = sse.parsed(received)
    values = map(sse.parsed, received.split(b"\n")) if value is None else value if isinstance(value, list) else [value]
    yield from (item for item in values if isinstance(item, dict))


class _Grown:
    """An object whose texts grow piece by piece, and whose other fields are as they came last."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[object, _Grown] = {}

    def take(self, piece: object) -> None:
        for key, value in piece.items() if isinstance(piece, dict) else ():
            if key == "tool_calls":
                self._take_calls(value)
            elif isinstance(value, str) and key not in _WHOLE:
                self.texts.setdefault(key, []).append(value)
            elif key in _NESTED and isinstance(value, dict):
                self.calls.setdefault(key, _Grown()).take(value)
            elif isinstance(value, list) and isinstance(known := self.fields.get(key), list):
                self.fields[key] = [*known, *value]
            elif value is not None:
                self.fields[key] = value

    def _take_calls(self, calls: object) -> None:
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            index = sse.at(call, "index")
            self.calls.setdefault(index if isinstance(index, int) else position, _Grown()).take(call)

    def whole(self) -> dict[str, Any]:
        called = [call.whole() for key, call in self.calls.items() if isinstance(key, int)]
        inner = {key: call.whole() for key, call in self.calls.items() if isinstance(key, str)}
        texts = {key: "".join(pieces) for key, pieces in self.texts.items()}
        return {**self.fields, **inner, **texts, **({"tool_calls": called} if called else {})}


class _Answer:
    """What the events so far have made."""

    def __init__(self) -> None:
        self.final: dict[str, Any] | None = None
        self.fields: dict[str, Any] = {}
        self.choices: dict[object, _Grown] = {}
        self.finishes: dict[object, Any] = {}
        self.candidates: dict[object, list[Any]] = {}
        self.blocks: dict[object, _Grown] = {}
        self.message = _Grown()
        self.spoken: list[str] = []

    def take(self, event: Event) -> None:
        for key, take in _TAKERS.items():
            if key in event:
                take(self, event)
                return

    def typed(self, event: Event) -> None:
        """An event of Anthropic's, or of OpenAI's responses, says what it is."""
        kind = event["type"]
        if kind in _TERMINAL and isinstance(event.get("response"), dict):
            self.final = event["response"]
        elif kind == "response.output_text.delta" and isinstance(event.get("delta"), str):
            self.spoken.append(event["delta"])
        elif kind == "content-delta" and isinstance(text := sse.at(event, "delta", "message", "content", "text"), str):
            self.spoken.append(text)  # Cohere's
        elif kind == "content_block_start":
            block = self.blocks.setdefault(event.get("index") if isinstance(event.get("index"), int) else 0, _Grown())
            block.take(event.get("content_block"))
        elif kind == "content_block_delta":
            self._grow_block(event)
        elif kind == "message_delta":
            self.fields["stop_reason"] = sse.at(event, "delta", "stop_reason")

    def _grow_block(self, event: Event) -> None:
        index, delta = event.get("index"), event.get("delta")
        block = self.blocks.setdefault(index if isinstance(index, int) else 0, _Grown())
        block.take({key: sse.at(delta, key) for key in _GROWING})

    def chosen(self, event: Event) -> None:
        """A chunk of OpenAI's chat or completions."""
        for position, choice in enumerate(event["choices"] if isinstance(event["choices"], list) else ()):
            index = sse.at(choice, "index")
            index = index if isinstance(index, int) else position
            grown = self.choices.setdefault(index, _Grown())
            grown.take(sse.at(choice, "delta") or sse.at(choice, "message") or {"content": sse.at(choice, "text")})
            if reason := sse.at(choice, "finish_reason"):
                self.finishes[index] = reason

    def proposed(self, event: Event) -> None:
        """A chunk of Gemini's: its parts follow those before it, and text goes on where text was."""
        for position, candidate in enumerate(event["candidates"] if isinstance(event["candidates"], list) else ()):
            index = sse.at(candidate, "index")
            index = index if isinstance(index, int) else position
            parts = self.candidates.setdefault(index, [])
            new = sse.at(candidate, "content", "parts")
            for part in new if isinstance(new, list) else ():
                last = parts[-1] if parts else None
                goes_on = isinstance(last, _Grown) and last.fields.get("thought") == sse.at(part, "thought")
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    if not goes_on:
                        parts.append(_Grown())
                    parts[-1].take(part)
                else:
                    parts.append(part)
            if reason := sse.at(candidate, "finishReason"):
                self.finishes[index] = reason

    def told(self, event: Event) -> None:
        """A line of Ollama's chat."""
        self.message.take(event["message"])
        self.fields |= {key: event[key] for key in ("done_reason", "finish_reason") if key in event}

    def generated(self, event: Event) -> None:
        """A line of Ollama's generate."""
        if isinstance(event["response"], str):
            self.spoken.append(event["response"])
        self.fields |= {key: event[key] for key in ("done_reason",) if key in event}

    def whole(self) -> dict[str, Any]:
        if self.final is not None:
            return self.final
        if self.choices:
            grown = {index: choice.whole() for index, choice in sorted(self.choices.items(), key=str)}
            return {"choices": [{"message": m, "finish_reason": self.finishes.get(i)} for i, m in grown.items()]}
        if self.candidates:
            return {"candidates": [self._candidate(i, parts) for i, parts in sorted(self.candidates.items(), key=str)]}
        if self.blocks:
            return {**self.fields, "content": [_block(grown.whole()) for grown in self.blocks.values()]}
        if message := self.message.whole():
            return {**self.fields, "message": message}
        return {**self.fields, "response": "".join(self.spoken)} if self.spoken else {}

    def _candidate(self, index: object, parts: list[Any]) -> dict[str, Any]:
        made = [part.whole() if isinstance(part, _Grown) else part for part in parts]
        return {"content": {"parts": made}, "finishReason": self.finishes.get(index)}


_TAKERS: dict[str, Callable[[_Answer, Event], None]] = {
    "choices": _Answer.chosen,
    "candidates": _Answer.proposed,
    "type": _Answer.typed,
    "message": _Answer.told,
    "response": _Answer.generated,
}


def _block(grown: dict[str, Any]) -> dict[str, Any]:
    """A block of Anthropic's, with the input of a tool, which was streamed as text, in its place."""
    arguments = grown.pop("partial_json", None)
    return grown if arguments is None else {**grown, "input": arguments}
