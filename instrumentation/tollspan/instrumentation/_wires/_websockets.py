"""The websockets library: its clients of asyncio and of threads."""

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from tollspan.instrumentation._sockets._protocols import talk_to
from tollspan.instrumentation._sockets._talk import Talk, talk_begun, talk_on
from tollspan.instrumentation._urls import Url
from tollspan.instrumentation._wrappers import Wrapper
from tollspan.ledger import internal_errors


def _talk(connection: Any, message: Any) -> Talk | None:
    return talk_begun(connection, message, lambda: talk_to(*_url_of(connection), message))


def _url_of(connection: Any) -> tuple[Url, str]:
    request = connection.request
    host, _, port = str(request.headers.get("Host") or "").partition(":")
    path, _, query = str(request.path).partition("?")
    return Url("wss", host, int(port) if port.isdecimal() else None, path), query


def _lost(talk: Talk, error: BaseException) -> None:
    """Settle what is open where an error of the library says that the connection is no more."""
    with internal_errors:
        if type(error).__name__.startswith("ConnectionClosed"):
            talk.ended(error, left=False)


def send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.send`, of threads."""

    def send(wrapped: Callable[..., Any], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        message = args[0] if args else kwargs.get("message")
        talk = _talk(connection, message)
        if talk is None or not isinstance(message, str | bytes):
            return wrapped(*args, **kwargs)
        talk.admit(message)
        with internal_errors:
            talk.sending(message)
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            _lost(talk, error)
            raise

    return send


def async_send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.send`, of asyncio."""

    async def send(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        message = args[0] if args else kwargs.get("message")
        talk = _talk(connection, message)
        if talk is None or not isinstance(message, str | bytes):
            return await wrapped(*args, **kwargs)
        await talk.aadmit(message)
        with internal_errors:
            talk.sending(message)
        try:
            return await wrapped(*args, **kwargs)
        except Exception as error:
            _lost(talk, error)
            raise

    return send


def receive_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.recv`, of threads."""

    def receive(wrapped: Callable[..., Any], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            message = wrapped(*args, **kwargs)
        except Exception as error:
            if (talk := talk_on(connection)) is not None:
                _lost(talk, error)
            raise
        _heard(connection, message)
        return message

    return receive


def async_receive_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.recv`, of asyncio."""

    async def receive(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            message = await wrapped(*args, **kwargs)
        except Exception as error:
            if (talk := talk_on(connection)) is not None:
                _lost(talk, error)
            raise
        _heard(connection, message)
        return message

    return receive


def _heard(connection: Any, message: Any) -> None:
    with internal_errors:
        if (talk := talk_on(connection)) is not None:
            # Asked not to decode, the library gives the bytes of a text.
            talk.received(_text(message) if isinstance(message, bytes) else message)


def _text(message: bytes) -> str | bytes:
    return message.decode(errors="replace") if message[:1] == b"{" else message


def close_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.close`, of threads."""

    def close(wrapped: Callable[..., Any], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return wrapped(*args, **kwargs)
        finally:
            _left(connection)

    return close


def async_close_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.close`, of asyncio."""

    async def close(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            _left(connection)

    return close


def _left(connection: Any) -> None:
    with internal_errors:
        if (talk := talk_on(connection)) is not None:
            talk.ended(None, left=True)
