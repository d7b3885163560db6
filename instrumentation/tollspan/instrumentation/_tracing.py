"""Which tracer provider the spans are made with."""

from opentelemetry import trace

_given: trace.TracerProvider | None = None


def use_provider(provider: trace.TracerProvider | None) -> None:
    """Make the spans with this provider; None: with the global one, whenever the application sets it."""
    global _given  # noqa: PLW0603 - what `instrument` was given holds for the process
    _given = provider


def provider_in_use() -> trace.TracerProvider:
    """The provider that spans are made with now."""
    return _given or trace.get_tracer_provider()
