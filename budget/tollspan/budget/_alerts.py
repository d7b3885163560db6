"""Alerts: a balance has reached a share of its budget's limit. It is told once, by one of the processes that share it.

Balances are looked at after the commits that touch them, on the thread of the ledger's listeners. The ledger remembers
what was told: whoever asks it first tells the log, the callbacks of this process, and the webhook.
"""

import datetime as dt
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

import orjson
from opentelemetry.context import Context, attach, detach

from tollspan.exporter import pipeline
from tollspan.ledger import (
    BudgetDefinition,
    Key,
    Ledger,
    LedgerError,
    LedgerEvent,
    Unit,
    Window,
    at_the_end,
    format_amount,
    in_unit,
    internal_errors,
    to_nano,
)

from ._errors import reset_text

if TYPE_CHECKING:
    from ._webhook import Webhook

_log = logging.getLogger("tollspan.budget")

_MOST = 4096
_END_S = 2.0

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A balance of a budget has reached `share` of its limit.

    `scope` tells the balance as BudgetExceeded does, "" where the budget has only one. `spent` (estimates included,
    holds not) and `limit` are Decimal USD, tokens or requests, as `unit` says. The rest are epoch seconds:
    `window_start`, from when it counts, and `reset_at`, when it starts anew, are None where there is no such instant;
    `at` is when it was noticed.
    """

    budget: str
    scope: str
    share: float
    spent: Decimal
    limit: Decimal
    unit: Unit
    window_start: int | None
    reset_at: int | None
    at: float


OnWarn = Callable[[BudgetAlert], object]


class _Recent(Generic[K, V]):
    """A mapping that forgets what was not used for long. It has no lock: a fork could leave that locked for ever."""

    def __init__(self) -> None:
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def put(self, key: K, value: V) -> None:
        new = self._new
        if len(new) >= _MOST:
            self._old, self._new = new, {}
        self._new[key] = value

    def get(self, key: K) -> V | None:
        value = self._new.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value


_callbacks: tuple[OnWarn, ...] = ()
_of_account: dict[str, OnWarn] = {}
_of_run: _Recent[str, tuple[BudgetDefinition, OnWarn | None]] = _Recent()
"""The entries with a balance of their own: two of one name may have different limits."""
_watches: "WeakKeyDictionary[Ledger, _Watch]" = WeakKeyDictionary()
_lock = threading.Lock()


def on_budget_alert(callback: OnWarn) -> Callable[[], None]:
    """Call `callback` with each alert that this process tells, of any budget; call what is given back to end it.

    It is called on a thread of the ledger, after the commit, with no scope or budget in force; an exception in it is
    logged. Raises TypeError for a coroutine function: hand the alert to a loop with `loop.call_soon_threadsafe`.
    """
    global _callbacks  # noqa: PLW0603 - the callbacks of the process
    if wrong := what_is_wrong_with(callback):
        raise TypeError(wrong)
    own = [callback]  # the same function may be given twice, and is then taken away once
    with _lock:
        _callbacks = (*_callbacks, callback)

    def end() -> None:
        global _callbacks  # noqa: PLW0603 - the callbacks of the process
        with _lock:
            while own:
                left = list(_callbacks)
                left.remove(own.pop())
                _callbacks = tuple(left)

    return end


def what_is_wrong_with(callback: object) -> str | None:
    """Why this cannot be called with an alert; None where it can."""
    if not callable(callback):
        return f"{callback!r} cannot be called"
    if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None)):  # noqa: B004 - asks what kind it is
        return (
            "a coroutine function cannot be called on the ledger's thread; write a function, which may hand the alert "
            "to a loop with loop.call_soon_threadsafe"
        )
    return None


def expect(definition: BudgetDefinition, run: str, on_warn: OnWarn | None) -> None:
    """Note whom to tell of a budget that is entered; of those with one name and a window, the one entered last."""
    if definition.window is None:
        _of_run.put(run, (definition, on_warn))
    elif on_warn is not None:
        _of_account[definition.account] = on_warn


def watch(ledger: Ledger, definitions: Iterable[BudgetDefinition]) -> None:
    """Look at the balances of the budgets that a call counts in, after each commit of this process from now on."""
    watching = _watches.get(ledger)
    if watching is None or not watching.has_begun:
        watching = _begun(ledger)
    # The lowest last: it is the one that holds, where there are several of one name.
    for definition in sorted(definitions, key=lambda one: one.limit, reverse=True):
        watching.use(definition)


def _begun(ledger: Ledger) -> "_Watch":
    with _lock:
        if ledger not in _watches:
            _watches[ledger] = _Watch(ledger, pipeline().settings.webhook)
            ledger.writer.listeners.add(_watches[ledger].hear)
        _watches[ledger].begin()
        return _watches[ledger]


class _Watch:
    """What one ledger is watched for, in one process."""

    def __init__(self, ledger: Ledger, url: str | None) -> None:
        self._ledger = weakref.ref(ledger)
        self._webhook = None if url is None else _webhook_to(url)
        self._in_use: dict[str, dict[tuple[Window | None, str | None], BudgetDefinition]] = {}
        self._told: _Recent[str, bool] = _Recent()
        self._pid = 0

    def use(self, definition: BudgetDefinition) -> None:
        """Watch for a definition, which replaces the one that was used before: budgets may be loaded anew."""
        self._in_use.setdefault(definition.account, {})[definition.window, definition.each] = definition

    @property
    def has_begun(self) -> bool:
        """Whether it has begun in this process; in a forked child it has not."""
        return self._pid == os.getpid()

    def begin(self) -> None:
        """Have the webhook run in this process, and be given its time at the end."""
        if self._webhook is not None and not self.has_begun:
            self._webhook.start()
            at_the_end(self._end)  # after the writer has said so, and so called before it is
        self._pid = os.getpid()

    def hear(self, events: Sequence[LedgerEvent]) -> None:
        """Look at the balances that a commit has touched."""
        ledger = self._ledger()
        if ledger is None:
            return
        touched = [c for event in events for c in event.charges if c.budget in self._in_use]
        for key in dict.fromkeys((c.budget, c.scope, c.window_start) for c in touched):
            for definition, on_warn in self._counted_in(key):
                with suppress(LedgerError):  # the next commit that touches it looks again
                    for alert in self._new_alerts(ledger, definition, key):
                        self._tell(alert, on_warn)

    def _counted_in(self, key: Key) -> list[tuple[BudgetDefinition, OnWarn | None]]:
        """The definitions whose balance it is, and what they want to have called."""
        account, scope, start = key
        own = _of_run.get(scope.partition(" ")[0])
        if own is not None and own[0].account == account:
            return [own]
        fitting = [
            (one, one.window)
            for one in [*self._in_use[account].values()]
            if one.window is not None and one.window.start(start) == start and _has_scope(one, scope)
        ]
        # An hour of the same name may start where a day does: what is current comes first.
        current = [one for one, window in fitting if window.start(time.time()) == start]
        on_warn = _of_account.get(account)
        return [(one, on_warn) for one in current or [one for one, _ in fitting]]

    def _new_alerts(self, ledger: Ledger, definition: BudgetDefinition, key: Key) -> Iterator[BudgetAlert]:
        """The shares that the balance has reached and nobody has told yet, lowest first. Raises LedgerUnavailable."""
        now, window = time.time(), definition.window
        span = window.span if window else 0
        stretch = int(now // span) if span else key[2]
        if window and span:
            key = (*key[:2], window.start(now))
        limit = ledger.overrides.limit_of(definition, now)
        spent = ledger.cached_balance(key, span).spent
        for share in definition.warn_at:
            if not spent or spent < Decimal(str(share)) * limit:
                break
            what = orjson.dumps(["budget alert", *key[:2], stretch, share]).decode()
            if not self._told.get(what):
                is_first = ledger.tell_once(what)
                self._told.put(what, True)
                if is_first:
                    yield _alert(definition, key, share, spent, limit)

    def _tell(self, alert: BudgetAlert, on_warn: OnWarn | None) -> None:
        _log.warning("%s", _text(alert))
        if self._webhook is not None:
            self._webhook.send(_json(alert))
        for callback in ((on_warn,) if on_warn else ()) + _callbacks:
            token = attach(Context())  # not that of the call that happened to start this thread
            try:
                callback(alert)
            except Exception:  # noqa: BLE001 - it is the application's, and the next ones are told all the same
                _log.exception("a callback for alerts of budget %r failed", alert.budget)
            finally:
                detach(token)

    def _end(self) -> None:
        ledger, until = self._ledger(), time.monotonic() + _END_S
        with internal_errors:
            if ledger is not None:
                ledger.flush(_END_S)
                ledger.writer.listeners.drain(max(0.0, until - time.monotonic()))
            if self._webhook is not None:
                self._webhook.drain(_END_S)


def _webhook_to(url: str) -> "Webhook":
    from ._webhook import webhook_to  # noqa: PLC0415 - who has no webhook need not load a client for it

    return webhook_to(url)


def _has_scope(definition: BudgetDefinition, scope: str) -> bool:
    return scope.startswith(f"{definition.each}=") if definition.each else not scope


def _alert(definition: BudgetDefinition, key: Key, share: float, spent: int, limit: int) -> BudgetAlert:
    window, (_, scope, start) = definition.window, key
    is_endless = window is None or window.kind == "total"
    return BudgetAlert(
        budget=definition.name,
        scope=scope,
        share=share,
        spent=in_unit(spent, definition.unit),
        limit=in_unit(limit, definition.unit),
        unit=definition.unit,
        window_start=None if window is None or is_endless else start - window.span,
        reset_at=None if window is None or window.rolling else window.end(start),
        at=time.time(),
    )


def _text(alert: BudgetAlert) -> str:
    scope = f" ({alert.scope})" if alert.scope else ""
    spent, limit = (_shown(amount, alert.unit) for amount in (alert.spent, alert.limit))
    end = reset_text(alert.reset_at)
    if alert.reset_at is None and alert.window_start is not None:
        end = f" since {dt.datetime.fromtimestamp(alert.window_start, dt.UTC):%Y-%m-%d %H:%M} UTC"
    reached = f"has reached {alert.share * 100:g}% of its limit"
    return f"budget {alert.budget!r}{scope} {reached}: {spent} spent of {limit}{end}"


def _shown(amount: Decimal, unit: Unit) -> str:
    return format_amount(to_nano(amount) if unit == "USD" else int(amount), unit)


def _json(alert: BudgetAlert) -> bytes:
    return orjson.dumps(asdict(alert) | {"spent": f"{alert.spent:f}", "limit": f"{alert.limit:f}"})


if hasattr(os, "register_at_fork"):
    # A child must not inherit the lock from a thread that it does not have.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
