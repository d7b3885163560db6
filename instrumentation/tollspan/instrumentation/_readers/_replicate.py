"""Replicate."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

REPLICATE: tuple[Reader, ...] = ()
REPLICATE_FETCHES: tuple[Fetch, ...] = ()
