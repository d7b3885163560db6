"""Mistral's conversations and OCR; its chat is OpenAI's."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

MISTRAL: tuple[Reader, ...] = ()
MISTRAL_FETCHES: tuple[Fetch, ...] = ()
