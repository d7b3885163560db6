"""The ways in: `instrument()` in code, and the pre-instrument hook of zero-code mode."""

import os

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tollspan.budget import THREADS
from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from ._content import CAPTURE
from ._patience import RATE_LIMITS, checked
from ._tracing import provider_in_use, use_provider
from ._watch import WATCH


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    wait_on_rate_limit: bool | None = None,
    max_wait_timeout_s: float | None = None,
    retry_budget_s: float | None = None,
) -> None:
    """Record every call of the LLM SDKs in the ledger, on spans, and against the budgets. Idempotent.

    Spans are made with `tracer_provider`, or else with the global one, also where that is set later. The ledger does
    not depend on either; its metrics go to `meter_provider`, or else to the global one. TOLLSPAN_DISABLED makes this do
    nothing.

    With `wait_on_rate_limit`, a call that meets a rate limit of its provider (429; 503 and 529 with `Retry-After`)
    waits as the answer's headers say, else by a backoff with jitter of at most 8 s, and is sent again before its SDK
    hears of it. The answer goes to the SDK where the wait would be longer than `max_wait_timeout_s` seconds, or would
    end more than `retry_budget_s` seconds after the call's first attempt, and after 127 attempts. What is None here, an
    earlier call has said, or else the settings (false, 60 and 90). Raises ValueError for what is no number of seconds.
    """
    given = checked(
        wait_on_rate_limit=wait_on_rate_limit, max_wait_timeout_s=max_wait_timeout_s, retry_budget_s=retry_budget_s
    )
    with internal_errors:
        line = pipeline()
        if line.settings.disabled:
            return
        if tracer_provider is not None:
            use_provider(tracer_provider)
        line.attach(provider_in_use())  # at once, for calls that only spans of others tell of
        line.guard()
        line.measure(meter_provider)
        RATE_LIMITS.use(given)
        CAPTURE.read()
        WATCH.begin()
        THREADS.install()


def uninstrument() -> None:
    """Put back everything that `instrument` changed in the SDKs, and write what is queued."""
    WATCH.end()
    THREADS.remove()
    RATE_LIMITS.forget()
    CAPTURE.forget()
    use_provider(None)
    line = pipeline()
    if line.is_open:
        line.ledger.flush()


def pre_instrument() -> None:
    """Called by `opentelemetry-instrument` before any instrumentor: one that fails stops those after it, not us."""
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if {"tollspan", "*"} & {name.strip() for name in disabled.split(",")}:
        return
    instrument()
