"""Anthropic's SDK, also as the client of Bedrock and Vertex.

Its `.stream()` helpers send when they are entered, and not through `create`.
"""

from tollspan.instrumentation._readers import ANTHROPIC_MESSAGES
from tollspan.instrumentation._sites._site import CallSite, Kind, both

_MESSAGES = "anthropic.resources.messages.messages"
_MESSAGES_BETA = "anthropic.resources.beta.messages.messages"
_MANAGERS = "anthropic.lib.streaming._messages"
_MANAGERS_BETA = "anthropic.lib.streaming._beta_messages"


def _manager(module: str, name: str) -> CallSite:
    kind: Kind = "async sends" if name.endswith("__aenter__") else "sends"
    return CallSite("anthropic", "0.60", module, name, kind, ANTHROPIC_MESSAGES)


ANTHROPIC: tuple[CallSite, ...] = (
    *both("anthropic", "0.60", _MESSAGES, "Messages.create", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.90", _MESSAGES, "Messages.parse", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.60", _MESSAGES_BETA, "Messages.create", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.75", _MESSAGES_BETA, "Messages.parse", ANTHROPIC_MESSAGES),
    _manager(_MANAGERS, "MessageStreamManager.__enter__"),
    _manager(_MANAGERS, "AsyncMessageStreamManager.__aenter__"),
    _manager(_MANAGERS_BETA, "BetaMessageStreamManager.__enter__"),
    _manager(_MANAGERS_BETA, "BetaAsyncMessageStreamManager.__aenter__"),
)
