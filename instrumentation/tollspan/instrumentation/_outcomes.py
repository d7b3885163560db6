"""Whether an attempt was billed, judged by what was seen on the wire and never by the SDK's exception.

An SDK's exception tells too little: its time-out covers a connection that was never made as well as an answer that was
made and lost. No provider states who pays for a 5xx or for a request that timed out, so those are unknown, not free.
"""

import re
from typing import Literal

Outcome = Literal["billed", "unbilled", "unknown"]

_NEVER_SENT = frozenset(
    {
        # httpx, httpx2, requests
        "ConnectError", "ConnectTimeout", "CookieConflict", "InvalidURL", "LocalProtocolError", "PoolTimeout",
        "ProxyError", "UnsupportedProtocol", "InvalidHeader", "InvalidSchema", "MissingSchema",
        # urllib3, below requests and botocore
        "ConnectTimeoutError", "LocationParseError", "NameResolutionError", "NewConnectionError",
        # botocore
        "EndpointConnectionError", "ProxyConnectionError",
        # aiohttp
        "ClientConnectorError", "ClientConnectorCertificateError", "ConnectionTimeoutError",
        # TLS, below all of them
        "SSLCertVerificationError",
    }
)  # fmt: skip
# `reason` of an ssl.SSLError, where no handshake came about.
_NO_HANDSHAKE = re.compile(r"ALERT|CERTIFICATE|HANDSHAKE|PROTOCOL|WRONG_VERSION|HTTP_REQUEST")
_DEPTH = 6
_UNKNOWN_4XX = frozenset({408, 499})
_OWN_ERRORS = frozenset({500, 503, 529})
_SERVER_ERROR = 500
# A redirect that nobody follows is no answer of a model.
FIRST_ERROR = 300


def of_status(status: int, *, provider_error: bool) -> Outcome:
    """Judge an answer by its HTTP status; `provider_error` tells that its body is an error the provider wrote."""
    if status < FIRST_ERROR:
        return "billed"
    if status < _SERVER_ERROR:
        return "unknown" if status in _UNKNOWN_4XX else "unbilled"
    return "unbilled" if status in _OWN_ERRORS and provider_error else "unknown"


def of_exception(error: BaseException) -> Outcome:
    """Judge an attempt that got no answer, by the class names of its exception and of those that it stands for."""
    inner: object = error
    for _ in range(_DEPTH):
        if not isinstance(inner, BaseException):
            break
        if any(c.__name__ in _NEVER_SENT for c in type(inner).__mro__):
            return "unbilled"
        reason = getattr(inner, "reason", None)
        if isinstance(inner, OSError) and isinstance(reason, str) and _NO_HANDSHAKE.search(reason):
            return "unbilled"
        # requests has urllib3's error as its argument, and that one the reason; others chain them.
        below = reason if isinstance(reason, BaseException) else (inner.args[0] if inner.args else None)
        inner = below if isinstance(below, BaseException) else inner.__cause__
    return "unknown"


def of_unseen(error: BaseException) -> Outcome:
    """Judge a call of which no attempt was seen, by the SDK's exception: there is nothing else."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return of_status(status, provider_error=True)
    return "unknown" if any(c.__name__ == "APIConnectionError" for c in type(error).__mro__) else "unbilled"
