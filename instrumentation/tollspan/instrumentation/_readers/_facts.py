"""What a reader tells of a request and of its answer, in the same words for every API flavour."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter
from typing import Any, Protocol

InputBound = tuple[int, str | None]
"""Input tokens at the most, and why a request's cost has no bound all the same, or None."""


@dataclass(slots=True, kw_only=True)
class RequestFacts:
    """A request as admission and the span need it; nothing of its content is kept beyond its call.

    `max_output_tokens` is the caller's explicit maximum for each choice, or None. `choices` is how many outputs each
    attempt may bill. `attributes` are request attributes of the OpenTelemetry GenAI conventions. `measure` walks the
    whole request, which only a budget or an estimate needs: it is called when one of its two answers is asked for.
    `find_units` names what the call uses besides text, which has to have a price of its own. `is_text` tells whether
    none of the input can be priced apart from text, as sound is; False where that is not looked at. `priced` is False
    where no price of tokens says anything of the bill; `free`, True where the provider bills nothing for such requests.
    `limitable` tells whether the flavour's `with_output_limit` can bound this request's output. `usage_of` gives what a
    complete answer has used, where some of that stands in its request alone. `operation` is what the request asks for
    where its flavour has several; None where that is its reader's.
    """

    measure: Callable[[], InputBound]
    model: str | None = None
    operation: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    choices: int = 1
    service_tier: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    priced: bool = True
    free: bool = False
    limitable: bool = False
    find_units: Callable[[], tuple[str, ...]] = tuple
    is_text: Callable[[], bool] = bool
    usage_of: "Callable[[ResponseFacts], dict[str, float] | None]" = attrgetter("usage")
    _measured: InputBound | None = field(default=None, init=False)

    @property
    def input_tokens_bound(self) -> int:
        """An upper bound on the billed input tokens of one attempt."""
        return self._bound()[0]

    @property
    def unbounded(self) -> str | None:
        """Why the cost has no bound that can be computed here (hosted tools, state of the server, remote media)."""
        return self._bound()[1]

    def bound_input(self, tokens: int, unbounded: str | None = None) -> None:
        """Have the input bounded by so many tokens, or not at all for another reason: somebody knows better."""
        self._measured = tokens, unbounded

    def _bound(self) -> InputBound:
        if self._measured is None:
            self._measured = self.measure()
        return self._measured


@dataclass(slots=True, kw_only=True)
class ResponseFacts:
    """An answer as the ledger and the span need it.

    `usage` is in tollspan's token meaning (every token inside `tokens_in` and `tokens_out`), or None where the answer
    carried none: None is unknown, 0 is zero. `created` is when the provider began an answer that it keeps, in epoch
    seconds. `cost_usd` is a cost that the wire itself stated. `complete` is False for
    a stream that ended before its terminal event. `visible_output_bytes` counts the UTF-8 bytes of generated text and
    tool arguments seen so far; it is only filled in where a stream ended without usage. `others` is what more models
    behind the same request have used, each with its name: it is billed at their prices, and is no part of `usage`.
    `operation` is only given where answers of several kinds are fetched together.
    """

    model: str | None = None
    response_id: str | None = None
    usage: dict[str, float] | None = None
    finish_reasons: tuple[str, ...] = ()
    service_tier: str | None = None
    created: float | None = None
    cost_usd: Decimal | None = None
    error_type: str | None = None
    error_message: str | None = None
    complete: bool = True
    visible_output_bytes: int = 0
    operation: str | None = None
    others: tuple[tuple[str, dict[str, float]], ...] = ()


class Reader(Protocol):
    """One API flavour on the wire. All methods are pure, and none raises for any input of the declared types.

    `Flavour` has what most of them answer.
    """

    name: str
    """The flavour: `openai.chat`, `openai.responses`, `anthropic.messages`."""
    vendor: str
    """The provider whose flavour this is, in OpenTelemetry's spelling; what an unknown host is taken for."""
    operation: str
    """`gen_ai.operation.name` of its calls."""
    path_suffixes: tuple[str, ...]
    """How the URL paths of its POST requests end."""
    path_part: str
    """What stands in those paths before that: custom endpoints have paths that end alike."""
    asked_keys: frozenset[str]
    """One of these stands in the JSON body of each request: other services have paths that end alike. Empty: any."""
    terminal_marks: tuple[bytes, ...]
    """What stands in the terminal event of a stream, and seldom elsewhere: only then `is_complete` is asked."""
    framed_marks: tuple[bytes, ...]
    """The same, where Amazon's binary frames carry the events in base64; empty where they would not change."""
    header_names: tuple[str, ...]
    """The headers of an answer that `take_headers` wants to see, in lower case."""
    fetchable: bool
    """Whether the provider keeps the answers, and tells the usage of one whenever it is fetched."""
    names_model: bool
    """Whether the model stands in the body, under `model`, where a cheaper one can take its place."""

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """Facts of a request, from its JSON body or from an SDK's keyword arguments of the same shape.

        `path` is the URL's, which in some flavours tells the model and whether the answer is a stream.
        """
        ...

    def response(self, body: bytes) -> ResponseFacts:
        """Facts of a whole JSON answer, success or error."""
        ...

    def stream(self, received: bytes) -> ResponseFacts:
        """Facts of a stream, from the bytes received of it (whole, cut anywhere, or without some of its middle)."""
        ...

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """Complete the facts of an answer by those of its headers that `header_names` names; keys in lower case."""
        ...

    def is_complete(self, tail: bytes) -> bool:
        """Whether the last bytes of a stream hold its terminal event."""
        ...

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """The keyword arguments to change so that each choice gives at most `tokens` output tokens."""
        ...

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The keyword arguments to change so that a stream reports its usage; None where it will without."""
        ...


class Flavour:
    """What most readers answer: nothing to limit, nothing to ask for, nothing in headers, nothing kept."""

    __slots__ = ()
    operation = "chat"
    asked_keys: frozenset[str] = frozenset({"input", "messages", "model", "prompt"})
    path_part = ""
    terminal_marks: tuple[bytes, ...] = ()
    framed_marks: tuple[bytes, ...] = ()
    header_names: tuple[str, ...] = ()
    fetchable = False
    names_model = True

    def take_headers(self, facts: ResponseFacts, headers: Mapping[str, str]) -> None:
        """See `Reader.take_headers`."""

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`."""
        return False

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits it."""
        return {}

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: every answer of this flavour tells its usage, or none does."""
        return None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Answers at a GET endpoint, whose URL path matches `path` as a whole.

    `read` gives the facts of those that are complete: with usage or a stated cost, the provider's id, and the time at
    which it began (`created`, which is the same at each fetch). `service_tier` is one that holds for all of them.
    """

    path: str
    reader: Reader
    read: Callable[[bytes], Iterable[ResponseFacts]]
    service_tier: str | None = None
