"""Spans as other instrumentations write them, with values of their own, and what they say."""

import json

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode

START_NS = 1_700_000_000_000_000_000
SECRET = "what nobody may keep"

_GPT = {"gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18"}
_CLAUDE = {"gen_ai.request.model": "claude-haiku-4-5", "gen_ai.response.model": "claude-haiku-4-5-20251001"}
_CONTENT = {"gen_ai.input.messages": SECRET, "gen_ai.output.messages": SECRET}

# Dialect -> attributes. In each the call read 700 tokens, 300 of them from a cache, and wrote 90, 20 of them thought.
SPOKEN = {
    "opentelemetry": {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", **_GPT, **_CONTENT,
        "gen_ai.response.id": "chatcmpl-of-the-official", "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.output_tokens": 90, "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.reasoning.output_tokens": 20, "gen_ai.response.time_to_first_chunk": 0.125,
        "gen_ai.conversation.id": "talk-1", "user.id": "ada",
    },
    "openllmetry": {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.is_streaming": False, **_GPT,
        **_CONTENT, "gen_ai.usage.total_tokens": 790, "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.output_tokens": 90, "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.reasoning_tokens": 20, "gen_ai.response.id": "chatcmpl-of-openllmetry",
        "traceloop.association.properties.user_id": "ada", "traceloop.association.properties.session_id": "talk-1",
    },
    "openinference": {
        "openinference.span.kind": "LLM", "llm.system": "openai", "llm.model_name": "gpt-4o-mini-2024-07-18",
        "llm.input_messages.0.message.content": SECRET, "llm.token_count.prompt": 700,
        "llm.token_count.completion": 90, "llm.token_count.prompt_details.cache_read": 300,
        "llm.token_count.prompt_details.audio": 0, "llm.token_count.completion_details.reasoning": 20,
        "output.value": json.dumps({"id": "chatcmpl-of-openinference", "choices": [{"message": SECRET}]}),
        "user.id": "ada", "session.id": "talk-1",
    },
    "openlit": {
        "telemetry.sdk.name": "openlit", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic",
        **_CLAUDE, **_CONTENT, "gen_ai.usage.input_tokens": 400, "gen_ai.usage.output_tokens": 90,
        "gen_ai.client.token.usage": 490, "gen_ai.usage.cost": 0, "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.reasoning_tokens": 20, "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.response.id": "msg_of_openlit", "user.id": "ada", "session.id": "talk-1",
    },
    "logfire": {
        "logfire.msg_template": "Chat Completion with {model}", "logfire.span_type": "span",
        "gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.provider.name": "openai", **_GPT,
        **_CONTENT, "gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.raw": json.dumps({
            "prompt_tokens": 700, "completion_tokens": 90, "prompt_tokens_details": {"cached_tokens": 300},
            "completion_tokens_details": {"reasoning_tokens": 20},
        }),
        "gen_ai.response.id": "chatcmpl-of-logfire", "user.id": "ada", "session.id": "talk-1",
    },
    "litellm": {
        "litellm.call_id": "8c6f", "gen_ai.operation.name": "chat", "gen_ai.system": "openai", **_GPT, **_CONTENT,
        "llm.request.type": "completion", "gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.total_tokens": 790, "gen_ai.cost.total_cost": 0.000425, "gen_ai.cost.input_cost": 0.0003,
        "metadata.usage_object": str({
            "prompt_tokens": 700, "completion_tokens": 90, "prompt_tokens_details": {"cached_tokens": 300},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": None},
        }),
        "metadata.user_api_key_end_user_id": "ada", "gen_ai.response.id": "chatcmpl-of-litellm",
        "hidden_params": '{"cache_key": null, "response_cost": 0.000425}',
        "session.id": "talk-1",
    },
    "litellm v2": {
        "litellm.call_id": "8c6f", "litellm.call_type": "acompletion", "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai", "gen_ai.system": "openai", **_GPT, **_CONTENT, "litellm.cost.total": 0.000425,
        "gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 90, "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.cache_creation.input_tokens": 0, "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.response.id": "chatcmpl-of-litellm-v2", "gen_ai.conversation.id": "talk-1", "user.id": "ada",
    },
    "langsmith": {
        "langsmith.span.kind": "llm", "gen_ai.operation.name": "chat", "gen_ai.system": "openai", **_GPT,
        "gen_ai.prompt": SECRET, "gen_ai.completion": SECRET, "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.output_tokens": 90, "gen_ai.usage.input_token_details": "{'audio': 0, 'cache_read': 300}",
        "gen_ai.usage.output_token_details": "{'audio': 0, 'reasoning': 20}",
        "gen_ai.response.id": "chatcmpl-of-langsmith", "langsmith.metadata.user_id": "ada",
        "langsmith.metadata.thread_id": "talk-1",
    },
    "pydantic-ai": {
        "model_request_parameters": "{}", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", **_GPT,
        **_CONTENT, "gen_ai.agent.name": "guide", "gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.details.cache_read_tokens": 300, "gen_ai.usage.details.reasoning_tokens": 20,
        "operation.cost": 0.000425, "gen_ai.response.id": "chatcmpl-of-pydantic-ai",
        "gen_ai.conversation.id": "talk-1", "enduser.id": "ada",
    },
    "anthropic itself": {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", **_CLAUDE,
        "http.response.status_code": 200, "gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.cache_read.input_tokens": 300, "gen_ai.usage.cache_write.input_tokens": 0,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 0, "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.response.id": "msg_of_anthropic_itself", "gen_ai.conversation.id": "talk-1", "user.id": "ada",
    },
    "older names": {
        "gen_ai.system": "openai", "llm.request.type": "chat", **_GPT, "gen_ai.prompt.0.content": SECRET,
        "gen_ai.usage.prompt_tokens": 700, "gen_ai.usage.completion_tokens": 90, "llm.usage.total_tokens": 790,
        "gen_ai.usage.cache_read_input_tokens": 300, "gen_ai.usage.reasoning_tokens": 20,
        "gen_ai.response.id": "chatcmpl-of-older-names", "session.id": "talk-1", "user.id": "ada",
    },
}  # fmt: skip

# Spans around calls, which may have the sum of their calls on them.
NO_CALLS = {
    "an agent": {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 9, "gen_ai.request.model": "m"},
    "a tool": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
    "a workflow": {"gen_ai.operation.name": "invoke_workflow", "gen_ai.usage.output_tokens": 9},
    "a retrieval": {"gen_ai.operation.name": "retrieval", "gen_ai.provider.name": "openai"},
    "an answer fetched again": {"gen_ai.operation.name": "fetch_response", "gen_ai.usage.input_tokens": 9},
    "OpenInference's chain": {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9},
    "OpenInference's agent": {"openinference.span.kind": "AGENT", "llm.model_name": "m", "llm.token_count.prompt": 9},
    "OpenInference's retriever": {"openinference.span.kind": "RETRIEVER"},
    "OpenLLMetry's workflow": {"traceloop.span.kind": "workflow", "gen_ai.system": "langchain"},
    "LangSmith's chain": {"langsmith.span.kind": "chain", "gen_ai.operation.name": "chain", "gen_ai.system": "x"},
    "LiteLLM's other functions": {
        "litellm.call_id": "8c6f",
        "litellm.call_type": "get_responses",
        "gen_ai.operation.name": "chat",
    },
    "an answer from LiteLLM's cache": {
        "litellm.call_id": "8c6f",
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        **_GPT,
        "gen_ai.usage.input_tokens": 9,
        "hidden_params": '{"cache_key": "0094ade1", "response_cost": 4.2e-05}',
    },
    "a new agent at Mistral": {"agent.trace.public": "", "gen_ai.operation.name": "create_agent"},
    "LiteLLM's raw request": {"llm.openai.id": "chatcmpl-1", "llm.openai.usage": "{'prompt_tokens': 9}"},
    "an HTTP request": {"http.request.method": "POST", "http.response.status_code": 200},
    "nothing at all": {},
}


def tracer_of(*processors, scope="somebody else", sampler=None):
    """A tracer of a provider that has these processors."""
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider.get_tracer(scope)


def ended(attributes, *, error=None, lasted_ms=250, events=(), tracer=None):
    """An ended span with these attributes, which a tracer made; `error` is the class name of what was raised in it."""
    span = (tracer or tracer_of()).start_span("a span", start_time=START_NS)
    span.set_attributes(attributes)
    for name, after_ms in events:
        span.add_event(name, timestamp=START_NS + after_ms * 1_000_000)
    if error is not None:
        span.add_event("exception", {"exception.type": error, "exception.message": SECRET})
        span.set_status(Status(StatusCode.ERROR, SECRET))
    span.end(START_NS + lasted_ms * 1_000_000)
    return span
