"""Cohere, versions 1 and 2 of its API."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

COHERE: tuple[Reader, ...] = ()
COHERE_FETCHES: tuple[Fetch, ...] = ()
