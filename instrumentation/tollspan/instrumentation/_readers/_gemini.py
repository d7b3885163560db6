"""Google's Gemini API and Vertex AI."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

GEMINI: tuple[Reader, ...] = ()
GEMINI_FETCHES: tuple[Fetch, ...] = ()
