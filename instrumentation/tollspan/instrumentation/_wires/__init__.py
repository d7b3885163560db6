"""Wires: one small module for each HTTP library, over one way that every attempt takes.

Each wraps the method through which all requests of its library pass, most often a public one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from tollspan.instrumentation._wires import _aiohttp_sockets, _websocket_client, _websockets
from tollspan.instrumentation._wires._aiohttp import leave_wrapper, request_wrapper
from tollspan.instrumentation._wires._botocore import http_session_send_wrapper
from tollspan.instrumentation._wires._exchange import uncovered
from tollspan.instrumentation._wires._grpc import (
    async_stream_wrapper,
    async_unary_wrapper,
    stream_wrapper,
    unary_wrapper,
)
from tollspan.instrumentation._wires._httpx import async_send_wrapper, send_wrapper
from tollspan.instrumentation._wires._requests import session_send_wrapper
from tollspan.instrumentation._wrappers import Wrapper

__all__ = ["WIRES", "Wire", "uncovered"]


@dataclass(frozen=True, slots=True)
class Wire:
    """One method of an HTTP library. `maker` gives its wrapper, once the library is imported."""

    module: str
    name: str
    maker: Callable[[ModuleType], Wrapper]


WIRES = (
    Wire("httpx2", "Client.send", send_wrapper),
    Wire("httpx2", "AsyncClient.send", async_send_wrapper),
    Wire("httpx", "Client.send", send_wrapper),
    Wire("httpx", "AsyncClient.send", async_send_wrapper),
    Wire("requests.sessions", "Session.send", session_send_wrapper),
    Wire("aiohttp.client", "ClientSession._request", request_wrapper),
    Wire("aiohttp.client_reqrep", "ClientResponse.close", leave_wrapper),
    Wire("aiohttp.client_reqrep", "ClientResponse.release", leave_wrapper),
    Wire("botocore.httpsession", "URLLib3Session.send", http_session_send_wrapper),
    Wire("xai_sdk.interceptors", "TimeoutInterceptor.intercept_unary_unary", unary_wrapper),
    Wire("xai_sdk.interceptors", "TimeoutInterceptor.intercept_unary_stream", stream_wrapper),
    Wire("xai_sdk.interceptors", "UnaryUnaryTimeoutAioInterceptor.intercept_unary_unary", async_unary_wrapper),
    Wire("xai_sdk.interceptors", "UnaryStreamTimeoutAioInterceptor.intercept_unary_stream", async_stream_wrapper),
    Wire("websockets.asyncio.client", "ClientConnection.send", _websockets.async_send_wrapper),
    Wire("websockets.asyncio.client", "ClientConnection.recv", _websockets.async_receive_wrapper),
    Wire("websockets.asyncio.client", "ClientConnection.close", _websockets.async_close_wrapper),
    Wire("websockets.sync.client", "ClientConnection.send", _websockets.send_wrapper),
    Wire("websockets.sync.client", "ClientConnection.recv", _websockets.receive_wrapper),
    Wire("websockets.sync.client", "ClientConnection.close", _websockets.close_wrapper),
    Wire("websocket._core", "WebSocket.connect", _websocket_client.connect_wrapper),
    Wire("websocket._core", "WebSocket.send", _websocket_client.send_wrapper),
    Wire("websocket._core", "WebSocket.recv_data_frame", _websocket_client.receive_wrapper),
    Wire("websocket._core", "WebSocket.close", _websocket_client.close_wrapper),
    Wire("websocket._core", "WebSocket.shutdown", _websocket_client.close_wrapper),
    Wire("aiohttp.client_ws", "ClientWebSocketResponse.send_str", _aiohttp_sockets.send_wrapper),
    Wire("aiohttp.client_ws", "ClientWebSocketResponse.send_bytes", _aiohttp_sockets.send_wrapper),
    Wire("aiohttp.client_ws", "ClientWebSocketResponse.receive", _aiohttp_sockets.receive_wrapper),
    Wire("aiohttp.client_ws", "ClientWebSocketResponse.close", _aiohttp_sockets.close_wrapper),
)
