"""Hugging Face's text generation and other tasks."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

HUGGINGFACE: tuple[Reader, ...] = ()
HUGGINGFACE_FETCHES: tuple[Fetch, ...] = ()
