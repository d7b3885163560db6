"""Batches: their results are fetched, when they are complete, from OpenAI's files and from Anthropic."""

from tollspan.instrumentation._readers._facts import Fetch

BATCH_FETCHES: tuple[Fetch, ...] = ()
