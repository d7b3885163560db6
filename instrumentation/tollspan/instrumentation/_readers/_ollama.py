"""Ollama's own API."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

OLLAMA: tuple[Reader, ...] = ()
OLLAMA_FETCHES: tuple[Fetch, ...] = ()
