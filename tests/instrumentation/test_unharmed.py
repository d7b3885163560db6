"""What users see of the SDKs is as without us: results, requests, exceptions, methods; and all can be undone."""

import contextlib
import contextvars
import gc
import inspect
import json
import logging
import pickle
import subprocess
import sys
from operator import attrgetter
from unittest.mock import Mock

import pytest
import wrapt
from opentelemetry import trace
from sdk_calls import (
    ASK,
    FLAVOURS,
    KINDS,
    SURFACES,
    anthropic,
    arguments,
    call,
    canned,
    create,
    drive,
    library_of,
    listed,
    make_client,
    mocked,
    next_of,
    openai,
    resolved,
    shown,
)

from tollspan.budget import budget
from tollspan.exporter import pipeline, use_pipeline
from tollspan.instrumentation import CALL_SITES, INSTALLATION, instrument, sdk_version, uncovered, uninstrument
from tollspan.instrumentation._readers import OPENAI_CHAT
from tollspan.instrumentation._wires import WIRES
from tollspan.instrumentation._wrappers import wrapper_for
from tollspan.ledger import PriceBook, internal_errors

USUAL = "x-local-provider"


def with_settings(monkeypatch, **settings):
    """Set settings by the environment, as users do."""
    for name, value in settings.items():
        monkeypatch.setenv(f"TOLLSPAN_{name}", value)
    old = use_pipeline(None)
    if old is not None:
        old.close()


def _boom(*_arguments, **_options):
    raise ZeroDivisionError("a bug of ours")


# ---- requests and results


MOCKED = [(surface, chunked) for surface in SURFACES for chunked in (False, True) if surface.streams or not chunked]
MOCKED_IDS = [f"{surface.name} {'chunked' if chunked else 'whole'}".replace(" ", "-") for surface, chunked in MOCKED]


@KINDS
@pytest.mark.parametrize(("surface", "chunked"), MOCKED, ids=MOCKED_IDS)
def test_requests_and_results_over_a_mock(provider, instrumented, *, surface, chunked, asynchronous):
    """With a user's own HTTP client too, requests are the same bytes but for include_usage, and so are the results."""
    bodies = []

    def answer(request):
        bodies.append(request.content)
        return canned(request, chunked=chunked, asynchronous=asynchronous)

    def run():
        client = mocked(surface.sdk, answer, asynchronous=asynchronous)
        return call(provider, surface, asynchronous=asynchronous, http_client=client)

    bare = run()
    with instrumented() as seen:
        result = run()
        event = seen.end
    assert shown(result) == shown(bare)
    before, after = map(json.loads, bodies)
    if surface.flavour == "chat" and surface.streams:
        assert after.pop("stream_options") == {"include_usage": True}
        assert after == before
        assert seen.spans[0].attributes["tollspan.request.include_usage"]
    else:
        assert bodies[0] == bodies[1]
    assert (event.usage, event.status, event.estimated) == ({"tokens_in": 20, "tokens_out": 10}, "ok", False)
    assert not uncovered


@KINDS
@pytest.mark.parametrize("include_usage", [True, False])
def test_the_callers_own_include_usage_is_left_alone(provider, instrumented, *, include_usage, asynchronous):
    """Whoever says whether usage shall be included gets what was asked for: the usage chunk, or none."""

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous)
        options = {"include_usage": include_usage}
        chunks = await listed(await resolved(create(client, "chat", stream=True, stream_options=options)))
        await resolved(client.close())
        return chunks

    bare = drive(work(), asynchronous=asynchronous)
    with instrumented() as seen:
        chunks = drive(work(), asynchronous=asynchronous)
        assert shown(chunks) == shown(bare)
        assert (chunks[-1].usage is not None) == include_usage
        assert provider.requests[-1].body["stream_options"] == {"include_usage": include_usage}
        assert seen.end.estimated != include_usage


def test_include_usage_can_be_switched_off(provider, instrumented, monkeypatch):
    """With TOLLSPAN_INCLUDE_USAGE=false requests stay as they are, and the stream is booked at an estimate."""
    with_settings(monkeypatch, INCLUDE_USAGE="false")
    with instrumented() as seen, make_client(provider, "openai") as client:
        list(create(client, "chat", stream=True))
        assert "stream_options" not in provider.requests[-1].body
        assert (seen.end.estimated, seen.end.status) == (True, "ok")


@KINDS
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_streams_are_the_sdks_own(provider, seen, *, flavour, asynchronous):
    """A stream has the SDK's own type, `next`, headers and response, and a result can be pickled."""

    async def work():
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous)
        stream = await resolved(create(client, flavour, stream=True))
        first = await next_of(stream)
        rest = await listed(stream)
        whole = await resolved(create(client, flavour))
        await resolved(client.close())
        return stream, [first, *rest], whole

    stream, items, whole = drive(work(), asynchronous=asynchronous)
    sdk = {"openai": openai, "anthropic": anthropic}[FLAVOURS[flavour]]
    assert type(stream) is (sdk.AsyncStream if asynchronous else sdk.Stream)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert type(stream.response) is library_of(FLAVOURS[flavour]).Response
    assert stream.response.is_closed
    assert stream.response.elapsed.total_seconds() > 0
    for value in (items[0], items[-1], whole):
        assert shown(pickle.loads(pickle.dumps(value))) == shown(value)


# ---- exceptions

FAULTS = (
    *(f"status={code}" for code in (400, 401, 429, 500)),
    "status=502;body=html",
    "hang=1",
    "drop",
    "cut=1",
    "not-json",
    "cut=3 stream",
    "error-event stream",
    "refused",
)


@KINDS
@pytest.mark.parametrize("flavour", ["chat", "messages"])
@pytest.mark.parametrize("fault", FAULTS)
def test_exceptions_are_those_of_the_sdk(provider, instrumented, *, fault, flavour, asynchronous):
    """Type, text, attributes, cause and context of what the caller gets are as without us."""
    plan, _, streams = fault.partition(" ")

    async def work():
        options = {"base_url": "http://127.0.0.1:9"} if plan == "refused" else {}
        timeout = 0.1 if plan.startswith("hang") else 20
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous, timeout=timeout, **options)
        headers = {} if plan == "refused" else {USUAL: plan}
        try:
            answer = await resolved(create(client, flavour, stream=bool(streams), extra_headers=headers))
            await listed(answer)
        finally:
            await resolved(client.close())

    def described():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the test compares
            drive(work(), asynchronous=asynchronous)
        error = caught.value
        plain = {name: getattr(error, name, None) for name in ("status_code", "body", "code", "message", "type")}
        response = getattr(error, "response", None)
        return (
            type(error),
            str(error),
            plain,
            type(error.__cause__),
            type(error.__context__),
            error.__suppress_context__,
            response is not None and sorted(response.headers),
        )

    bare = described()
    with instrumented() as seen:
        assert described() == bare
        gc.collect()  # after an error event, older SDKs leave the response open
        assert seen.end.status == "error"


# ---- methods


def _targets():
    """Every patched attribute that this SDK has: its owner and its name."""
    for target in (*CALL_SITES, *WIRES):
        if target.module in sys.modules:
            with contextlib.suppress(AttributeError):
                yield wrapt.resolve_path(sys.modules[target.module], target.name)[:2]


def _looks(owner, name):
    function = getattr(owner, name)
    return (
        inspect.signature(function),
        inspect.iscoroutinefunction(function),
        inspect.isfunction(function),
        *(getattr(function, attribute) for attribute in ("__name__", "__qualname__", "__module__", "__doc__")),
    )


def _load_everything():
    for sdk in (openai.OpenAI(api_key="x"), anthropic.Anthropic(api_key="x")):
        for path in ("chat.completions", "beta.chat.completions", "responses", "beta.responses", "embeddings"):
            with contextlib.suppress(AttributeError):
                attrgetter(path)(sdk)
        for path in ("completions", "messages", "beta.messages"):
            with contextlib.suppress(AttributeError):
                attrgetter(path)(sdk)
        sdk.close()


def test_methods_look_as_before_and_are_put_back():
    """A patched method looks like the original, which uninstrumenting puts back, and instrumenting again works."""
    _load_everything()
    before = [(owner, name, vars(owner).get(name), _looks(owner, name)) for owner, name in _targets()]
    assert len(before) > 20
    for _ in range(2):
        instrument()
        assert all(vars(owner)[name] is not original for owner, name, original, _ in before)
        assert all(_looks(owner, name) == looks for owner, name, _, looks in before)
        uninstrument()
        assert all(vars(owner).get(name) is original for owner, name, original, _ in before)


def _numbers(version):
    return [int(part) for part in version.split(".")[:2]]


def test_every_row_of_this_version_is_in_place(seen, caplog):
    """Each row whose method the installed SDK is new enough to have is in place, and nothing is missed."""
    _load_everything()
    states = INSTALLATION.state
    newer = [site for site, state in states.items() if state == "unresolved"]
    assert all(_numbers(sdk_version(site.sdk)) < _numbers(site.since) for site in newer)
    assert sum(state == "in place" for state in states.values()) > 20
    assert not [record for record in caplog.records if record.name.startswith("tollspan")]


def test_instrumenting_twice_is_instrumenting_once(provider, instrumented):
    """A second `instrument` changes nothing: one commit for a call, and one `uninstrument` puts everything back."""
    with instrumented() as seen:
        instrument()
        with make_client(provider, "openai") as client:
            create(client, "chat")
        assert len(seen.events) == 1
    with make_client(provider, "openai") as client:
        create(client, "chat")
    assert len(seen.events) == 1


def test_an_sdk_imported_later_is_patched_when_it_comes(ledger_path):
    """`instrument()` imports nothing; an SDK's rows are put in place when the application imports it."""
    code = (
        "import sys; from tollspan.instrumentation import instrument, INSTALLATION; instrument();"
        "assert not {'openai', 'anthropic', 'httpx', 'httpx2'} & set(sys.modules);"
        "import openai, anthropic;"
        "openai.OpenAI(api_key='x').chat.completions, anthropic.Anthropic(api_key='x').messages;"
        "states = {(s.module, s.name): v for s, v in INSTALLATION.state.items() if hasattr(s, 'reader')};"
        "assert states['openai.resources.chat.completions.completions', 'Completions.create'] == 'in place';"
        "assert states['anthropic.resources.messages.messages', 'AsyncMessages.create'] == 'in place'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- clients


def test_subclasses_of_clients(provider, seen):
    """A subclass of the SDK's client, and one of the HTTP client with a `send` of its own, are recorded once each."""
    library = library_of("openai")

    class Own(openai.OpenAI):
        pass

    class OwnHttp(library.Client):
        def send(self, request, **options):
            return super().send(request, **options)

    with Own(base_url=provider.openai_url, api_key="x", http_client=OwnHttp()) as client:
        create(client, "chat")
        list(create(client, "chat", stream=True))
    assert [event.event_type for event in seen.events] == ["commit", "commit"]
    assert not uncovered


def test_a_fake_client(seen, monkeypatch, caplog):
    """A resource on top of a user's own fake, which has no address, gives what the fake gives."""
    monkeypatch.setattr(internal_errors, "raising", False)
    fake = Mock()
    del fake.base_url
    fake.post.return_value = "an answer"
    assert type(openai.OpenAI(api_key="x").chat.completions)(fake).create(**arguments("chat")) == "an answer"
    assert internal_errors.count == 1
    assert "an error of its own" in caplog.text
    assert not seen.events


def test_a_transport_that_is_no_http_client(seen):
    """Where the wire cannot be seen, the SDK's own result and exception tell what became of the call."""
    library = library_of("openai")

    class Blind(library.Client):
        def send(self, request, **_options):
            if "broken" in str(request.url):
                raise library.ReadTimeout("nothing came")
            return library.Response(request=request, **canned(request))

    for path in ("v1", "broken"):
        client = openai.OpenAI(base_url=f"http://blind/{path}", api_key="x", http_client=Blind(), max_retries=0)
        with client, contextlib.suppress(openai.APITimeoutError):
            create(client, "chat")
    good, bad = seen.events
    assert (good.usage, good.estimated, good.attempts) == ({"tokens_in": 20, "tokens_out": 10}, False, 1)
    assert (bad.event_type, bad.estimated, bad.status) == ("commit", True, "error")


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://gateway.corp:8443/v1", "deepseek"),
        ("https://gateway.corp/v1", "openai"),
        ("https://somebody.openai.azure.com/openai", "azure.ai.openai"),
    ],
)
def test_the_provider_is_told_from_the_host(instrumented, monkeypatch, base_url, name):
    """The host tells who answers, unless TOLLSPAN_PROVIDERS says so; an unknown one is taken for the SDK's vendor."""
    with_settings(monkeypatch, PROVIDERS="gateway.corp:8443=deepseek")
    http_client = mocked("openai", canned, asynchronous=False)
    with instrumented() as seen, openai.OpenAI(base_url=base_url, api_key="x", http_client=http_client) as client:
        create(client, "chat")
        assert seen.end.provider == name
        assert seen.spans[0].attributes["gen_ai.provider.name"] == name


@KINDS
def test_a_context_that_outlives_its_call(provider, seen, *, asynchronous):
    """A task or thread that was started inside a call and goes on after it makes calls of its own."""
    contexts = []

    def answer(request):
        contexts.append(contextvars.copy_context())
        return canned(request)

    surface = SURFACES[0]
    call(provider, surface, asynchronous=asynchronous, http_client=mocked("openai", answer, asynchronous=asynchronous))
    contexts[0].run(call, provider, surface, asynchronous=asynchronous)
    assert [(event.event_type, event.attempts) for event in seen.events] == [("commit", 1), ("commit", 1)]
    assert seen.events[0].call_id != seen.events[1].call_id


@KINDS
@pytest.mark.parametrize("name", ["chat.create", "chat.create stream", "messages.create", "messages.stream"])
def test_the_span_is_current_while_the_request_is_sent(provider, seen, *, name, asynchronous):
    """Spans that are made below, such as those of the HTTP client, are children of the call's, and no others."""
    surface = next(surface for surface in SURFACES if surface.name == name)
    inside = []

    def answer(request):
        inside.append(trace.get_current_span().get_span_context().span_id)
        return canned(request)

    http_client = mocked(surface.sdk, answer, asynchronous=asynchronous)
    call(provider, surface, asynchronous=asynchronous, http_client=http_client)
    assert inside == [seen.spans[0].get_span_context().span_id]
    assert not trace.get_current_span().get_span_context().is_valid


# ---- our own bugs


BUGS = {
    "reading the request": (type(OPENAI_CHAT), "request"),
    "reading the answer": (type(OPENAI_CHAT), "response"),
    "reading the stream": (type(OPENAI_CHAT), "stream"),
    "asking for usage": (type(OPENAI_CHAT), "with_usage_asked"),
    "the price": (PriceBook, "resolve"),
    "the start of the span": ("tollspan.instrumentation._call.start_span", None),
    "the end of the span": ("tollspan.instrumentation._call.describe_end", None),
    "the tap": ("tollspan.instrumentation._wires._exchange._listen", None),
}


@KINDS
@pytest.mark.parametrize(
    ("streams", "fault"),
    [
        (False, "ok"),
        (True, "ok"),
        (False, "status=500;retry-after=0.01,ok"),
        (True, "status=500;retry-after=0.01,ok"),
        (False, "status=429;retry-after=0.01"),
    ],
)
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_of_ours_is_not_the_users(provider, seen, monkeypatch, caplog, *, bug, streams, fault, asynchronous):
    """Whatever breaks inside of us, the call goes on as without us, the bug is logged and counted; no hold stays."""
    where, name = BUGS[bug]
    monkeypatch.setattr(where, name, _boom) if name else monkeypatch.setattr(where, _boom)
    monkeypatch.setattr(internal_errors, "raising", False)

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous, max_retries=1)
        headers = {USUAL: fault, f"{USUAL}-key": f"{bug}{streams}{asynchronous}"}
        try:
            answer = await resolved(create(client, "chat", stream=streams, extra_headers=headers))
            return len(await listed(answer)) if streams else answer.choices[0].finish_reason
        except openai.RateLimitError as error:
            return error.status_code
        finally:
            await resolved(client.close())

    with budget("5 USD", name="b") as entry:
        result = drive(work(), asynchronous=asynchronous)
    # Where the tap itself is broken, the usage chunk that we asked for is not hidden.
    assert result in ((429,) if fault.startswith("status=429") else (10, 11) if streams else ("stop",))
    assert seen.open_holds == 0
    assert entry.held == 0
    reached = internal_errors.count > 0
    assert reached == any("an error of its own" in record.message for record in caplog.records)
    for event in seen.of("commit"):
        assert event.cost_actual_usd is not None or event.reason


@pytest.mark.parametrize("bug", ["reading the answer", "the price"])
def test_what_our_bug_kept_from_being_booked_stays_held(provider, seen, monkeypatch, bug):
    """A billed call that we could not read is booked at its hold, as an estimate with a reason, and not at nothing."""
    where, name = BUGS[bug]
    with make_client(provider, "openai") as client, budget("5 USD", name="b") as entry:
        create(client, "chat")
        hold = seen.of("precheck_hold")[0].cost_est_usd
        monkeypatch.setattr(internal_errors, "raising", False)
        original, spent = getattr(where, name), entry.spent

        def only_after(*arguments, **options):
            return _boom() if pipeline().ledger.open_holds().calls else original(*arguments, **options)

        monkeypatch.setattr(where, name, only_after)
        assert create(client, "chat").choices
        last = seen.events[-1]
        assert (last.event_type, last.estimated, last.cost_est_usd) == ("commit", True, hold)
        assert last.reason
        assert (entry.spent - spent, entry.held) == (hold, 0)


def test_nothing_is_recorded_when_disabled(provider, monkeypatch, ledger_path):
    """TOLLSPAN_DISABLED leaves the SDKs unpatched, and no ledger is made."""
    with_settings(monkeypatch, DISABLED="1")
    instrument()
    with make_client(provider, "openai") as client:
        client.chat.completions.create(**arguments("chat", messages=ASK))
    assert not isinstance(vars(type(client.chat.completions))["create"], wrapt.ObjectProxy)
    assert not ledger_path.exists()
    assert logging.getLogger("tollspan").level == logging.NOTSET


# ---- others


def test_those_who_wrapped_on_top_of_us_stay(provider, seen):
    """Where another instrumentation wraps a method after us, uninstrumenting takes away ours and leaves theirs."""
    with make_client(provider, "openai") as client:
        owner, theirs = type(client.chat.completions), []

        def note(wrapped, _instance, args, kwargs):
            theirs.append(kwargs["model"])
            return wrapped(*args, **kwargs)

        bare = vars(owner)["create"].__wrapped__
        try:
            wrapt.wrap_function_wrapper(owner, "create", note)
            create(client, "chat")
            uninstrument()
            create(client, "chat")
            instrument()
            create(client, "chat")
        finally:
            uninstrument()
            owner.create = bare
    assert len(theirs) == 3
    assert [event.event_type for event in seen.events] == ["commit", "commit"]


def test_a_patch_that_fails_stops_no_other(provider, instrumented, monkeypatch):
    """A bug of ours while a row is put in place breaks neither the application's import nor the other rows."""
    monkeypatch.setattr(internal_errors, "raising", False)
    broken = CALL_SITES[1]
    monkeypatch.setattr(
        "tollspan.instrumentation._patching.wrapper_for", lambda site: _boom() if site is broken else wrapper_for(site)
    )
    with instrumented() as seen, make_client(provider, "openai") as client:
        create(client, "chat")
        assert INSTALLATION.state[CALL_SITES[0]] == "in place"
        assert INSTALLATION.state[broken] == "unresolved"
        assert seen.end.status == "ok"
    assert internal_errors.count >= 1
