"""The ways in: `instrument()` in code, the instrumentor and the pre-instrument hook in zero-code mode."""

import logging
import os
from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from ._patching import INSTALLATION
from ._spans import provider_in_use, use_provider

_log = logging.getLogger("tollspan.instrumentation")


def instrument(tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
    """Record every call of the LLM SDKs in the ledger, on spans, and against the budgets. Idempotent.

    Spans are made with `tracer_provider`, or else with the global one, also where that is set later. The ledger does
    not depend on either; its metrics go to `meter_provider`, or else to the global one. TOLLSPAN_DISABLED makes this do
    nothing.
    """
    with internal_errors:
        line = pipeline()
        if line.settings.disabled:
            return
        if tracer_provider is not None:
            use_provider(tracer_provider)
        line.attach(provider_in_use())  # at once, for calls that only spans of others tell of
        line.guard()
        line.measure(meter_provider)
        INSTALLATION.install()


def uninstrument() -> None:
    """Put back everything that `instrument` changed in the SDKs, and write what is queued."""
    INSTALLATION.remove()
    use_provider(None)
    line = pipeline()
    if line.is_open:
        line.ledger.flush()


class TollspanInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """The entry point `tollspan` of `opentelemetry-instrument`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: a row of the table waits until its SDK is imported, and most applications use only some."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        instrument(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))

    def _uninstrument(self, **_kwargs: Any) -> None:
        uninstrument()


def pre_instrument() -> None:
    """Called by `opentelemetry-instrument` before any instrumentor: one that fails stops those after it, not us."""
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if {"tollspan", "*"} & {name.strip() for name in disabled.split(",")}:
        return
    instrument()
