"""The dialects: what the span of a call says in each of them, and that no other span is taken for a call."""

import json
from decimal import Decimal

import pytest
from foreign_spans import NO_CALLS, SECRET, SPOKEN, START_NS, ended
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from tollspan.exporter._dialects import is_inference_start, operation_of, read
from tollspan.exporter._foreign import book, record_of
from tollspan.exporter._translate import settlement
from tollspan.ledger import PriceBook, event_id_for, load_settings

PRICES = PriceBook()
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini"}


def told(attributes, **how):
    """What a span with these attributes says."""
    return read(ended(attributes, **how))


def event_of(attributes, **how):
    """The event that becomes of a span with these attributes."""
    said = told(attributes, **how)
    record = record_of(said, load_settings())
    book(record, said, PRICES)
    return settlement(record).event


def tokens(usage):
    """The counts that are compared."""
    keys = ("tokens_in", "tokens_out", "tokens_cache_read", "tokens_reasoning")
    return tuple(usage.get(key, 0) for key in keys)


@pytest.mark.parametrize("name", SPOKEN)
def test_usage_means_the_same_in_every_dialect(name):
    """Totals count every token and the rest are parts of them, whatever the dialect leaves out or puts beside."""
    assert tokens(told(SPOKEN[name]).usage) == (700, 90, 300, 20)


@pytest.mark.parametrize("name", SPOKEN)
def test_who_and_what(name):
    """Operation, provider, models, the answer's id, user and session are read in every dialect."""
    event = event_of(SPOKEN[name])
    vendor, model = ("anthropic", "claude-haiku-4-5-20251001") if "claude" in str(SPOKEN[name]) else (
        "openai", "gpt-4o-mini-2024-07-18",
    )  # fmt: skip
    assert (event.operation, event.provider, event.model) == ("chat", vendor, model)
    assert (event.user_id, event.session_id) == ("ada", "talk-1")
    assert (
        name.replace(" ", "").replace("-", "")[:6]
        in told(SPOKEN[name]).response_id.translate({ord("_"): None, ord("-"): None})
        or name == "opentelemetry"
    )
    assert (event.status, event.event_type, event.timing["total_ms"]) == ("ok", "commit", 250)


@pytest.mark.parametrize("name", SPOKEN)
def test_no_content_is_kept(name):
    """Prompts, answers and messages of errors get into no event."""
    assert SECRET not in str(event_of(SPOKEN[name]))
    assert SECRET not in str(event_of(SPOKEN[name], error="openai.APITimeoutError"))


@pytest.mark.parametrize("name", SPOKEN)
def test_every_call_has_its_cost(name):
    """A cost that the span states is taken as it is; any other call is priced by its usage and never as nothing."""
    event = event_of(SPOKEN[name])
    if name in {"litellm", "litellm v2", "pydantic-ai"}:
        assert (event.cost_actual_usd, event.cost_source) == (Decimal("0.000425"), "span")
    else:
        assert event.cost_source.startswith("genai-prices")
        assert event.cost_actual_usd > 0


@pytest.mark.parametrize("name", NO_CALLS)
def test_what_is_no_call(name):
    """Agents, tools, workflows, chains and retrievers are no calls, even where they carry usage; nor are requests."""
    assert told(NO_CALLS[name]) is None


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ({"gen_ai.operation.name": "embeddings"}, "embeddings"),
        ({"gen_ai.operation.name": "text_completion"}, "text_completion"),
        ({"gen_ai.operation.name": "generate_content"}, "generate_content"),
        ({"gen_ai.operation.name": "image"}, "image_generation"),
        ({"gen_ai.operation.name": "image_generation"}, "image_generation"),
        ({"gen_ai.operation.name": "speech_to_text"}, "transcription"),
        ({"llm.request.type": "embedding"}, "embeddings"),
        ({"openinference.span.kind": "EMBEDDING"}, "embeddings"),
        ({"gen_ai.system": "openai", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}, "chat"),
    ],
)
def test_operations(named, meant):
    """The names of an operation come to one; where none is named, a model and usage make a call."""
    assert told(named).operation == meant


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("OpenAI", "openai"),
        ("MistralAI", "mistral_ai"),
        ("mistral", "mistral_ai"),
        ("bedrock", "aws.bedrock"),
        ("xai", "x_ai"),
        ("mistral_ai", "mistral_ai"),
        ("one of our own", "one of our own"),
    ],
)
def test_providers(named, meant):
    """The names that instrumentations have for a provider come to the one in the conventions."""
    assert told(CHAT | {"gen_ai.provider.name": named}).provider == meant


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ({"gen_ai.operation.name": "acompletion", "llm.request.type": "acompletion"}, "chat"),
        ({"llm.request.type": "completion"}, "chat"),
        ({"llm.request.type": "atext_completion"}, "text_completion"),
        ({"gen_ai.operation.name": "generate_content", "litellm.call_type": "aimage_generation"}, "image_generation"),
        ({"gen_ai.operation.name": "aanthropic_messages", "llm.request.type": "aanthropic_messages"}, "chat"),
    ],
)
def test_litellm_names_its_functions(named, meant):
    """LiteLLM writes the function that was called, from tasks another one, and often nothing but that."""
    assert told({"litellm.call_id": "8c6f", "gen_ai.request.model": "m", **named}).operation == meant


@pytest.mark.parametrize(
    ("request_id", "meant"),
    [
        ("agents_completion_v1_agents_completions_post", "chat"),
        ("fim_completion_v1_fim_completions_post", "text_completion"),
        ("models_list_v1_models_get", None),
    ],
)
def test_mistral_names_its_requests(request_id, meant):
    """Before 2.0 Mistral's SDK writes the id of the request, and no operation."""
    span = ended(
        {"agent.trace.public": "", "gen_ai.provider.name": "mistral_ai", "mistral_ai.operation.id": request_id}
    )
    assert operation_of(span.attributes) == meant


@pytest.mark.parametrize(
    ("shown", "taken"),
    [
        ("chatcmpl-013da963-6f00-4408-b940-d02178c4f873", None),
        ("534f6b13-f294-4413-a297-c2a6c4198775", None),
        ("resp_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haQ==", None),
        ("a-name-of-ours", None),
        ("chatcmpl-BqX1zT0qjA", "chatcmpl-BqX1zT0qjA"),
        (
            "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
            "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
        ),
        ("msg_01XFDUDYJgAACzvnptvVoYEL", "msg_01XFDUDYJgAACzvnptvVoYEL"),
    ],
)
def test_ids_that_litellm_makes_up(shown, taken):
    """Where LiteLLM shows an id of its own in place of the provider's, no other span of the call has it: it is none."""
    spoken = {"litellm.call_id": "a-name-of-ours", "llm.request.type": "completion", "gen_ai.request.model": "m"}
    assert told(spoken | {"gen_ai.response.id": shown}).response_id == taken


def test_an_agent_at_mistral_is_one_call():
    """Mistral's SDK calls a request to an agent that the provider keeps an agent; it is a call, billed by its usage."""
    said = told({
        "agent.trace.public": "", "gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "mistral_ai",
        "gen_ai.response.model": "mistral-small-latest", "http.response.status_code": 200,
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 5,
    })  # fmt: skip
    assert (said.dialect, said.operation, said.failed) == ("mistralai", "chat", False)
    assert said.usage == {"tokens_in": 9, "tokens_out": 5}


def test_what_mistral_did_not_answer():
    """Mistral's SDK writes no error where it does not know the body; its span has no status of an answer then."""
    event = event_of(CHAT | {"agent.trace.public": ""})
    assert (event.event_type, event.status, event.reason) == (
        "commit", "error", "nobody can tell whether it was billed",
    )  # fmt: skip


def test_pages():
    """What is billed by the page is read as pages."""
    said = told({
        "agent.trace.public": "", "gen_ai.operation.name": "generate_content", "http.response.status_code": 200,
        "mistral_ai.ocr.usage.pages_processed": 3,
    })  # fmt: skip
    assert said.usage == {"document_pages": 3}


def test_usage_in_the_envelope_of_an_event():
    """OpenInference writes the events of Mistral's streams as they are: usage is taken out, the id is left in."""
    usage = {"prompt_tokens": 700, "completion_tokens": 90, "prompt_tokens_details": {"cached_tokens": 300}}
    output = json.dumps({"data": {"id": "a-distinctive-id-of-mistral", "usage": usage}})
    said = told({"openinference.span.kind": "LLM", "llm.token_count.prompt": 700, "output.value": output})
    assert (tokens(said.usage), said.response_id) == ((700, 90, 300, 0), None)


@pytest.mark.parametrize("marker", ["gen_ai.system", "gen_ai.provider.name"])
def test_a_span_that_names_only_a_provider_is_no_call(marker):
    """Without an operation and without usage nothing was called, as far as the span says."""
    assert told({marker: "openai", "gen_ai.request.model": "gpt-4o-mini"}) is None


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"input_tokens": 10, "output_tokens": 5, "cache_read.input_tokens": 40}, (50, 5, 40, 0)),
        ({"input_tokens": 100, "output_tokens": 20, "reasoning_tokens": 30}, (100, 50, 0, 30)),
        ({"input_tokens": 100, "output_tokens": 20, "total_tokens": 150}, (100, 50, 0, 0)),
        (
            {"input_tokens": 60, "output_tokens": 50, "total_tokens": 150, "cache_read.input_tokens": 40},
            (100, 50, 40, 0),
        ),
        ({"input_tokens": 100, "output_tokens": 50, "total_tokens": 120}, (100, 50, 0, 0)),
        ({"input_tokens": "100", "output_tokens": "50"}, (100, 50, 0, 0)),
    ],
    ids=["parts exceed input", "parts exceed output", "total has thoughts", "total has cache", "bad total", "text"],
)
def test_what_a_total_leaves_out_is_put_back(counts, usage):
    """Where parts exceed their whole, or a total the sum of both, the whole had left something out."""
    assert tokens(told(CHAT | {f"gen_ai.usage.{key}": value for key, value in counts.items()}).usage) == usage


def test_thoughts_beside_a_gemini_answer():
    """OpenLIT counts only what Gemini showed: what it thought is added, because both are billed."""
    said = told({
        "telemetry.sdk.name": "openlit", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "gemini",
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40, "gen_ai.usage.reasoning_tokens": 30,
    })  # fmt: skip
    assert tokens(said.usage) == (100, 70, 0, 30)


@pytest.mark.parametrize(
    "counts", [{}, {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": "many"}, {"input_tokens": float("nan")}]
)
def test_a_call_without_usage_is_unpriced(counts):
    """A call that succeeded without telling usage is committed without a cost, and the reason says why."""
    event = event_of(CHAT | {f"gen_ai.usage.{key}": value for key, value in counts.items()})
    assert (event.event_type, event.cost_actual_usd, event.cost_source) == ("commit", None, "unpriced")
    assert event.reason == "the span carried no usage"


def test_a_model_without_a_price_is_unpriced():
    """Usage of a model that no price list has is kept, without a cost and with the reason."""
    event = event_of(CHAT | {"gen_ai.request.model": "of-my-own", "gen_ai.usage.input_tokens": 5})
    assert (event.usage["tokens_in"], event.cost_actual_usd, event.cost_source) == (5, None, "unpriced")
    assert "of-my-own" in event.reason


@pytest.mark.parametrize("stated", [0, 0.0, -1, float("nan"), "free", True])
def test_a_stated_cost_that_says_nothing(stated):
    """A cost of 0 is what an instrumentation without a price list writes: the usage is priced instead."""
    event = event_of(CHAT | {"gen_ai.usage.input_tokens": 1000, "operation.cost": stated})
    if stated is not True:
        assert event.cost_actual_usd == Decimal("0.00015")


def test_a_cost_in_another_currency_is_not_taken():
    """Only USD are booked: a cost in another currency leaves the call to its price."""
    stated = {"gen_ai.usage.cost.amount": 7.5, "gen_ai.usage.cost.currency": "EUR", "gen_ai.usage.input_tokens": 1000}
    assert event_of(CHAT | stated).cost_actual_usd == Decimal("0.00015")
    assert event_of(CHAT | stated | {"gen_ai.usage.cost.currency": "USD"}).cost_actual_usd == Decimal("7.5")


@pytest.mark.parametrize(
    ("more", "raised", "ends_as"),
    [
        ({"error.type": "openai.RateLimitError"}, None, ("cancel", "RateLimitError")),
        ({}, "anthropic.BadRequestError", ("cancel", "BadRequestError")),
        ({"http.response.status_code": 404, "error.type": "_OTHER"}, None, ("cancel", "_OTHER")),
        ({"error.type": "429"}, None, ("cancel", "429")),
        ({"http.response.status_code": 408}, "TimeoutError", ("commit", "TimeoutError")),
        ({"http.response.status_code": 503, "error.type": "503"}, None, ("commit", "503")),
        ({}, "openai.APITimeoutError", ("commit", "APITimeoutError")),
        ({}, "openai.APIConnectionError", ("commit", "APIConnectionError")),
    ],
)
def test_failures(more, raised, ends_as):
    """A failure that providers do not bill is a cancel; of any other nobody knows, so it is a commit without a cost."""
    event = event_of(CHAT | more, error=raised)
    assert (event.event_type, event.error_type) == ends_as
    assert (event.status, event.cost_actual_usd) == ("error", None)
    assert event.reason == ("nobody can tell whether it was billed" if event.event_type == "commit" else None)


def test_a_failure_with_usage_is_billed():
    """Usage was counted before the failure, so it is paid for."""
    event = event_of(CHAT | {"gen_ai.usage.input_tokens": 1000}, error="RuntimeError")
    assert (event.event_type, event.status, event.cost_actual_usd) == ("commit", "error", Decimal("0.00015"))


@pytest.mark.parametrize(
    ("spoken", "events"),
    [
        ({"gen_ai.response.time_to_first_chunk": 0.04, **CHAT}, ()),
        ({"openinference.span.kind": "LLM"}, [("First Token Stream Event", 40), ("First Token Stream Event", 60)]),
        ({"gen_ai.is_streaming": True, **CHAT}, [("other", 10), ("gen_ai.content.completion.chunk", 40)]),
    ],
    ids=["attribute", "openinference", "openllmetry"],
)
def test_time_to_first_token(spoken, events):
    """It comes from an attribute in seconds, or from the time of the first event of its kind."""
    assert event_of(spoken, events=events).timing == {"total_ms": 250, "ttft_ms": 40}


def test_ids_are_made_of_the_span():
    """The same span always gives the same event: its start in milliseconds and its id are the id of the call."""
    span = ended(SPOKEN["opentelemetry"])
    record = record_of(read(span), load_settings())
    assert record.call_id == (START_NS // 1_000_000).to_bytes(6, "big") + span.context.span_id.to_bytes(8, "big")
    event = settlement(record).event
    assert event.event_id == event_id_for(record.call_id, "commit").hex()
    assert (event.trace_id, event.span_id) == (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")


def test_the_configured_profile_and_tags(monkeypatch):
    """A foreign call belongs to the process's profile and has its tags, like our own."""
    monkeypatch.setenv("TOLLSPAN_PROFILE", "key-7")
    monkeypatch.setenv("TOLLSPAN_TAGS", "team=search")
    event = event_of(SPOKEN["opentelemetry"])
    assert (event.profile_id, dict(event.tags), event.category) == ("key-7", {"team": "search"}, "foreign")


def test_logfire_tells_the_answer_of_a_stream_later():
    """The span of a streamed request has no usage and announces one that has; that one begins where the stream did."""
    logfire = {**CHAT, "logfire.msg_template": "x"}
    assert told(logfire | {"logfire.span_type": "span"}).answer_follows
    assert not told(logfire | {"logfire.span_type": "span"}, error="RuntimeError").answer_follows
    answer = told(logfire | {"logfire.span_type": "log", "duration": 1.5, "gen_ai.usage.input_tokens": 5}, lasted_ms=0)
    assert not answer.answer_follows
    assert answer.ended - answer.started == pytest.approx(1.5)


def test_seconds_of_audio():
    """What is billed by the second is read from the provider's own usage."""
    said = told({
        "logfire.msg_template": "x", "url": "/audio/transcriptions", "gen_ai.system": "openai",
        "gen_ai.request.model": "whisper-1", "gen_ai.usage.raw": '{"seconds": 12.0, "type": "duration"}',
    })  # fmt: skip
    assert (said.operation, said.usage) == ("transcription", {"audio_seconds": 12})


def test_a_provider_s_own_usage_counts_caches_beside_the_input():
    """Where only Anthropic's own numbers are there, its cached tokens are added to its input."""
    raw = '{"input_tokens": 60, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 20, "output_tokens": 5}'
    said = told({"logfire.msg_template": "x", **CHAT, "gen_ai.usage.raw": raw})
    assert said.usage == {"tokens_in": 100, "tokens_out": 5, "tokens_cache_read": 20, "tokens_cache_write": 20}


@pytest.mark.parametrize("document", ["", "no JSON", '{"id": "cut', "{'a': print()}", "[1]", '{"usage": 5}', "{1: 2"])
def test_documents_that_cannot_be_read(document):
    """A text that was cut, or is none of ours, says nothing and harms nothing."""
    said = told({"openinference.span.kind": "LLM", "llm.token_count.prompt": 3, "output.value": document})
    assert (said.response_id, said.usage) == (None, {"tokens_in": 3})


def test_a_limit_on_attributes_is_survived():
    """A provider that keeps only the newest attributes gives a call of what is left, and no error."""
    tracer = TracerProvider(span_limits=SpanLimits(max_span_attributes=2), shutdown_on_exit=False).get_tracer("x")
    assert read(ended(SPOKEN["opentelemetry"], tracer=tracer)) is None


@pytest.mark.parametrize(
    ("name", "attributes", "kept"),
    [
        ("x", {"gen_ai.operation.name": "chat"}, True),
        ("x", {"llm.system": "openai"}, True),
        ("x", {"openinference.span.kind": "LLM"}, True),
        ("ChatOpenAI.chat", {}, True),
        ("openai.response", {}, True),
        ("chat gpt-4o-mini", {}, True),
        ("litellm_request", {}, True),
        ("chat_completion_v1_chat_completions_post", {}, True),
        ("agents_api_v1_conversations_start_stream", {}, True),
        ("agents_api_v1_conversations_list", {}, False),
        ("POST /chat", {"http.request.method": "POST"}, False),
        ("x", {}, False),
    ],
)
def test_what_tells_a_call_at_its_start(name, attributes, kept):
    """Attributes of the conventions, of OpenInference or of OpenLLMetry, and names of spans that start without any."""
    assert is_inference_start(name, attributes) is kept
