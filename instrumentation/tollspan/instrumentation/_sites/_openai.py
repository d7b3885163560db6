"""OpenAI's SDK, also as the client of Azure and of the many servers compatible with OpenAI.

Its `.stream()` helpers, and its raw and streaming responses, send through `create`.
"""

from tollspan.instrumentation._readers import (
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    OPENAI_MEDIA,
    OPENAI_RESPONSES,
)
from tollspan.instrumentation._sites._site import CallSite, Keywords, both

_CHAT = "openai.resources.chat.completions.completions"
_CHAT_BETA = "openai.resources.beta.chat.completions"
_RESPONSES = "openai.resources.responses.responses"
_RESPONSES_BETA = "openai.resources.beta.responses.responses"
_IMAGES = "openai.resources.images"
_AUDIO = "openai.resources.audio"
_COMPACT = Keywords("/responses/compact")

OPENAI: tuple[CallSite, ...] = (
    *both("openai", "1.66", _CHAT, "Completions.create", OPENAI_CHAT),
    *both("openai", "1.99", _CHAT, "Completions.parse", OPENAI_CHAT),
    *both("openai", "1.66", _CHAT_BETA, "Completions.parse", OPENAI_CHAT),  # until it moved out of beta
    *both("openai", "1.66", _RESPONSES, "Responses.create", OPENAI_RESPONSES),
    *both("openai", "1.66", _RESPONSES, "Responses.parse", OPENAI_RESPONSES),
    *both("openai", "2.17", _RESPONSES, "Responses.compact", OPENAI_RESPONSES, _COMPACT),
    *both("openai", "3.0", _RESPONSES_BETA, "Responses.create", OPENAI_RESPONSES),
    *both("openai", "3.0", _RESPONSES_BETA, "Responses.compact", OPENAI_RESPONSES, _COMPACT),
    *both("openai", "1.66", "openai.resources.completions", "Completions.create", OPENAI_COMPLETIONS),
    *both("openai", "1.66", "openai.resources.embeddings", "Embeddings.create", OPENAI_EMBEDDINGS),
    *both("openai", "1.66", _IMAGES, "Images.generate", OPENAI_MEDIA),
    *both("openai", "1.66", _IMAGES, "Images.edit", OPENAI_MEDIA),
    *both("openai", "1.66", f"{_AUDIO}.speech", "Speech.create", OPENAI_MEDIA),
    *both("openai", "1.66", f"{_AUDIO}.transcriptions", "Transcriptions.create", OPENAI_MEDIA),
    *both("openai", "1.66", f"{_AUDIO}.translations", "Translations.create", OPENAI_MEDIA),
)
