"""The websocket-client library: `WebSocket`, over which `WebSocketApp` sends and receives as well."""

from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tollspan.instrumentation._sockets._protocols import talk_to
from tollspan.instrumentation._sockets._talk import forget, talk_begun, talk_on
from tollspan.instrumentation._urls import Url, parsed_url
from tollspan.instrumentation._wrappers import Wrapper
from tollspan.ledger import internal_errors

_TEXT, _BINARY, _CLOSE = 0x1, 0x2, 0x8
_QUIET = ("WebSocketTimeoutException", "TimeoutError", "SSLWantReadError", "BlockingIOError")
"""What says that nothing has come yet, and not that nothing will."""

_urls: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()
"""Where each connection leads to, which it does not keep itself."""


def _url_of(socket: Any) -> tuple[Url, str]:
    url, _, query = _urls.get(socket, "").partition("?")
    return parsed_url(url), query


def connect_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `WebSocket.connect`."""

    def connect(wrapped: Callable[..., Any], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with internal_errors:
            forget(socket)
            _urls[socket] = str(args[0] if args else kwargs.get("url"))
        return wrapped(*args, **kwargs)

    return connect


def send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `WebSocket.send`."""

    def send(wrapped: Callable[..., Any], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        message = args[0] if args else kwargs.get("payload")
        opcode = args[1] if len(args) > 1 else kwargs.get("opcode", _TEXT)
        if opcode not in {_TEXT, _BINARY} or not isinstance(message, str | bytes):
            return wrapped(*args, **kwargs)
        talk = talk_begun(socket, message, lambda: talk_to(*_url_of(socket), message))
        if talk is None:
            return wrapped(*args, **kwargs)
        talk.admit(message)
        with internal_errors:
            talk.sending(message)
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            with internal_errors:
                talk.ended(error, left=False)
            raise

    return send


def receive_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `WebSocket.recv_data_frame`, through which all ways to receive go."""

    def receive(wrapped: Callable[..., Any], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        talk = talk_on(socket)
        try:
            opcode, frame = received = wrapped(*args, **kwargs)
        except Exception as error:
            with internal_errors:
                if talk is not None and type(error).__name__ not in _QUIET:
                    talk.ended(error, left=False)
            raise
        with internal_errors:
            talk = talk_on(socket)
            if talk is not None and opcode == _CLOSE:
                talk.ended(None, left=False)
            elif talk is not None and opcode in {_TEXT, _BINARY}:
                talk.received(bytes(frame.data).decode(errors="replace") if opcode == _TEXT else bytes(frame.data))
        return received

    return receive


def close_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `WebSocket.close`, and of `shutdown`."""

    def close(wrapped: Callable[..., Any], socket: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with internal_errors:
            if (talk := talk_on(socket)) is not None:
                talk.ended(None, left=True)
        return wrapped(*args, **kwargs)

    return close
