"""The instrumentor, for those who look for one: `opentelemetry-instrument`, and code that has a list of them."""

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from ._instrument import instrument, uninstrument


class TollspanInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """The entry point `tollspan` of `opentelemetry-instrument`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: a row of the table waits until its SDK is imported, and most applications use only some."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        names = ("wait_on_rate_limit", "max_wait_timeout_s", "retry_budget_s")
        patience = {name: kwargs.get(name) for name in names}
        instrument(kwargs.get("tracer_provider"), kwargs.get("meter_provider"), **patience)

    def _uninstrument(self, **_kwargs: Any) -> None:
        uninstrument()
