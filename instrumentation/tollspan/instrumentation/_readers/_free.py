"""Requests that providers do not bill: moderation, and counting tokens."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

FREE: tuple[Reader, ...] = ()
FREE_FETCHES: tuple[Fetch, ...] = ()
