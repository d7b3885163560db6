"""Anthropic's SDK, also as the client of Bedrock and Vertex.

Its `.stream()` helpers send when they are entered, and not through `create`.
"""

from dataclasses import replace

from tollspan.instrumentation._readers import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._anthropic._complete import ANTHROPIC_COMPLETE
from tollspan.instrumentation._readers._free import ANTHROPIC_COUNT
from tollspan.instrumentation._sites._site import CallSite, Kind, both

_COMPLETIONS = "anthropic.resources.completions"
_MESSAGES = "anthropic.resources.messages.messages"
_MESSAGES_BETA = "anthropic.resources.beta.messages.messages"
_MANAGERS = "anthropic.lib.streaming._messages"
_MANAGERS_BETA = "anthropic.lib.streaming._beta_messages"


def _manager(module: str, name: str) -> CallSite:
    kind: Kind = "async sends" if name.endswith("__aenter__") else "sends"
    return CallSite("anthropic", "0.60", module, name, kind)


ANTHROPIC: tuple[CallSite, ...] = (
    *both("anthropic", "0.60", _MESSAGES, "Messages.create", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.90", _MESSAGES, "Messages.parse", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.60", _MESSAGES_BETA, "Messages.create", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.75", _MESSAGES_BETA, "Messages.parse", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.60", _MESSAGES, "Messages.count_tokens", ANTHROPIC_COUNT),
    *both("anthropic", "0.60", _MESSAGES_BETA, "Messages.count_tokens", ANTHROPIC_COUNT),
    *(
        replace(site, until="1.0")
        for site in both("anthropic", "0.60", _COMPLETIONS, "Completions.create", ANTHROPIC_COMPLETE)
    ),
    _manager(_MANAGERS, "MessageStreamManager.__enter__"),
    _manager(_MANAGERS, "AsyncMessageStreamManager.__aenter__"),
    _manager(_MANAGERS_BETA, "BetaMessageStreamManager.__enter__"),
    _manager(_MANAGERS_BETA, "BetaAsyncMessageStreamManager.__aenter__"),
)
