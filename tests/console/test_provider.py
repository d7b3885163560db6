"""The local provider, driven by the vendors' own SDKs as a user would drive it."""

import datetime as dt
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Annotated, Literal, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.console import _provider_wire as wire
from tollspan.console._provider import Answer, LocalProvider

openai = pytest.importorskip("openai", reason="the OpenAI SDK drives these tests")
anthropic = pytest.importorskip("anthropic", reason="the Anthropic SDK drives these tests")
httpx2 = pytest.importorskip("httpx2", reason="the SDKs raise its exceptions")
pydantic = pytest.importorskip("pydantic", reason="both SDKs take its models as schemas")

ASK = [{"role": "user", "content": "x" * 100}]
ASK_TOKENS = 25
FLAVOURS = ["chat", "responses", "messages"]


class Leaf(pydantic.BaseModel):
    name: str
    size: int
    kind: Literal["a", "b"]


class Tree(pydantic.BaseModel):
    leaves: list[Leaf]
    first: Leaf
    parent: "Tree | None"


@pytest.fixture
def provider():
    with LocalProvider(price=(Decimal("2.5"), Decimal(10))) as running:
        yield running


def clients(provider, *, asynchronous=False, **options):
    options = {"api_key": "sk-never-kept", "max_retries": 0, **options}
    makers = (openai.AsyncOpenAI, anthropic.AsyncAnthropic) if asynchronous else (openai.OpenAI, anthropic.Anthropic)
    return makers[0](base_url=provider.openai_url, **options), makers[1](base_url=provider.anthropic_url, **options)


def call(provider, flavour, plan=None, *, maximum=1000, key="", asynchronous=False, **options):
    """Make one call of the flavour: the answer (or stream, or awaitable), whatever the SDK raises."""
    names = ("timeout", "max_retries")
    ours, theirs = clients(provider, asynchronous=asynchronous, **{k: options.pop(k) for k in names if k in options})
    options["extra_headers"] = {"x-local-provider": plan, "x-local-provider-key": key} if plan else {}
    if flavour == "chat":
        return ours.chat.completions.create(model="m", messages=ASK, max_completion_tokens=maximum, **options)
    if flavour == "responses":
        return ours.responses.create(model="m", input=ASK, max_output_tokens=maximum, **options)
    return theirs.messages.create(model="m", messages=ASK, max_tokens=maximum, **options)


def text_of(answer):
    if hasattr(answer, "choices"):
        return answer.choices[0].message.content
    return answer.output_text if hasattr(answer, "output_text") else answer.content[0].text


def end_of(answer):
    if hasattr(answer, "choices"):
        return answer.choices[0].finish_reason
    return answer.status if hasattr(answer, "status") else answer.stop_reason


def counts_of(answer):
    usage = answer.usage
    if hasattr(usage, "prompt_tokens"):
        return usage.prompt_tokens, usage.completion_tokens
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_plain_answer(provider, flavour):
    """A plain call gets the model it named, counted usage, filler of just that length, and one bill."""
    answer = call(provider, flavour)
    assert (answer.model, counts_of(answer)) == ("m", (ASK_TOKENS, 40))
    assert wire.count_tokens(text_of(answer)) == 40
    assert end_of(answer) in {"stop", "completed", "end_turn"}
    assert "local" in answer.id
    (bill,) = provider.billed
    assert (bill.model, bill.input_tokens, bill.output_tokens) == ("m", ASK_TOKENS, 40)
    assert bill.path.startswith("/v1/")
    assert provider.billed_usd() == bill.cost_usd == Decimal("0.0004625")


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_async_answer(provider, flavour):
    """The SDKs' asynchronous clients get the same answer."""
    answer = await call(provider, flavour, asynchronous=True)
    assert counts_of(answer) == (ASK_TOKENS, 40)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_maximum_is_honoured(provider, flavour):
    """An answer never exceeds the request's maximum, says that it was cut, and is billed as cut."""
    answer = call(provider, flavour, maximum=7)
    assert end_of(answer) in {"length", "incomplete", "max_tokens"}
    assert counts_of(answer)[1] == wire.count_tokens(text_of(answer)) == provider.billed[0].output_tokens == 7


def test_choices_are_billed_each(provider):
    """With n=2 there are two choices, whole or streamed, and the usage is their sum."""
    answer = call(provider, "chat", n=2, maximum=10)
    assert len(answer.choices) == 2
    assert answer.usage.completion_tokens == 20
    chunks = list(call(provider, "chat", n=2, stream=True))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    assert provider.billed[-1].output_tokens == 80


@pytest.mark.parametrize("include_usage", [True, False])
def test_chat_stream(provider, include_usage):
    """A chat stream gives role, text, and finish in chunks; usage comes only where it was asked for."""
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(call(provider, "chat", stream=True, **options))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert deltas[0].delta.role == "assistant"
    assert wire.count_tokens("".join(choice.delta.content or "" for choice in deltas)) == 40
    assert [choice.finish_reason for choice in deltas] == [None] * 9 + ["stop"]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.total_tokens for usage in usages] == ([65] if include_usage else [])
    assert len({chunk.id for chunk in chunks}) == 1


def test_responses_stream(provider):
    """A responses stream is numbered, and its deltas make up the text of the completed response."""
    events = list(call(provider, "responses", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text
    assert counts_of(events[-1].response) == (ASK_TOKENS, 40)
    assert list(call(provider, "responses", stream=True, maximum=3))[-1].type == "response.incomplete"


def test_messages_stream(provider):
    """A messages stream begins with a usage of one token and ends with the cumulative one."""
    events = list(call(provider, "messages", stream=True))
    kinds = [event.type for event in events]
    assert kinds == ["message_start", "content_block_start"] + ["content_block_delta"] * 8 + [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.usage.output_tokens == 1
    assert (events[-2].usage.input_tokens, events[-2].usage.output_tokens) == (ASK_TOKENS, 40)


async def test_async_streams(provider):
    """Each flavour streams to the asynchronous clients too."""
    for flavour in FLAVOURS:
        stream = await call(provider, flavour, asynchronous=True, stream=True)
        assert len([event async for event in stream]) >= 10


def test_stream_helpers(provider):
    """The SDKs' own stream helpers accumulate the same answer as a plain call."""
    ours, theirs = clients(provider)
    with ours.chat.completions.stream(model="m", messages=ASK) as stream:
        assert counts_text(stream.get_final_completion()) == 40
    with ours.responses.stream(model="m", input=ASK) as stream:
        assert counts_text(stream.get_final_response()) == 40
    with theirs.messages.stream(model="m", messages=ASK, max_tokens=50) as stream:
        assert counts_text(stream.get_final_message()) == 40


def counts_text(answer):
    return wire.count_tokens(text_of(answer))


def test_parse(provider):
    """Structured output fits the schema that the SDKs' parse methods send, nested and recursive ones too."""
    ours, theirs = clients(provider)
    chat = ours.chat.completions.parse(model="m", messages=ASK, response_format=Tree)
    response = ours.responses.parse(model="m", input=ASK, text_format=Tree)
    message = theirs.messages.parse(model="m", messages=ASK, max_tokens=50, output_format=Tree)
    for parsed in (chat.choices[0].message.parsed, response.output_parsed, message.parsed_output):
        assert isinstance(parsed, Tree)
        assert parsed.first.kind == "a"
    assert {bill.output_tokens for bill in provider.billed} == {40}


def test_json_mode_and_cut_structure(provider):
    """JSON mode answers an object; a structure that the maximum cuts is no whole JSON."""
    assert json.loads(text_of(call(provider, "chat", response_format={"type": "json_object"}))) == {}
    ours, _ = clients(provider)
    with pytest.raises(openai.LengthFinishReasonError):
        ours.chat.completions.parse(model="m", messages=ASK, response_format=Tree, max_completion_tokens=5)


TOOL = {"type": "object", "properties": {"city": {"type": "string", "minLength": 2}}, "required": ["city"]}


@pytest.mark.parametrize("stream", [False, True])
def test_demanded_tool_call(provider, stream):
    """A demanded tool is called with arguments that fit its schema, in each flavour, whole and streamed."""
    ours, theirs = clients(provider)
    function = {"name": "weather", "parameters": TOOL}
    chat = {"model": "m", "messages": ASK, "tools": [{"type": "function", "function": function}]}
    response = {"model": "m", "input": ASK, "tools": [{"type": "function", **function}], "tool_choice": "required"}
    tools = [{"name": "weather", "input_schema": TOOL}]
    message = {"model": "m", "messages": ASK, "max_tokens": 90, "tools": tools, "tool_choice": {"type": "any"}}
    if stream:
        with ours.chat.completions.stream(**chat, tool_choice="required") as events:
            call_made = events.get_final_completion().choices[0].message.tool_calls[0]
        with ours.responses.stream(**response) as events:
            item = events.get_final_response().output[0]
        with theirs.messages.stream(**message) as events:
            block = events.get_final_message().content[0]
    else:
        call_made = ours.chat.completions.create(**chat, tool_choice="required").choices[0].message.tool_calls[0]
        item = ours.responses.create(**response).output[0]
        block = theirs.messages.create(**message).content[0]
    assert {call_made.function.name, item.name, block.name} == {"weather"}
    assert call_made.function.arguments == item.arguments == '{"city":"xx"}'
    assert block.input == {"city": "xx"}


def test_parts_of_usage():
    """Cached, cache-written and reasoning tokens are reported as parts, in each vendor's own arithmetic."""
    answer = Answer(input_tokens=100, output_tokens=50, cached_tokens=40, cache_write_tokens=20, reasoning_tokens=30)
    with LocalProvider(answer=lambda _: answer) as provider:
        chat, response, message = (call(provider, flavour).usage for flavour in FLAVOURS)
    assert (chat.prompt_tokens, chat.completion_tokens) == (response.input_tokens, response.output_tokens) == (100, 50)
    assert chat.prompt_tokens_details.cached_tokens == response.input_tokens_details.cached_tokens == 40
    assert chat.completion_tokens_details.reasoning_tokens == response.output_tokens_details.reasoning_tokens == 30
    assert (message.input_tokens, message.output_tokens) == (40, 50)
    assert (message.cache_read_input_tokens, message.cache_creation_input_tokens) == (40, 20)
    assert {(bill.input_tokens, bill.output_tokens, bill.cost_usd) for bill in provider.billed} == {(100, 50, None)}
    with pytest.raises(RuntimeError, match="no price"):
        provider.billed_usd()


def test_answer_sees_the_request():
    """The callable decides text and fault per request, and the given text is what is counted."""

    def answer(request):
        return Answer(text="a" * 12) if request.flavour == "chat" else Answer(fault="status=404")

    with LocalProvider(answer=answer) as provider:
        assert counts_of(chat := call(provider, "chat"))[1] == 3
        assert text_of(chat) == "a" * 12
        with pytest.raises(anthropic.NotFoundError):
            call(provider, "messages")


def broken(provider, flavour, plan, **options):
    """Make a call that fails and read what comes of it: the stream's events and the exception."""
    events = []

    def read():
        answer = call(provider, flavour, plan, **options)
        events.extend(answer if options.get("stream") else ())

    with pytest.raises(Exception) as info:  # noqa: PT011 - which exception it is, is for the caller to judge
        read()
    return events, info.value


def raised(provider, flavour, plan, **options):
    return broken(provider, flavour, plan, **options)[1]


@pytest.mark.parametrize(
    ("plan", "ours", "theirs", "billed"),
    [
        ("status=400", openai.BadRequestError, anthropic.BadRequestError, 0),
        ("status=401", openai.AuthenticationError, anthropic.AuthenticationError, 0),
        ("status=429;retry-after=7;x-should-retry=false", openai.RateLimitError, anthropic.RateLimitError, 0),
        ("status=500", openai.InternalServerError, anthropic.InternalServerError, 0),
        ("status=502;body=html", openai.InternalServerError, anthropic.InternalServerError, 0),
        ("status=529", openai.InternalServerError, anthropic.InternalServerError, 0),
        ("drop", openai.APIConnectionError, anthropic.APIConnectionError, 1),
        ("reset", openai.APIConnectionError, anthropic.APIConnectionError, 1),
        ("cut=1", openai.APIConnectionError, anthropic.APIConnectionError, 1),
        ("hang=5", openai.APITimeoutError, anthropic.APITimeoutError, 1),
        ("not-json", json.JSONDecodeError, json.JSONDecodeError, 1),
    ],
)
def test_faults(provider, plan, ours, theirs, billed):
    """Each fault reaches the caller as the SDK's documented exception, and only done work is billed."""
    for flavour, expected in zip(FLAVOURS, (ours, ours, theirs), strict=True):
        error = raised(provider, flavour, plan, timeout=0.3)
        assert isinstance(error, expected), flavour
        if "retry-after" in plan:
            names = ("retry-after", "x-should-retry")
            assert [error.response.headers[name] for name in names] == ["7", "false"]
    assert len(provider.billed) == 3 * billed
    assert len(provider.requests) == 3


def test_drop_and_reset_differ_on_the_wire(provider):
    """A drop is an orderly close and a reset is a RST, as the transport's own exceptions tell."""
    causes = [type(raised(provider, "chat", plan).__cause__).__name__ for plan in ("drop", "reset")]
    assert causes == ["RemoteProtocolError", "ReadError"]
    assert [request.first_byte_at for request in provider.requests] == [None, None]


@pytest.mark.parametrize(
    ("plan", "flavour", "expected"),
    [
        ("cut=3", "chat", openai.APIConnectionError),
        ("cut=3", "responses", openai.APIConnectionError),
        ("cut=3", "messages", httpx2.RemoteProtocolError),
        ("error-event", "chat", openai.APIError),
        ("error-event", "responses", openai.APIError),
        ("error-event", "messages", anthropic.APIStatusError),
        ("not-json", "chat", json.JSONDecodeError),
        ("not-json", "responses", json.JSONDecodeError),
        ("not-json", "messages", json.JSONDecodeError),
    ],
)
def test_stream_faults(provider, plan, flavour, expected):
    """A stream that fails under way raises what the SDK documents, and is billed."""
    assert isinstance(raised(provider, flavour, plan, stream=True), expected)
    assert len(provider.billed) == 1


def test_cut_after_k_chunks(provider):
    """`cut=K` lets exactly K chunks through before the connection ends."""
    assert [len(broken(provider, "chat", f"cut={k}", stream=True)[0]) for k in (0, 4)] == [0, 4]


def test_slow_and_delay():
    """`slow` waits between chunks, `delay_s` waits before the answer."""
    with LocalProvider(chunks=2, delay_s=0.1) as provider:
        started = time.monotonic()
        assert len(list(call(provider, "chat", "slow=0.1", stream=True))) == 4
        assert time.monotonic() - started >= 0.4
        call(provider, "chat", "slow=0.05")
        assert provider.requests[0].first_byte_at - provider.requests[0].arrived_at >= 0.1


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_sequence_over_the_attempts_of_a_call(provider, flavour):
    """A plan gives each attempt of a logical call its step, and its key starts it anew."""
    for key in ("a", "b"):
        plan = "status=500;retry-after=0.01,status=429;retry-after=0.01,ok"
        assert counts_of(call(provider, flavour, plan, key=key, max_retries=2)) == (ASK_TOKENS, 40)
    assert len(provider.requests) == 6
    assert len(provider.billed) == 2


def test_last_step_repeats(provider):
    """A plan of one step applies to every attempt."""
    assert isinstance(raised(provider, "chat", "status=503;retry-after=0.01", max_retries=2), openai.APIStatusError)
    assert len(provider.requests) == 3


def test_malformed_plans(provider):
    """A plan that is none is refused with the list of the known steps, from the header and in code."""
    assert "known are cut, drop" in str(raised(provider, "chat", "explode"))
    for plan in ("status", "ok=1", "hang=soon", ""):
        with pytest.raises(ValueError, match=r"step|float"):
            Answer(fault=plan)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b"[]", 400),
        ("/v1/chat/completions", b'{"model": "m", "max_tokens": 0}', 400),
        ("/v1/messages", b'{"model": "m"}', 400),
        ("/v1/nothing", b"{}", 404),
        ("/v1/chat/completions", b'{"model": "m", "text": 3}', 500),
    ],
)
def test_refused_requests(provider, path, body, status):
    """What a provider would not take gets an error status and no bill."""
    answer = httpx2.post(provider.url + path, content=body)
    assert (answer.status_code, "error" in answer.json()) == (status, True)
    assert provider.billed == []


def test_callable_that_raises():
    """A failing `answer` callable becomes a 500 that names the exception's type."""

    def broken(_request):
        raise LookupError("secret")

    with LocalProvider(answer=broken) as provider:
        error = raised(provider, "chat", None)
    assert isinstance(error, openai.InternalServerError)
    assert "LookupError" in str(error)
    assert "secret" not in str(error)


def test_keys_are_not_kept(provider):
    """The books hold headers and bodies of requests, but no keys."""
    for flavour in FLAVOURS:
        call(provider, flavour)
    assert "sk-never-kept" not in str([request.headers for request in provider.requests])
    assert all(request.body["model"] == "m" for request in provider.requests)
    assert "xxx" not in repr(provider.requests)


def test_input_is_counted_for_free(provider):
    """Both SDKs' methods that count are answered with what a call would be billed; fields of an answer are refused."""
    chat, messages = clients(provider)
    asked, billed = {"model": "m", "messages": ASK}, len(provider.billed)
    counted = messages.messages.count_tokens(**asked).input_tokens
    assert chat.responses.input_tokens.count(model="m", input=ASK[0]["content"]).input_tokens > 0
    assert (provider.counts[-2:], len(provider.billed)) == (
        ["/v1/messages/count_tokens", "/v1/responses/input_tokens"],
        billed,
    )
    assert messages.messages.create(max_tokens=5, **asked).usage.input_tokens == counted
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        messages.messages.count_tokens(extra_body={"max_tokens": 5}, **asked)
    with pytest.raises(anthropic.NotFoundError):
        messages.messages.count_tokens(extra_headers={"x-local-provider-count": "status=404"}, **asked)


def test_says_what_it_is(provider):
    """The root page, the list of models and each answer's header say that this is no real provider."""
    with urllib.request.urlopen(provider.url) as page:
        assert page.read().startswith(b"tollspan local provider: answers are made up")
        assert page.headers["server"] == "tollspan-local-provider"
    ours, theirs = clients(provider)
    assert ours.models.list().data[0].id == theirs.models.list().data[0].id == "local-model"
    assert call(provider, "chat").system_fingerprint == "fp_local_provider"


def test_fifty_connections():
    """Fifty threads that call at once each get their whole answer, and every call is billed once."""
    with LocalProvider(delay_s=0.01) as provider:
        ours, _ = clients(provider, timeout=30)
        barrier = threading.Barrier(50)

        def work(_):
            barrier.wait()
            return [len(list(ours.responses.create(model="m", input="hi", stream=True))) for _ in range(3)]

        with ThreadPoolExecutor(50) as pool:
            lengths = {length for row in pool.map(work, range(50)) for length in row}
        assert len(lengths) == 1
        assert len(provider.billed) == 150


def test_stop_ends_waiting_requests():
    """Stopping does not wait for a hanging answer, can be repeated, and the port can be used again."""
    provider = LocalProvider().start()
    port = int(provider.url.rsplit(":", 1)[1])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(raised, provider, "chat", "hang=60")
        while not provider.billed:
            time.sleep(0.01)
        provider.stop()
        assert isinstance(waiting.result(5), openai.APIConnectionError)
    provider.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = provider.url
    with LocalProvider(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_command(tmp_path):
    """Run as a module it prints its URL first, answers with the options given, and ends cleanly on SIGTERM."""
    command = [sys.executable, "-m", "tollspan.console._provider", "--output-tokens", "3", "--delay-s", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = json.loads(process.stdout.readline())["url"]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="local")
        assert client.chat.completions.create(model="m", messages=ASK).usage.completion_tokens == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_input_counts_text_only():
    """Input tokens count prompts, instructions and tools, but no media and no labels; an empty request counts one."""
    image = {"type": "image_url", "image_url": {"url": "data:" + "A" * 4000}}
    content = [{"type": "text", "text": "é" * 4}, image]
    body = {"messages": [{"role": "user", "content": content}], "system": "1234", "tools": [{"name": "five5"}]}
    assert wire.input_tokens(body) == 5
    assert wire.input_tokens({"input": "12345"}) == 2
    assert wire.input_tokens({}) == 1


@given(text=st.text(), tokens=st.integers(0, 50))
def test_cut_text_fits(text, tokens):
    """A cut text fits the tokens, is a true beginning of the whole, and filler has exactly the tokens asked for."""
    cut = wire.visible_text(text, tokens, cut=True)
    assert wire.count_tokens(cut) <= tokens
    assert text.startswith(cut)
    assert not text or cut != text
    assert wire.count_tokens(wire.visible_text(None, tokens, cut=False)) == tokens


PLAIN_TYPES = st.sampled_from(
    [int, str, bool, float, None, dt.date, dt.datetime, uuid.UUID, Literal["a", 1], Leaf, Tree]
    + [Annotated[int, pydantic.Field(gt=low)] for low in (-3, 0, 7)]
    + [Annotated[float, pydantic.Field(lt=high)] for high in (-0.5, 4)]
    + [Annotated[float, pydantic.Field(le=high)] for high in (-0.5, 4)]
    + [Annotated[str, pydantic.Field(min_length=3)]]
)


def compounds(inner):
    sizes = st.integers(0, 3)
    return st.one_of(
        st.builds(lambda a, b: pydantic.create_model("Made", a=(a, ...), b=(b, None)), inner, inner),
        st.builds(lambda kind, low: Annotated[list[kind], pydantic.Field(min_length=low)], inner, sizes),
        inner.map(lambda kind: Union[kind, None]),  # noqa: UP007 - None | None is no type
        inner.map(lambda kind: dict[str, kind]),
    )


@given(kind=st.recursive(PLAIN_TYPES, compounds, max_leaves=5))
def test_instances_fit_their_schema(kind):
    """The value made for a schema is valid for the type that the schema came from."""
    adapter = pydantic.TypeAdapter(kind)
    adapter.validate_json(json.dumps(wire.instance_of(adapter.json_schema())))


@given(text=st.text(), pieces=st.integers(1, 12))
def test_pieces_make_the_text(text, pieces):
    """The parts of a streamed text are never empty, at most as many as asked for, and make up the text."""
    counts = dict.fromkeys(("created", "n", "input", "cached", "written", "output", "reasoning"), 1)
    parts = wire.Reply(ident="", model="", text=text, tool=None, cut=False, pieces=pieces, **counts).split()
    assert "".join(parts) == text
    assert all(parts)
    assert len(parts) <= pieces
