"""Asking the provider how many input tokens a request has, by a request beside it: same client, same credentials."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._counting import TIMEOUT_S, count_of, failed
from tollspan.instrumentation._outcomes import FIRST_ERROR
from tollspan.instrumentation._readers._counting import Count
from tollspan.instrumentation._wires._library import AsyncLibrary, Library, SyncLibrary
from tollspan.ledger import internal_errors


@dataclass(frozen=True, slots=True)
class _Question:
    """The request that asks, and what its answer is for."""

    request: Any
    call: Call
    count: Count
    body: Mapping[str, Any]
    path: str

    def answered(self, status: int | None, answer: bytes | None) -> None:
        """Take the count from the answer, `status` None where there is none."""
        with internal_errors:
            tokens = self.count.tokens(answer) if answer and status is not None and status < FIRST_ERROR else None
            if tokens is None:
                failed(self.call, status)
            else:
                self.count.apply(tokens, self.call.facts, self.call.reader, self.body, self.path)
                self.call.noted_count(tokens)


def ask(library: SyncLibrary, send: Callable[[Any], Any], call: Call, request: Any, body: Mapping[str, Any]) -> None:
    """Have the provider count the input of a request, where that is wanted; whatever fails, nothing is raised."""
    question = _question(library, call, request, body)
    if question is None:
        return
    status = answer = None
    call.sending = library
    try:
        response = send(question.request)
        library.finish(response)
        status, answer = library.status(response), library.content(response)
    except Exception:  # noqa: BLE001, S110 - without a count, the size of the request in bytes is the bound
        pass
    finally:
        call.sending = None
    question.answered(status, answer)


async def aask(
    library: AsyncLibrary, send: Callable[[Any], Awaitable[Any]], call: Call, request: Any, body: Mapping[str, Any]
) -> None:
    """As `ask`, from a task."""
    question = _question(library, call, request, body)
    if question is None:
        return
    status = answer = None
    call.sending = library
    try:
        response = await send(question.request)
        await library.finish(response)
        status, answer = library.status(response), library.content(response)
    except Exception:  # noqa: BLE001, S110 - without a count, the size of the request in bytes is the bound
        pass
    finally:
        call.sending = None
    question.answered(status, answer)


def _question(library: Library, call: Call, request: Any, body: Mapping[str, Any]) -> _Question | None:
    """What to ask; None where the provider is not asked."""
    with internal_errors:
        count, path = count_of(call), library.url(request).path
        target = None if count is None else count.path(path)
        if count is None or target is None or not body:
            return None
        asked = library.sibling(request, target, orjson.dumps(count.body(body, path)), TIMEOUT_S)
        return None if asked is None else _Question(asked, call, count, body, path)
    return None
