"""Spans of calls to models are recorded where a sampler drops them, for the ledger only: no exporter sees them."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from ._dialects import is_inference_start

OWN_EVENT_ID = "tollspan.event_id"
"""On every span of ours from its start. The calls of those are counted without a span, too."""


class RecordInference(Sampler):
    """Asks a sampler, and where that drops the span of a call to a model, has it recorded without being sampled.

    What is kept is told by the attributes that a span starts with, or by a known name. An instrumentation that gives
    neither at the start is as far from the ledger as the sampler puts it.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(  # noqa: PLR0917 - the SDK's interface
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The sampler's own decision, except that the span of a foreign call to a model is never dropped."""
        result = self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP or (attributes and OWN_EVENT_ID in attributes):
            return result
        if not is_inference_start(name, attributes or ()):
            return result
        return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)

    def get_description(self) -> str:
        """The sampler's own description."""
        return self._sampler.get_description()

    def __getattr__(self, name: str) -> Any:
        # What else a sampler can do, such as to be reconfigured, stays within reach of whoever made it.
        if name == "_sampler":
            raise AttributeError(name)
        return getattr(self._sampler, name)


def record_unsampled(provider: Any) -> None:
    """Put the wrapper around the samplers of a provider and of its tracers, once; a provider without is left alone."""
    # The tracers that exist already have the sampler from the provider, and nothing public reaches them.
    for holder in (provider, *tuple(getattr(provider, "_tracers", {}).values())):
        sampler = getattr(holder, "sampler", None)
        if isinstance(sampler, Sampler) and not isinstance(sampler, RecordInference):
            holder.sampler = RecordInference(sampler)
