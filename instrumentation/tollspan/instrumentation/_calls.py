"""The table of SDK call sites. To cover another method of an SDK, add a row here.

A row only opens and closes a call around the SDK's method. What was sent and answered is seen on the wire.
"""

from dataclasses import dataclass
from typing import Literal

from ._readers import (
    ANTHROPIC_MESSAGES,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    OPENAI_MEDIA,
    OPENAI_RESPONSES,
    Reader,
)

Kind = Literal["call", "async call", "enter", "async enter"]
"""`call`: a method whose keyword arguments are the request. `enter`: a context manager that sends when entered."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """One method of one SDK. `since` is the SDK's version from which it must be there, to the best of our knowledge.

    `clampable` tells whether the method takes a maximum of output tokens.
    """

    sdk: str
    since: str
    module: str
    name: str
    kind: Kind
    reader: Reader
    clampable: bool = True


def _both(
    sdk: str, since: str, module: str, name: str, reader: Reader, *, clampable: bool = True
) -> tuple[CallSite, CallSite]:
    """A method and its twin on the class of the same name with `Async` before it."""
    return (
        CallSite(sdk, since, module, name, "call", reader, clampable),
        CallSite(sdk, since, module, f"Async{name}", "async call", reader, clampable),
    )


_CHAT = "openai.resources.chat.completions.completions"
_CHAT_BETA = "openai.resources.beta.chat.completions"
_RESPONSES = "openai.resources.responses.responses"
_RESPONSES_BETA = "openai.resources.beta.responses.responses"
_MESSAGES = "anthropic.resources.messages.messages"
_MESSAGES_BETA = "anthropic.resources.beta.messages.messages"
_MANAGERS = "anthropic.lib.streaming._messages"
_MANAGERS_BETA = "anthropic.lib.streaming._beta_messages"

CALL_SITES: tuple[CallSite, ...] = (
    # OpenAI's `.stream()` helpers, and its raw and streaming responses, send through `create`.
    *_both("openai", "1.66", _CHAT, "Completions.create", OPENAI_CHAT),
    *_both("openai", "1.99", _CHAT, "Completions.parse", OPENAI_CHAT),
    *_both("openai", "1.66", _CHAT_BETA, "Completions.parse", OPENAI_CHAT),  # until it moved out of beta
    *_both("openai", "1.66", _RESPONSES, "Responses.create", OPENAI_RESPONSES),
    *_both("openai", "1.66", _RESPONSES, "Responses.parse", OPENAI_RESPONSES),
    *_both("openai", "2.17", _RESPONSES, "Responses.compact", OPENAI_RESPONSES, clampable=False),
    *_both("openai", "3.0", _RESPONSES_BETA, "Responses.create", OPENAI_RESPONSES),
    *_both("openai", "3.0", _RESPONSES_BETA, "Responses.compact", OPENAI_RESPONSES, clampable=False),
    *_both("openai", "1.66", "openai.resources.completions", "Completions.create", OPENAI_COMPLETIONS),
    *_both("openai", "1.66", "openai.resources.embeddings", "Embeddings.create", OPENAI_EMBEDDINGS, clampable=False),
    *_both("openai", "1.66", "openai.resources.images", "Images.generate", OPENAI_MEDIA, clampable=False),
    *_both("openai", "1.66", "openai.resources.images", "Images.edit", OPENAI_MEDIA, clampable=False),
    *_both("openai", "1.66", "openai.resources.audio.speech", "Speech.create", OPENAI_MEDIA, clampable=False),
    *_both(
        "openai",
        "1.66",
        "openai.resources.audio.transcriptions",
        "Transcriptions.create",
        OPENAI_MEDIA,
        clampable=False,
    ),
    *_both(
        "openai", "1.66", "openai.resources.audio.translations", "Translations.create", OPENAI_MEDIA, clampable=False
    ),
    *_both("anthropic", "0.60", _MESSAGES, "Messages.create", ANTHROPIC_MESSAGES),
    *_both("anthropic", "0.90", _MESSAGES, "Messages.parse", ANTHROPIC_MESSAGES),
    *_both("anthropic", "0.60", _MESSAGES_BETA, "Messages.create", ANTHROPIC_MESSAGES),
    *_both("anthropic", "0.75", _MESSAGES_BETA, "Messages.parse", ANTHROPIC_MESSAGES),
    # Anthropic's `.stream()` helpers send when they are entered, and not through `create`.
    CallSite("anthropic", "0.60", _MANAGERS, "MessageStreamManager.__enter__", "enter", ANTHROPIC_MESSAGES),
    CallSite("anthropic", "0.60", _MANAGERS, "AsyncMessageStreamManager.__aenter__", "async enter", ANTHROPIC_MESSAGES),
    CallSite("anthropic", "0.60", _MANAGERS_BETA, "BetaMessageStreamManager.__enter__", "enter", ANTHROPIC_MESSAGES),
    CallSite(
        "anthropic",
        "0.60",
        _MANAGERS_BETA,
        "BetaAsyncMessageStreamManager.__aenter__",
        "async enter",
        ANTHROPIC_MESSAGES,
    ),
)
