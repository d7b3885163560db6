"""Calls that their client gives up on, while the provider makes the answer and bills it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress

import anthropic
import openai
import pytest

from tollspan.budget import BudgetExceeded, budget
from tollspan.console._provider import Answer

TIMEOUTS = 30
ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200}


def give_up(client):
    """One call whose time-out is shorter than the answer takes."""
    call = client.messages if isinstance(client, anthropic.Anthropic) else client.chat.completions
    model = "claude-opus-4-5" if isinstance(client, anthropic.Anthropic) else "gpt-4o"
    with suppress(openai.APITimeoutError, anthropic.APITimeoutError):
        call.create(model=model, **ASKED)
        pytest.fail("it was to time out")


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("mode", ["strict", "best_effort", None])
@pytest.mark.parametrize("sdk", [openai.OpenAI, anthropic.Anthropic])
def test_thirty_timeouts_are_recorded_at_no_less_than_they_were_billed(answering, book, sdk, mode):
    """A time-out is no refund: what the provider billed for answers that nobody read stands in ledger and budget."""
    provider = answering(lambda _: Answer(output_tokens=200, fault="hang=5"))
    url = provider.openai_url if sdk is openai.OpenAI else provider.anthropic_url
    with sdk(base_url=url, api_key="local", max_retries=0, timeout=0.3) as client, ThreadPoolExecutor(10) as pool:

        def one(_number):
            with budget("5 USD / total", name="b", mode=mode) if mode else nullcontext():
                give_up(client)

        list(pool.map(one, range(TIMEOUTS)))
    book.flush()
    commits = [event for event in book.events if event.event_type == "commit"]
    assert len(commits) == len(provider.billed) == TIMEOUTS
    assert all(event.estimated for event in commits)
    assert sum(event.spend_usd for event in commits) >= provider.billed_usd() > 0
    if mode:
        assert book.balance(("b", "", 0)).spent >= provider.billed_usd() * 10**9
        assert book.balance(("b", "", 0)).held == 0


def test_timeouts_fill_a_budget_and_then_it_refuses(answering, instrumented, book):
    """With a strict budget calls cannot time out for ever: the provider has billed no more than the limit."""
    provider = answering(lambda _: Answer(output_tokens=200, fault="hang=5"))
    refused = 0
    with (
        openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=0, timeout=0.2) as client,
        budget("0.01 USD", name="b"),
    ):
        for _ in range(TIMEOUTS):
            try:
                give_up(client)
            except BudgetExceeded:
                refused += 1
    assert refused == TIMEOUTS - len(provider.billed) > 0
    assert 0 < provider.billed_usd() * 10**9 <= 10**7
    assert book.verify() == []
