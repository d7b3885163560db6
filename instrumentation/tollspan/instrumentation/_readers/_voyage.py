"""Voyage AI."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

VOYAGE: tuple[Reader, ...] = ()
VOYAGE_FETCHES: tuple[Fetch, ...] = ()
