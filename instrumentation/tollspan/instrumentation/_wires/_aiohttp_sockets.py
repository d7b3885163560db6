"""The websockets of aiohttp."""

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tollspan.instrumentation._sockets._protocols import talk_to
from tollspan.instrumentation._sockets._talk import talk_begun, talk_on
from tollspan.instrumentation._wrappers import Wrapper
from tollspan.ledger import internal_errors

_MESSAGES, _ENDS = ("TEXT", "BINARY"), ("CLOSE", "CLOSING", "CLOSED")

_receiving: "WeakKeyDictionary[Any, asyncio.Task[Any] | None]" = WeakKeyDictionary()
"""The task that receives on each websocket: it closes one that the server has closed, and that leaves nothing."""


def send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientWebSocketResponse.send_str` and `send_bytes`."""

    async def send(
        wrapped: Callable[..., Awaitable[Any]], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        message = args[0] if args else kwargs.get("data")
        if not isinstance(message, str | bytes):
            return await wrapped(*args, **kwargs)
        # Nothing public tells where a websocket leads to.
        talk = talk_begun(socket, message, lambda: talk_to(url := socket._response.url, url.query_string, message))  # noqa: SLF001
        if talk is None:
            return await wrapped(*args, **kwargs)
        await talk.aadmit(message)
        with internal_errors:
            talk.sending(message)
        try:
            return await wrapped(*args, **kwargs)
        except Exception as error:
            with internal_errors:
                talk.ended(error, left=False)
            raise

    return send


def receive_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientWebSocketResponse.receive`."""

    async def receive(
        wrapped: Callable[..., Awaitable[Any]], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with internal_errors:
            _receiving[socket] = asyncio.current_task()
        try:
            received = await wrapped(*args, **kwargs)
        finally:
            _receiving.pop(socket, None)
        with internal_errors:
            if (talk := talk_on(socket)) is not None:
                kind, data = received.type.name, received.data
                if kind in _MESSAGES:
                    talk.received(bytes(data) if kind == "BINARY" else data)
                elif kind == "ERROR":
                    talk.ended(data if isinstance(data, BaseException) else None, left=False)
                elif kind in _ENDS:
                    talk.ended(None, left=False)
        return received

    return receive


def close_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientWebSocketResponse.close`."""

    async def close(
        wrapped: Callable[..., Awaitable[Any]], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with internal_errors:
            by_itself = socket in _receiving and _receiving[socket] is asyncio.current_task()
            if not by_itself and (talk := talk_on(socket)) is not None:
                talk.ended(None, left=True)
        return await wrapped(*args, **kwargs)

    return close
