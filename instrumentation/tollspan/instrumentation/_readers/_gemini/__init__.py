"""Google's Gemini API and Vertex AI."""

from tollspan.instrumentation._readers._facts import Fetch, Reader
from tollspan.instrumentation._readers._gemini._embeddings import GEMINI_EMBEDDINGS
from tollspan.instrumentation._readers._gemini._generate import GEMINI_GENERATE
from tollspan.instrumentation._readers._gemini._interactions import INTERACTION_FETCHES, INTERACTIONS
from tollspan.instrumentation._readers._gemini._media import GEMINI_IMAGES, GEMINI_VIDEOS

GEMINI: tuple[Reader, ...] = (GEMINI_GENERATE, GEMINI_EMBEDDINGS, GEMINI_IMAGES, GEMINI_VIDEOS, INTERACTIONS)
GEMINI_FETCHES: tuple[Fetch, ...] = INTERACTION_FETCHES
