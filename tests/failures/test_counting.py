"""Each call is counted once, by whatever way it goes, in every budget that it belongs to, and never as nothing."""

import json
from contextlib import ExitStack, suppress
from decimal import Decimal

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace import TracerProvider
from scenes import ask, chat_answer, mock_client
from sdk_calls import MODELS, RATES, SURFACES, arguments, create, drive, library_of, make_client

from tollspan.budget import BudgetExceeded, BudgetExhausted, UnpricedModel, budget, scope
from tollspan.console import Answer
from tollspan.console._cli import cli
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument
from tollspan.ledger import to_nano

WHO = {"profile": "key-7", "user": "ada", "team": "core", "session": "s1", "run": "r1", "tags": {"feature": "search"}}
SCOPES = [None, "profile", "user", "team", "session", "run", "model", "provider", "operation", "tag:feature"]


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name.replace(" ", "-"))
def test_21_a_budget_counts_one_surface_and_forgets_the_others(answering, book, surface):
    """Spend read from one kind of answer leaves the others unlimited: here every surface counts, in every scope."""
    provider = answering(output_tokens=40)
    with make_client(provider, surface.sdk) as client, scope(**WHO):
        with ExitStack() as entered:
            for each in SCOPES:
                entered.enter_context(budget("1 USD / total", name=f"by {each}", each=each))
            drive(surface.run(client), asynchronous=False)
        for each in SCOPES:
            (balance,) = book.balances(f"by {each}", 0).values()
            assert (balance.spent, balance.held) == (to_nano(book.commit.cost_actual_usd), 0)
            with budget("0.000001 USD", name=f"spent by {each}", each=each), pytest.raises(BudgetExceeded):
                drive(surface.run(client), asynchronous=False)
    assert len(provider.requests) == 1
    assert book.commit.cost_actual_usd > 0


ROUTED = {"base_url": "https://openrouter.ai/api/v1", "api_key": "sk-x"}
RESPONSE = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "new/model", "output": []}


def _doctor():
    """What `tollspan doctor` says, and its exit status."""
    pipeline().ledger.flush(20)
    done = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    findings = json.loads(done.output)["findings"]
    return [finding["text"] for finding in findings if finding["grade"] == "problem"]


@pytest.mark.parametrize("flavour", ["chat", "responses"])
@pytest.mark.parametrize("stated", [0.25, None])
def test_22_a_cost_stated_on_one_surface_is_0_on_the_other(book, flavour, stated):
    """Where a stated cost is read from one kind of answer, the others cost 0: here it is read in all, or unknown."""
    cost = {} if stated is None else {"cost": stated}
    if flavour == "chat":
        usage = {"prompt_tokens": 200_000, "completion_tokens": 50, "total_tokens": 200_050}
        answer = chat_answer(usage | cost, model="new/model")
    else:
        answer = RESPONSE | {"usage": {"input_tokens": 200_000, "output_tokens": 50, "total_tokens": 200_050} | cost}
    with mock_client(lambda _: answer, **ROUTED) as client:
        create(client, flavour, model="new/model")
    assert book.commit.usage == {"tokens_in": 200_000, "tokens_out": 50}
    assert book.commit.cost_actual_usd == (None if stated is None else Decimal(str(stated)))
    problems = _doctor()
    assert bool(problems) == (stated is None)
    assert stated is not None or "1 call of openrouter/new/model" in problems[0]


def _raw(provider, client):
    library = library_of("openai")
    with library.Client() as other:
        other.post(f"{provider.openai_url}/chat/completions", json=arguments("chat"))


BYPASSES = {
    "raw HTTP": _raw,
    "the SDK's own post": lambda _, client: client.post("/chat/completions", cast_to=object, body=arguments("chat")),
    "with_raw_response": lambda _, client: client.chat.completions.with_raw_response.create(**arguments("chat")),
    "with_options": lambda _, client: client.with_options(timeout=9).chat.completions.create(**arguments("chat")),
    "copy": lambda _, client: client.copy(timeout=9).responses.create(**arguments("responses")),
    "beta": lambda _, client: client.beta.chat.completions.parse(**arguments("chat")),
    "another base_url": lambda provider, client: client.with_options(
        base_url=f"{provider.url}/a/gateway/v1"
    ).chat.completions.create(**arguments("chat")),
}


@pytest.mark.parametrize("way", BYPASSES.values(), ids=BYPASSES)
def test_23_a_second_way_in_is_not_counted(answering, book, way):
    """Pass-through routes know nothing of budgets: here no way around a call is free, or open when it is over."""
    provider = answering(output_tokens=40)
    with make_client(provider, "openai") as client:
        with budget("1 USD", name="b") as handle:
            way(provider, client)
            assert handle.spent == book.commit.cost_actual_usd > 0
        with budget("0.000001 USD", name="spent"), pytest.raises(BudgetExceeded):
            way(provider, client)
    assert len(provider.requests) == 1
    book.assert_settled()


def test_32_an_agents_span_repeats_the_calls_below_it(provider, book):
    """Sums on the spans around calls, and a second instrumentation, double the cost: here a call is one commit."""
    tracing = TracerProvider(shutdown_on_exit=False)
    instrument(tracing)
    pipeline().attach(tracing)
    agents, others = tracing.get_tracer("an agent framework"), tracing.get_tracer("another instrumentation")
    said = {"gen_ai.request.model": MODELS["openai"], "gen_ai.provider.name": "openai"}
    total = {"gen_ai.usage.input_tokens": 2 * 7, "gen_ai.usage.output_tokens": 2 * 90}
    with agents.start_as_current_span("invoke_agent") as agent, make_client(provider, "openai") as client:
        for _ in range(2):
            with others.start_as_current_span("chat") as span:
                answer = create(client, "chat")
                span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.response.id": answer.id, **said})
                span.set_attribute("gen_ai.usage.input_tokens", answer.usage.prompt_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", answer.usage.completion_tokens)
        agent.set_attributes({"gen_ai.operation.name": "invoke_agent", **said, **total})
    rate_in, rate_out = RATES["openai"]
    nano = sum(rate_in * bill.input_tokens + rate_out * bill.output_tokens for bill in provider.billed)
    assert [event.category for event in book.of("commit")] == [None, None]
    assert sum(event.cost_actual_usd for event in book.of("commit")) * 10**9 == nano


def test_33_only_the_last_of_many_attempts_is_recorded(answering, book):
    """Three retries of the SDK times three of the application, and one is seen: here each is held, sent and counted."""
    provider = answering(lambda _: Answer(fault="status=502;body=html;retry-after=0.01"))
    with make_client(provider, "openai", max_retries=2) as client, budget("5 USD", name="b") as handle:
        for _ in range(3):
            with suppress(Exception):
                ask(client, max_tokens=100)
        assert handle.spent == book.spent
    assert len(provider.requests) == 9
    assert len(book.of("precheck_hold")) == 9
    assert [event.event_type for event in book.of("retry", "commit")] == ["retry", "retry", "commit"] * 3
    assert [event.attempts for event in book.of("commit")] == [3, 3, 3]
    assert all(event.spend_usd == hold.cost_est_usd for event, hold in _ends_and_holds(book))
    book.assert_settled()


def _ends_and_holds(book):
    return zip(book.of("retry", "commit"), book.of("precheck_hold"), strict=True)


# ---- 34: what a budget must not do


def test_34_a_limit_is_met_after_the_answer_was_paid_for(book):
    """The answer is paid for, and an exception is raised in its place: here it is handed over, and the next refused."""
    usage = {"prompt_tokens": 10, "completion_tokens": 50_000, "total_tokens": 50_010}
    with mock_client(lambda _: chat_answer(usage)) as client, budget("0.01 USD", name="b") as handle:
        assert ask(client, max_tokens=10).choices[0].message.content == "hi"
        assert handle.spent == Decimal("0.500025")
        with pytest.raises(BudgetExhausted):
            ask(client, max_tokens=10)
    book.assert_settled()


@pytest.mark.parametrize("asked", [None, True, False])
def test_34_a_stream_whose_usage_nobody_asked_for_costs_nothing(provider, client, book, asked):
    """Streams tell no usage unless they are asked to: here they are asked, in secret, unless the caller has a say."""
    options = {} if asked is None else {"stream_options": {"include_usage": asked}}
    with budget("1 USD", name="b") as handle:
        chunks = list(ask(client, max_tokens=100, stream=True, **options))
        assert handle.spent >= provider.billed_usd() > 0
    assert bool(provider.requests[0].body["stream_options"]["include_usage"]) == (asked is not False)
    assert any(chunk.usage for chunk in chunks) == (asked is True)
    assert book.commit.estimated == (asked is False)


def test_34_an_endpoint_that_rejects_what_was_added_cannot_be_used(client, provider, configure, book):
    """Some servers refuse `stream_options`: here a setting leaves requests alone, and streams cost an estimate."""
    configure(include_usage=False)
    list(ask(client, max_tokens=100, stream=True))
    assert "stream_options" not in provider.requests[0].body
    assert (book.commit.estimated, book.spent > 0) == (True, True)


def test_34_a_new_model_costs_nothing(client, provider, book):
    """A model that no list has is free and unlimited: here strict refuses it, elsewhere its cost is unknown."""
    with budget("5 USD", name="b"), pytest.raises(UnpricedModel):
        ask(client, model="gpt-unheard-of", max_tokens=5)
    assert provider.requests == []
    ask(client, model="gpt-unheard-of", max_tokens=5)
    assert (book.commit.cost_actual_usd, book.commit.cost_source) == (None, "unpriced")
    assert "gpt-unheard-of" in _doctor()[0]


def test_34_tokens_and_money_are_counted_as_one_for_each_request(client, provider):
    """A cost taken for a number of requests makes every call 1: here three units are counted, each as what it is."""
    with ExitStack() as entered:
        usd, tokens, requests = (
            entered.enter_context(budget(f"9000 {unit}", name=unit)) for unit in ("USD", "tokens", "requests")
        )
        for _ in range(3):
            ask(client, max_tokens=100)
        assert (usd.spent, requests.spent) == (provider.billed_usd(), 3)
        assert tokens.spent == sum(bill.input_tokens + bill.output_tokens for bill in provider.billed)


def test_34_an_estimate_of_0_lets_everything_through(client, provider, book):
    """A request without a maximum is estimated at 0 and never refused: here it is held at what its model can give."""
    with budget("0.1 USD", name="b", output_bound="max"), pytest.raises(BudgetExhausted):
        ask(client)
    assert provider.requests == []
    with budget("1 USD", name="b", output_bound="max"):
        ask(client)
    (hold,) = book.of("precheck_hold")
    assert hold.cost_est_usd >= Decimal("0.16384")


@pytest.mark.parametrize("window", ["day", "rolling day"])
def test_34_a_budget_refills_while_it_is_spent(client, provider, monkeypatch, window):
    """A budget that leaks back over time is never reached: here spend adds up until its window is over."""
    start = 1_777_852_800.0  # 2026-05-04 00:00 UTC
    for hour in range(24):
        monkeypatch.setattr("time.time", lambda hour=hour: start + 3_600 * hour)
        with budget(f"0.05 USD / {window}", name="b", timezone="UTC"), suppress(BudgetExhausted):
            ask(client, max_tokens=1_000)
    assert len(provider.requests) == 4
    assert provider.billed_usd() <= Decimal("0.05")
