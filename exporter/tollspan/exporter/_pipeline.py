"""The process's way into the ledger: settings, prices and ledger opened once, the processor attached where needed."""

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider

from tollspan.ledger import BudgetDefinition, LedgerUnavailable, Settings, internal_errors, load_settings

from ._metrics import LedgerMetrics
from ._processor import LedgerSpanProcessor, bind, keep_books_in, take
from ._sampling import record_unsampled
from ._settle import settle
from ._signals import flush_on_sigterm

if TYPE_CHECKING:
    from tollspan.ledger import Ledger, PriceBook

    from ._record import CallRecord

_log = logging.getLogger("tollspan")
_SERVICE = "service.name"
_lock = threading.RLock()
_current: "Pipeline | None" = None
_following: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""The providers that have the processor of a pipeline that stood in for another."""


class Pipeline:
    """What one process shares between all its calls. Nothing is opened before the first call needs it."""

    stands_in: ClassVar[bool] = False
    """Whether it takes the place of the configured one for a while, and so the foreign calls of all providers."""

    def __init__(self, settings: Settings, ledger: "Ledger | None" = None) -> None:
        self.settings = settings
        self._configured = settings.budgets
        self._added: list[list[BudgetDefinition]] = []
        self._ledger = ledger
        self._prices: PriceBook | None = None
        self._metrics: LedgerMetrics | None = None
        self._attached: weakref.WeakSet[Any] = weakref.WeakSet()
        self._last_provider: Any = None
        self.service = service_of(None)
        """The service that this process is, as the resource or the environment names it: a dimension of its calls."""
        self.max_wait_s = math.inf
        """The longest that a call may wait in line for a budget, in seconds, whatever the budget says."""
        self._pid = 0

    @property
    def ledger(self) -> "Ledger":
        """The configured ledger; holds that dead processes left in it are settled when it is first opened."""
        if self._ledger is None:
            with _lock:
                if self._ledger is None:
                    from tollspan.ledger import open_ledger  # noqa: PLC0415 - an application may make no call

                    self._ledger = open_ledger(settings=self.settings)
                    self._tell_metrics(self._ledger)
                    self._ledger.writer.defer(self._sweep)
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._ledger.writer.start()  # later a garbage collector may defer something, and that may start nothing
        return self._ledger

    @property
    def is_open(self) -> bool:
        """Whether the ledger was needed yet."""
        return self._ledger is not None

    @property
    def prices(self) -> "PriceBook":
        """The price book; a price file that cannot be read is reported once, and read when it is put right."""
        if self._prices is None:
            with _lock:
                self._prices = self._prices or self._price_book()
        return self._prices

    def attach(self, provider: trace.TracerProvider | None = None) -> None:
        """Add our span processor to a provider, once; called for each call, because applications set providers late.

        Foreign calls are recorded for it where the provider's sampler drops them, unless the settings say otherwise.
        """
        provider = provider or trace.get_tracer_provider()
        if provider is self._last_provider:
            return
        add = getattr(provider, "add_span_processor", None)
        with _lock:
            attached = _following if self.stands_in else self._attached
            if add is not None and provider not in attached:
                attached.add(provider)
                add(_PipelineProcessor(self))
                if self.settings.record_unsampled:
                    record_unsampled(provider)
            self.service = service_of(provider)
            self._last_provider = provider

    def add_budgets(self, budgets: Iterable[BudgetDefinition]) -> Callable[[], None]:
        """Put budgets in force beside the configured ones, in the place of those of the same names.

        What is given back takes them out again, and is harmless the second time.
        """
        own = [*budgets]  # a list of its own, by which it is found again
        with _lock:
            self._put_in_force([*self._added, own])

        def remove() -> None:
            with _lock:
                self._put_in_force([added for added in self._added if added is not own])

        return remove

    def _put_in_force(self, added: list[list[BudgetDefinition]]) -> None:
        self._added = added
        named = {budget.name: budget for budgets in (self._configured, *added) for budget in budgets}
        self.settings = replace(self.settings, budgets=tuple(named.values()))

    def settle(self, record: "CallRecord", span: trace.Span) -> None:
        """End the span and bring its record into the ledger: by the processor, or by hand where none saw the span."""
        context = span.get_span_context()
        seen = context.is_valid and span.is_recording()
        if seen:
            bind(context.span_id, record, self.ledger)
        try:
            span.end()  # this runs the processors of others too, and nobody guards us against them
        finally:
            if not seen or take(context.span_id) is not None:
                settle(record, self.ledger)

    def measure(self, provider: MeterProvider | None) -> None:
        """Offer the metrics of the ledger to a meter provider; None is the global one. The first call wins."""
        with _lock:
            if self._metrics is None:
                self._metrics = LedgerMetrics(provider, lambda: self._ledger)
                if self._ledger is not None:
                    self._tell_metrics(self._ledger)

    def _tell_metrics(self, ledger: "Ledger") -> None:
        if self._metrics is not None and self._metrics.is_wanted:
            ledger.writer.listeners.add(self._metrics.tell)

    def guard(self) -> None:
        """Have what is queued written when SIGTERM comes, unless the settings say otherwise."""
        if self.settings.flush_on_sigterm:
            flush_on_sigterm(_flush)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and close the ledger, as happens at the end of the process anyway."""
        if self._ledger is not None:
            with internal_errors:
                self._ledger.close(timeout_s)

    def _sweep(self) -> None:
        with internal_errors, suppress(LedgerUnavailable):  # the writer reports it; the next process does it again
            self.ledger.recover()

    def _price_book(self) -> "PriceBook":
        from tollspan.ledger import PriceBook  # noqa: PLC0415 - an application may make no call

        return PriceBook(overrides=self.settings.prices, strict=False)


def service_of(provider: trace.TracerProvider | None) -> str:
    """The name of the service, as the provider's resource has it, or else as the environment says; "" for none."""
    resource = getattr(provider, "resource", None)
    named = getattr(resource, "attributes", {}).get(_SERVICE) or os.environ.get("OTEL_SERVICE_NAME")
    if not named:
        pairs = [pair.partition("=") for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")]
        named = next((unquote(value.strip()) for key, _, value in pairs if key.strip() == _SERVICE), "")
    return "" if str(named).startswith("unknown_service") else str(named)


class _PipelineProcessor(LedgerSpanProcessor):
    """The processor of a pipeline: a flush writes what any of its calls left, also those that no provider saw.

    A provider outlives the pipelines that stand in for another, and keeps their processors: those follow the process.
    """

    def __init__(self, line: Pipeline) -> None:
        super().__init__()
        self._line = line

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        with internal_errors:
            line = self._books()
            return not line.is_open or line.ledger.flush(timeout_millis / 1000)
        return False

    def _books(self) -> Pipeline:
        follows = self._line.stands_in or (_current is not None and _current.stands_in)
        return pipeline() if follows else self._line


def pipeline() -> Pipeline:
    """The process's pipeline, made from the configuration when it is first asked for."""
    global _current  # noqa: PLW0603 - the one piece of state that a process shares
    if _current is None:
        with _lock:
            if _current is None:
                settings = load_settings(strict=False)
                for problem in settings.problems:
                    _log.error("%s. The default is used instead", problem)
                _current = Pipeline(settings)
    return _current


keep_books_in(pipeline)


def _flush(timeout_s: float) -> None:
    if _current is not None and _current.is_open:
        _current.ledger.flush(timeout_s)
        _current.ledger.writer.listeners.drain(timeout_s)


def use_pipeline(replacement: Pipeline | None) -> Pipeline | None:
    """Put another pipeline in place (None: a new one is made from the configuration at next use); gives the old one."""
    global _current
    with _lock:
        old, _current = _current, replacement
    return old


if hasattr(os, "register_at_fork"):
    # A child must not inherit the lock from a thread that it does not have.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
