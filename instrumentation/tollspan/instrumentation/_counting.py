"""Whether a provider is asked how many input tokens a request has before a strict budget holds its cost.

Only with the setting `count_tokens`: it is one more round trip before each call. It is asked on the wire, where the
request stands ready with its credentials; so what is known of a call before, in its arguments, waits for that.
"""

import logging
import time
from typing import Any

from tollspan.budget import holds_tokens
from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from ._call import Call
from ._readers._counting import COUNTS, Count

_log = logging.getLogger("tollspan")

TIMEOUT_S = 5.0
_PAUSE_S = 60.0
"""How long a host that cannot be asked is left alone."""
_MOST_HOSTS = 1_024
_LIBRARIES = frozenset({"httpx", "httpx2"})
_CLIENTS = frozenset({"AsyncClient", "Client"})
# The endpoint is missing, forbidden or tired; another error may be of the one request.
_PAUSING = frozenset({401, 403, 404, 405, 408, 429, 501})
_FIRST_SERVER_ERROR = 500

_left_alone: dict[tuple[str, str], float] = {}


def count_of(call: Call) -> Count | None:
    """How the provider of a call counts its input; None where it is not to be asked."""
    with internal_errors:
        if call.facts.free or call.record.category == "uncovered" or not pipeline().settings.count_tokens:
            return None
        count = COUNTS.get(call.reader.name)
        if count is None or call.record.provider not in count.providers or _is_left_alone(call):
            return None
        return count if holds_tokens(call.record) else None
    return None


def waits_for_wire(call: Call, instance: Any) -> bool:
    """Whether a call whose arguments are known is admitted on the wire, where its provider is asked first.

    Only where its client sends by the methods that are watched: what is never seen there would never be admitted.
    """
    return count_of(call) is not None and _is_watched(instance)


def _is_watched(instance: Any) -> bool:
    client = getattr(getattr(instance, "_client", None), "_client", None)
    if client is None or "send" in getattr(client, "__dict__", {}):
        return False
    sender = next((one for one in type(client).__mro__ if "send" in vars(one)), object)
    return sender.__module__.partition(".")[0] in _LIBRARIES and sender.__name__ in _CLIENTS


def failed(call: Call, status: int | None) -> None:
    """The provider was asked in vain; `status` None where it gave no answer."""
    if status is None or status in _PAUSING or status >= _FIRST_SERVER_ERROR:
        if len(_left_alone) >= _MOST_HOSTS:
            _left_alone.clear()
        _left_alone[_where(call)] = time.monotonic() + _PAUSE_S
        _log.warning(
            "%s could not be asked for a count of input tokens (%s): requests are bounded by their bytes for a minute",
            call.host,
            "no answer" if status is None else f"HTTP {status}",
        )


def forget() -> None:
    """Ask every host again."""
    _left_alone.clear()


def _is_left_alone(call: Call) -> bool:
    return time.monotonic() < _left_alone.get(_where(call), 0.0)


def _where(call: Call) -> tuple[str, str]:
    return call.host, call.reader.name
