"""With `refuse_uncovered`, a strict budget lets nothing pass that comes by no covered method."""

import pytest
from sdk_calls import KINDS, arguments, create, drive, library_of, make_client, resolved

from tollspan.budget import CallRefused, UncoveredCall, budget


def post(provider, *, asynchronous):
    """Ask a model without any SDK; gives the HTTP status, or the exception."""
    library = library_of("openai")

    async def work():
        client = library.AsyncClient() if asynchronous else library.Client()
        try:
            answer = await resolved(client.post(f"{provider.url}/v1/chat/completions", json=arguments("chat")))
        except CallRefused as refusal:
            return refusal
        finally:
            await resolved(client.aclose() if asynchronous else client.close())
        return answer.status_code

    return drive(work(), asynchronous=asynchronous)


@pytest.fixture
def refusing(monkeypatch, instrumented):
    """Instruments for the whole test, with the setting, and with money that a call without a bound may hold."""
    monkeypatch.setenv("TOLLSPAN_REFUSE_UNCOVERED", "true")
    monkeypatch.setenv("TOLLSPAN_HOLD_USD", "0.01")
    with instrumented() as seen:
        yield seen


@KINDS
@pytest.mark.parametrize("limit", ["5 USD", "9 requests"])
def test_a_raw_request_is_refused_where_a_strict_budget_matches(provider, refusing, *, limit, asynchronous):
    """It is refused before it is sent, costs nothing, and the text says what to do; money on hold is no way around."""
    sent = len(provider.requests)
    with budget(limit, name="b") as entry:
        refusal = post(provider, asynchronous=asynchronous)
    assert isinstance(refusal, UncoveredCall)
    assert "TOLLSPAN_REFUSE_UNCOVERED" in str(refusal)
    assert len(provider.requests) == sent
    end = refusing.end
    assert (end.event_type, end.attempts, end.category) == ("cancel", 0, "uncovered")
    assert (entry.spent, entry.held, refusing.open_holds) == (0, 0, 0)


@KINDS
@pytest.mark.parametrize("mode", ["strict", "best_effort", None])
def test_other_calls_pass(provider, refusing, *, mode, asynchronous):
    """Covered methods pass, and raw requests do where no budget is strict; each is recorded as ever."""

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous)
        await resolved(create(client, "chat"))
        await resolved(client.close())

    if mode is None:
        assert post(provider, asynchronous=asynchronous) == 200
    else:
        with budget("5 USD", name="b", mode=mode):
            if mode == "strict":
                drive(work(), asynchronous=asynchronous)
            else:
                assert post(provider, asynchronous=asynchronous) == 200
    (event,) = refusing.of("commit")
    assert event.category == (None if mode == "strict" else "uncovered")


@KINDS
def test_without_the_setting_a_raw_request_is_held_like_any_other(provider, seen, *, asynchronous):
    """By default a strict budget holds a raw request's cost, and lets it pass."""
    with budget("5 USD", name="b"):
        assert post(provider, asynchronous=asynchronous) == 200
    assert [event.event_type for event in seen.events] == ["precheck_hold", "commit"]
