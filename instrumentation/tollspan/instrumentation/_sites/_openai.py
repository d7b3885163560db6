"""OpenAI's SDK, also as the client of Azure and of the many servers compatible with OpenAI.

Its `.stream()` and `.create_and_poll()` helpers, and its raw and streaming responses, send through the methods here.
Its websockets are seen on the wire (`_sockets`); what is not covered says `_uncovered`.
"""

from collections.abc import Iterator
from dataclasses import replace

from tollspan.instrumentation._readers import (
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    OPENAI_RESPONSES,
)
from tollspan.instrumentation._readers._free import OPENAI_COUNT, OPENAI_MODERATION
from tollspan.instrumentation._readers._openai._audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS
from tollspan.instrumentation._readers._openai._images import OPENAI_IMAGES
from tollspan.instrumentation._readers._openai._videos import OPENAI_VIDEOS
from tollspan.instrumentation._sites._site import CallSite, Keywords, both

_CHAT = "openai.resources.chat.completions.completions"
_CHAT_BETA = "openai.resources.beta.chat.completions"
_RESPONSES = "openai.resources.responses.responses"
_RESPONSES_BETA = "openai.resources.beta.responses.responses"
_IMAGES = "openai.resources.images"
_AUDIO = "openai.resources.audio"
_VIDEOS = "openai.resources.videos"
_COMPACT = Keywords("/responses/compact")
_DECISIONS = Keywords("/decisions")
_REALTIME = "openai.resources.realtime.realtime"
_REALTIME_BETA = "openai.resources.beta.realtime.realtime"


def _connection(since: str, module: str, name: str) -> Iterator[CallSite]:
    """A connection by websocket, and its twin of asyncio: each message that it sends passes one method."""
    yield CallSite("openai", since, module, f"{name}.send", "sends")
    yield CallSite("openai", since, module, f"Async{name}.send", "async sends")


OPENAI: tuple[CallSite, ...] = (
    *both("openai", "1.66", _CHAT, "Completions.create", OPENAI_CHAT),
    *both("openai", "1.92", _CHAT, "Completions.parse", OPENAI_CHAT),
    *(replace(site, until="1.92") for site in both("openai", "1.66", _CHAT_BETA, "Completions.parse", OPENAI_CHAT)),
    *both("openai", "1.66", _RESPONSES, "Responses.create", OPENAI_RESPONSES),
    *both("openai", "1.66", _RESPONSES, "Responses.parse", OPENAI_RESPONSES),
    *both("openai", "2.12", _RESPONSES, "Responses.compact", OPENAI_RESPONSES, _COMPACT),
    *both("openai", "2.50", _RESPONSES_BETA, "Responses.create", OPENAI_RESPONSES),
    *both("openai", "2.50", _RESPONSES_BETA, "Responses.compact", OPENAI_RESPONSES, _COMPACT),
    *both("openai", "3.30", "openai.resources.decisions", "Decisions.create", OPENAI_RESPONSES, _DECISIONS),
    *both("openai", "1.66", "openai.resources.completions", "Completions.create", OPENAI_COMPLETIONS),
    *both("openai", "1.66", "openai.resources.embeddings", "Embeddings.create", OPENAI_EMBEDDINGS),
    *both("openai", "1.66", _IMAGES, "Images.generate", OPENAI_IMAGES),
    *both("openai", "1.66", _IMAGES, "Images.edit", OPENAI_IMAGES),
    *both("openai", "1.66", _IMAGES, "Images.create_variation", OPENAI_IMAGES),
    *both("openai", "1.66", f"{_AUDIO}.speech", "Speech.create", OPENAI_SPEECH),
    *both("openai", "1.66", f"{_AUDIO}.transcriptions", "Transcriptions.create", OPENAI_TRANSCRIPTIONS),
    *both("openai", "1.66", f"{_AUDIO}.translations", "Translations.create", OPENAI_TRANSCRIPTIONS),
    *both("openai", "2.2", _VIDEOS, "Videos.create", OPENAI_VIDEOS),
    *both("openai", "2.2", _VIDEOS, "Videos.remix", OPENAI_VIDEOS),
    *both("openai", "2.28", _VIDEOS, "Videos.edit", OPENAI_VIDEOS),
    *both("openai", "2.28", _VIDEOS, "Videos.extend", OPENAI_VIDEOS),
    *both("openai", "1.66", "openai.resources.moderations", "Moderations.create", OPENAI_MODERATION),
    *both("openai", "2.6", "openai.resources.responses.input_tokens", "InputTokens.count", OPENAI_COUNT),
    *both("openai", "2.50", "openai.resources.beta.responses.input_tokens", "InputTokens.count", OPENAI_COUNT),
    *_connection("1.107", _REALTIME, "RealtimeConnection"),
    *_connection("1.66", _REALTIME_BETA, "RealtimeConnection"),
    *_connection("2.24", _RESPONSES, "ResponsesConnection"),
    *_connection("3.54", "openai.resources.live.live", "LiveConnection"),
)
