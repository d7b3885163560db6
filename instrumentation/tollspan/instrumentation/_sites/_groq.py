"""groq."""

from tollspan.instrumentation._readers import TELLING_CHAT
from tollspan.instrumentation._sites._site import CallSite, both

GROQ: tuple[CallSite, ...] = (
    *both("groq", "0.9", "groq.resources.chat.completions", "Completions.create", TELLING_CHAT, vendor="groq"),
)
