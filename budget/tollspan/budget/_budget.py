"""`budget(...)`: a limit on the calls made inside a block or a function."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypeVar, cast

from tollspan.exporter import pipeline
from tollspan.ledger import (
    BudgetDefinition,
    BudgetSyntaxError,
    CutStream,
    Mode,
    OnLimit,
    parse_limit,
)

from . import _twins
from ._alerts import OnWarn, expect, what_is_wrong_with
from ._entry import BudgetEntry, close
from ._reach import enter, reach

F = TypeVar("F", bound=Callable[..., Any])


class budget:  # noqa: N801 - a decorator and a block, written like `contextlib.suppress`
    """Limit what the calls inside may spend, before they are sent.

    `limit` reads like `5 USD / day`, `0.10 USD`, `100000 tokens / hour`, `60 requests / rolling minute`, or
    `8 concurrent` for calls at once. With a window, `name` is one balance shared by every process that uses the same
    ledger, and so it is for calls at once; without one, each entry has a balance of its own.

    As a decorator it takes functions, coroutine functions, generators and async generators; as a block it works in
    `with` and `async with`, nests, and one object may be entered by many tasks at once. Raises BudgetSyntaxError for
    values that make no sense.

    `mode`: `strict` writes a durable hold before each request; `best_effort` compares with what this process last saw.
    `on_limit`: `raise`, `wait` (up to `max_wait_timeout_s`, first come first served), `warn` and go on, or `fallback`:
    the call goes to `fallback_model` if it fits with that one.
    `match` maps dimensions to globs, `each` names the dimension of which every value has its own balance.
    `output_bound` is what a call without a maximum of its own may give: `clamp` (the model's maximum where it fits,
    else what the remainder buys), uncut the `max`, a number of tokens, which is sent as its maximum, or uncut what is
    `learned` from the ledger's history, which a call may pass now and then.
    `cut_stream`: a stream cut short without usage keeps its whole `hold` as spend, or the `estimate` of what was seen,
    or its rest is read in the background (`drain`). `timezone` is the configured one unless it is given. `warn_at` are
    fractions of the limit, such as `(0.5, 0.8)`: each is told once in a window, by one of all processes, to the log,
    to the webhook, and in that process to `on_warn` and to whom `on_budget_alert` has noted: after the commit, and off
    the path of any call.
    """

    def __init__(
        self,
        limit: str,
        *,
        name: str,
        mode: Mode = "strict",
        on_limit: OnLimit = "raise",
        max_wait_timeout_s: float = 60,
        each: str | None = None,
        match: Mapping[str, str] | None = None,
        timezone: str | None = None,
        warn_at: tuple[float, ...] = (),
        on_warn: OnWarn | None = None,
        output_bound: str | int = "clamp",
        cut_stream: CutStream = "hold",
        fallback_model: str | None = None,
    ) -> None:
        try:
            amount, unit, window = parse_limit(limit, "UTC" if timezone is None else timezone)
        except BudgetSyntaxError as error:
            raise BudgetSyntaxError(f"budget {name!r}, {error}") from None
        self._has_zone = window is None or timezone is not None
        self._definition = BudgetDefinition(
            name=name,
            limit=amount,
            unit=unit,
            window=window,
            match=match or {},
            each=each,
            mode=mode,
            on_limit=on_limit,
            max_wait_timeout_s=max_wait_timeout_s,
            output_bound=output_bound,
            cut_stream=cut_stream,
            fallback_model=fallback_model,
            warn_at=warn_at,
        )
        self._on_warn = on_warn
        if on_warn is not None:
            self._check_on_warn(on_warn)
        self._entries: list[BudgetEntry] = []

    @property
    def definition(self) -> BudgetDefinition:
        """What was written, in the configured time zone where none was.

        The configuration is read here and not where a function is decorated: that is at import, often before it is set.
        """
        window = self._definition.window
        if window is not None and not self._has_zone:
            zone = pipeline().settings.timezone
            if zone != window.timezone:
                self._definition = replace(self._definition, window=replace(window, timezone=zone))
        return self._definition

    def __enter__(self) -> BudgetEntry:
        entry = self._new_entry()
        self._entries.append(entry)
        enter(entry)
        return entry

    def __exit__(self, *exception: object) -> None:
        entry = self._newest()
        if entry is not None:
            self._entries.remove(entry)
            close(entry)

    async def __aenter__(self) -> BudgetEntry:
        return self.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()

    def __call__(self, function: F) -> F:
        """Decorate: each call of the function is one entry."""
        if isinstance(function, classmethod | staticmethod):
            return cast("F", type(function)(self(function.__func__)))
        if inspect.isclass(function) or not callable(function):
            raise TypeError(f"budget {self._definition.name!r} decorates functions; {function!r} is none")
        return cast("F", wraps(function, updated=())(self._twin(function)))

    def _twin(self, function: Callable[..., Any]) -> Callable[..., Any]:
        routine = function if inspect.isroutine(function) or isinstance(function, partial) else function.__call__  # type: ignore[operator]
        if inspect.isasyncgenfunction(routine):
            return _twins.async_generator(self._new_entry, function)
        if inspect.isgeneratorfunction(routine):
            return _twins.generator(self._new_entry, function)
        if inspect.iscoroutinefunction(routine):
            return _twins.coroutine(self._new_entry, function)
        return _twins.plain(self._new_entry, function)

    def _check_on_warn(self, on_warn: OnWarn) -> None:
        wrong = what_is_wrong_with(on_warn)
        if wrong is None and not self._definition.warn_at:
            wrong = "it belongs to warn_at; write both of them, or neither"
        if wrong is not None:
            raise BudgetSyntaxError(f"budget {self._definition.name!r}, on_warn: {wrong}")

    def _new_entry(self) -> BudgetEntry:
        entry = BudgetEntry(self.definition)
        if entry.definition.warn_at:
            expect(entry.definition, entry.run, self._on_warn)
        return entry

    def _newest(self) -> BudgetEntry | None:
        """The entry to leave: the newest one of this object that is in force here, else the newest anywhere."""
        here = [e for e in reach().entries if e.open and any(e is own for own in self._entries)]
        return here[-1] if here else self._entries[-1] if self._entries else None
