"""Requests to a model's endpoint that no row of the table covers are recorded all the same, and counted."""

import json

import pytest
from sdk_calls import ASK, KINDS, MODELS, RATES, arguments, drive, library_of, make_client, resolved

from tollspan.budget import BudgetExceeded, UnpricedModel, budget
from tollspan.instrumentation import INSTALLATION, uncovered

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
SDKS = {"chat": "openai", "responses": "openai", "messages": "anthropic"}
STREAMED = {"chat": {"stream_options": {"include_usage": True}}}


def post(provider, path, body, *, asynchronous, streams=False, **options):
    """Post without any SDK; gives what came, or the exception."""
    library = library_of("openai")
    options = {"headers": {"content-type": "application/json"}, **options}

    async def work():
        client = library.AsyncClient(timeout=20) if asynchronous else library.Client(timeout=20)
        try:
            request = client.build_request("POST", provider.url + path, content=body, **options)
            response = await resolved(client.send(request, stream=streams))
            return await resolved(response.aread() if asynchronous else response.read())
        except Exception as error:  # noqa: BLE001 - which one it is, the tests look at
            return error
        finally:
            await resolved(client.aclose() if asynchronous else client.close())

    return drive(work(), asynchronous=asynchronous)


@KINDS
@pytest.mark.parametrize("how", ["json", "stream", "stream read at once"])
@pytest.mark.parametrize("flavour", PATHS)
def test_a_raw_request_is_recorded(provider, seen, *, flavour, how, asynchronous):
    """A request by the HTTP library alone is recorded with its usage and cost, on a span, and counted by its path."""
    body = arguments(flavour) | ({"stream": True, **STREAMED.get(flavour, {})} if how != "json" else {})
    came = post(provider, PATHS[flavour], json.dumps(body), asynchronous=asynchronous, streams=how == "stream")
    assert b"usage" in came
    bill, (rate_in, rate_out) = provider.billed[-1], RATES[SDKS[flavour]]
    assert seen.end.usage == {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}
    assert seen.end.cost_actual_usd * 10**9 == rate_in * bill.input_tokens + rate_out * bill.output_tokens
    assert (seen.end.status, seen.end.attempts, seen.end.provider) == ("ok", 1, SDKS[flavour])
    assert ("ttft_ms" in seen.end.timing) == (how != "json")
    assert seen.spans[0].attributes["tollspan.uncovered"] is True
    assert dict(uncovered) == {PATHS[flavour]: 1}


@KINDS
def test_a_raw_request_stays_as_it_is(provider, seen, *, asynchronous):
    """The body of a raw request is the user's: neither usage is asked for, nor is it clamped."""
    body = {"model": MODELS["openai"], "messages": ASK, "stream": True}
    with budget("1 USD", name="b"):
        came = post(provider, PATHS["chat"], json.dumps(body), asynchronous=asynchronous, streams=True)
    assert b"[DONE]" in came
    assert b"usage" not in came
    assert provider.requests[-1].body == body
    assert (seen.end.estimated, seen.open_holds) == (True, 0)


@KINDS
@pytest.mark.parametrize(
    ("limit", "model", "refusal"),
    [("0.000001 USD", MODELS["openai"], BudgetExceeded), ("5 USD", "nobody-knows-its-price", UnpricedModel)],
)
def test_a_strict_budget_refuses_it_before_it_is_sent(provider, seen, *, limit, model, refusal, asynchronous):
    """What a strict budget has no room or no price for is not sent, without an SDK around it too."""
    sent = len(provider.requests)
    with budget(limit, name="b") as entry:
        error = post(
            provider, PATHS["chat"], json.dumps(arguments("chat") | {"model": model}), asynchronous=asynchronous
        )
    assert isinstance(error, refusal), error
    assert len(provider.requests) == sent
    assert [event.event_type for event in seen.events] == ["cancel"]
    assert (seen.end.reason, seen.end.attempts) == ("refused by a budget", 0)
    assert (entry.spent, entry.held, seen.open_holds) == (0, 0, 0)


@KINDS
@pytest.mark.parametrize(
    ("path", "content", "mime"),
    [
        ("/v1/files", b"0" * 1000, "application/octet-stream"),
        ("/v1/messages/batches", b'{"model": "m"}', "application/json"),
        ("/v1/messages/count_tokens", b'{"model": "m"}', "application/json"),
        ("/v1/responses/resp_1/cancel", b"{}", "application/json"),
        ("/surveys/7/responses", b'{"answers": {"favourite": "tea"}}', "application/json"),
        ("/oauth2/token", b"grant_type=client_credentials", "application/x-www-form-urlencoded"),
    ],
)
def test_other_requests_pass(provider, seen, *, path, content, mime, asynchronous):
    """Other paths, and bodies that ask no model, pass untouched and unrecorded, under a strict budget too."""
    with budget("0.000001 USD", name="b"):
        came = post(provider, path, content, asynchronous=asynchronous, headers={"content-type": mime})
    assert not isinstance(came, Exception)
    assert not seen.events
    assert not seen.spans
    assert not uncovered


@KINDS
def test_other_methods_pass(provider, seen, *, asynchronous):
    """A GET is no call, whatever its path."""
    library = library_of("openai")

    async def work():
        client = library.AsyncClient() if asynchronous else library.Client()
        await resolved(client.get(f"{provider.url}/v1/chat/completions"))
        await resolved(client.get(f"{provider.url}/v1/models"))
        await resolved(client.aclose() if asynchronous else client.close())

    drive(work(), asynchronous=asynchronous)
    assert not seen.events
    assert not uncovered


@KINDS
def test_a_token_refresh_inside_a_call_is_no_attempt(provider, seen, *, asynchronous):
    """What the SDK's client sends elsewhere while it makes a call, as for a token, does not count as an attempt."""
    library = library_of("openai")

    class Refreshing(library.Auth):
        def auth_flow(self, request):
            yield library.Request("POST", f"{provider.url}/oauth2/token", content=b"{}")
            with library.Client() as other:
                other.post(f"{provider.url}/oauth2/token", content=b"{}")
            yield request

    async def work():
        maker = library.AsyncClient if asynchronous else library.Client
        client = make_client(provider, "openai", asynchronous=asynchronous, http_client=maker(auth=Refreshing()))
        await resolved(client.chat.completions.create(**arguments("chat")))
        await resolved(client.close())

    with budget("5 USD", name="b"):
        drive(work(), asynchronous=asynchronous)
    assert [event.event_type for event in seen.events] == ["precheck_hold", "commit"]
    assert seen.end.attempts == 1
    assert not uncovered


def test_a_method_without_a_row_is_found(provider, seen):
    """A method of an SDK that the table does not have is recorded once, as uncovered."""
    client = make_client(provider, "openai")
    with client:
        INSTALLATION.remove()
        raw = client.chat.completions.with_raw_response  # remembers the method as it is now
        raw.create  # noqa: B018 - so that it does
        INSTALLATION.install()
        assert raw.create(**arguments("chat")).parse().choices
    assert [event.event_type for event in seen.events] == ["commit"]
    assert dict(uncovered) == {PATHS["chat"]: 1}
