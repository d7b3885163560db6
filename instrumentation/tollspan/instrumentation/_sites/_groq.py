"""groq."""

from tollspan.instrumentation._readers import OPENAI_EMBEDDINGS, TELLING_CHAT
from tollspan.instrumentation._readers._openai._audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS
from tollspan.instrumentation._sites._site import CallSite, both

_CHAT = "groq.resources.chat.completions"
_AUDIO = "groq.resources.audio"

GROQ: tuple[CallSite, ...] = (
    *both("groq", "0.4", _CHAT, "Completions.create", TELLING_CHAT, vendor="groq"),
    *both("groq", "0.9", "groq.resources.embeddings", "Embeddings.create", OPENAI_EMBEDDINGS, vendor="groq"),
    *both("groq", "0.5", f"{_AUDIO}.transcriptions", "Transcriptions.create", OPENAI_TRANSCRIPTIONS, vendor="groq"),
    *both("groq", "0.5", f"{_AUDIO}.translations", "Translations.create", OPENAI_TRANSCRIPTIONS, vendor="groq"),
    *both("groq", "0.20", f"{_AUDIO}.speech", "Speech.create", OPENAI_SPEECH, vendor="groq"),
)
