"""The dialects. A row names the attributes of its dialect, the best first; what it leaves out is as in the conventions.

Sources: the OpenTelemetry GenAI conventions (status Development) with their older names, the semantic conventions of
OpenInference, and the spans that the packages named here emit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

Names = tuple[str, ...]

# Values of an operation attribute that are one call to a model, and our name for it. Any other value is none.
_OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "responses": "chat",
    "aresponses": "chat",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
    "completion": "text_completion",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    "embedding": "embeddings",
    "aembedding": "embeddings",
    "image": "image_generation",
    "image_generation": "image_generation",
    "aimage_generation": "image_generation",
    "image_edit": "image_generation",
    "speech_to_text": "transcription",
    "transcription": "transcription",
    "atranscription": "transcription",
    "/audio/transcriptions": "transcription",
    "/audio/translations": "transcription",
    "audio": "text_to_speech",
    "text_to_speech": "text_to_speech",
    "speech": "text_to_speech",
    "aspeech": "text_to_speech",
    "/audio/speech": "text_to_speech",
    "rerank": "rerank",
    "arerank": "rerank",
}

# LiteLLM names its own functions; what else it has a function for is no call to a model, or is billed in another way.
_LITELLM_OPERATIONS: Mapping[str, str] = {
    **_OPERATIONS,
    "completion": "chat",
    "acompletion": "chat",
    "completion_with_retries": "chat",
    "acompletion_with_retries": "chat",
    "anthropic_messages": "chat",
    "aanthropic_messages": "chat",
    "text_completion": "text_completion",
    "agenerate_content": "generate_content",
    "generate_content_stream": "generate_content",
    "agenerate_content_stream": "generate_content",
    "aimage_edit": "image_generation",
}

# Mistral's SDK, and its requests before 2.0. One to an agent that the provider keeps is a call, whatever it is called.
_MISTRAL_OPERATIONS: Mapping[str, str] = {
    **_OPERATIONS,
    "invoke_agent": "chat",
    "agents_completion_v1_agents_completions_post": "chat",
    "chat_completion_v1_chat_completions_post": "chat",
    "embeddings_v1_embeddings_post": "embeddings",
    "fim_completion_v1_fim_completions_post": "text_completion",
    "ocr_v1_ocr_post": "generate_content",
}

_GEMINI = frozenset({"gemini", "gcp.gemini", "gcp.gen_ai", "gcp.vertex_ai", "google", "vertex_ai"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one instrumentation writes a call on its span.

    `marker` is an attribute that only its spans have, with the value `marked` if that is given. A span of it is a call
    to a model where its `operation` is one of `operations`, or where it names none but a model and usage. `documents`
    hold the provider's usage, or its answer with it, as JSON or as Python writes a dict. `total`: tokens of both
    directions. Seconds: `ttft_s`, and `lasted_s` of a span that is written after what it tells of.

    `answered`: attributes of which each answered call has one; one without failed. `own_ids` match the ids that the
    instrumentation makes up for answers: nobody else knows them. `from_cache`: an attribute, and the key in its JSON,
    that are set where the instrumentation itself had the answer, so that nothing was called.
    """

    name: str
    marker: str
    marked: str | None = None
    operation: Names = ("gen_ai.operation.name", "llm.request.type")
    operations: Mapping[str, str]
    provider: Names = ("gen_ai.provider.name", "gen_ai.system")
    request_model: Names = ("gen_ai.request.model",)
    response_model: Names = ("gen_ai.response.model",)
    response_id: Names = ("gen_ai.response.id",)
    service_tier: Names = (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
        "gen_ai.response.service_tier",
    )
    usage: Mapping[str, Names]
    total: Names = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens")
    documents: Names = ()
    cost: Names = ("gen_ai.usage.cost.amount", "operation.cost")
    currency: Names = ("gen_ai.usage.cost.currency",)
    user: Names = ("user.id", "enduser.id", "gen_ai.user.id")
    session: Names = ("session.id", "gen_ai.conversation.id")
    ttft_s: Names = ("gen_ai.response.time_to_first_chunk",)
    first_token: Names = ()
    lasted_s: Names = ()
    http_status: Names = ("http.response.status_code", "http.status_code")
    error_type: Names = ("error.type",)
    input_without_cache: frozenset[str] = frozenset()
    output_without_reasoning: frozenset[str] = frozenset()
    answer_follows: tuple[str, str] | None = None
    answered: Names = ()
    own_ids: re.Pattern[str] | None = None
    from_cache: tuple[str, str] | None = None


_OPENTELEMETRY = Dialect(
    name="opentelemetry",
    marker="gen_ai.operation.name",
    operations=_OPERATIONS,
    usage={
        "tokens_in": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
        "tokens_out": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens"),
        "tokens_cache_read": (
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.details.cache_read_tokens",
        ),
        "tokens_cache_write": (
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
        ),
        "tokens_cache_write_5m": ("anthropic.usage.cache_creation.ephemeral_5m_input_tokens",),
        "tokens_cache_write_1h": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
        "tokens_reasoning": (
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "gen_ai.usage.details.reasoning_tokens",
        ),
        "tokens_audio_in": ("gen_ai.usage.audio.input_tokens",),
        "tokens_audio_out": ("gen_ai.usage.audio.output_tokens",),
        "tokens_image_in": ("gen_ai.usage.image.input_tokens",),
        "tokens_image_out": ("gen_ai.usage.image.output_tokens",),
    },
)

_OPENINFERENCE = replace(
    _OPENTELEMETRY,
    name="openinference",
    marker="openinference.span.kind",
    operation=("openinference.span.kind",),
    operations={"LLM": "chat", "EMBEDDING": "embeddings"},
    provider=("llm.provider", "llm.system"),
    request_model=("llm.request.model_name", "llm.model_name", "embedding.model_name"),
    response_model=("llm.response.model_name", "llm.model_name", "embedding.model_name"),
    response_id=("llm.response.id", "gen_ai.response.id"),
    usage={
        "tokens_in": ("llm.token_count.prompt",),
        "tokens_out": ("llm.token_count.completion",),
        "tokens_cache_read": ("llm.token_count.prompt_details.cache_read",),
        "tokens_cache_write": ("llm.token_count.prompt_details.cache_write",),
        "tokens_reasoning": ("llm.token_count.completion_details.reasoning",),
        "tokens_audio_in": ("llm.token_count.prompt_details.audio",),
        "tokens_audio_out": ("llm.token_count.completion_details.audio",),
    },
    total=(),
    # The answer as JSON. Only its id and its usage are read: no attribute has them.
    documents=("output.value",),
    cost=("llm.cost.total",),
    session=("session.id",),
    first_token=("First Token Stream Event",),
)

_OPENLLMETRY = replace(
    _OPENTELEMETRY,
    name="openllmetry",
    marker="gen_ai.is_streaming",
    user=("traceloop.association.properties.user_id", *_OPENTELEMETRY.user),
    session=("traceloop.association.properties.session_id", *_OPENTELEMETRY.session),
    first_token=("gen_ai.content.completion.chunk", "llm.content.completion.chunk"),
)

DIALECTS: tuple[Dialect, ...] = (
    _OPENINFERENCE,
    replace(
        _OPENTELEMETRY,
        name="langsmith",
        marker="langsmith.span.kind",
        documents=(
            "langsmith.metadata.usage_metadata",
            "gen_ai.usage.input_token_details",
            "gen_ai.usage.output_token_details",
        ),
        user=("langsmith.metadata.user_id", *_OPENTELEMETRY.user),
        session=("langsmith.metadata.session_id", "langsmith.metadata.thread_id", *_OPENTELEMETRY.session),
    ),
    replace(
        _OPENTELEMETRY,
        name="litellm",
        marker="litellm.call_id",
        operation=("litellm.call_type", "llm.request.type", "gen_ai.operation.name"),
        operations=_LITELLM_OPERATIONS,
        documents=("metadata.usage_object",),
        cost=("gen_ai.cost.total_cost", "litellm.cost.total", *_OPENTELEMETRY.cost),
        user=("metadata.user_api_key_end_user_id", "metadata.user_api_key_user_id", *_OPENTELEMETRY.user),
        # A random UUID, and the provider's id of a response with more in it, as base64 of `litellm:`.
        own_ids=re.compile(r"(?:chatcmpl-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|resp_bGl0ZWxsbTp.*"),
        from_cache=("hidden_params", "cache_key"),
    ),
    replace(
        _OPENTELEMETRY,
        name="openlit",
        marker="telemetry.sdk.name",
        marked="openlit",
        cost=("gen_ai.usage.cost", *_OPENTELEMETRY.cost),
        # Its total is the sum of what it counted, so it does not tell what was left out.
        total=(),
        # On answers that are not streamed it is the whole latency.
        ttft_s=(),
        input_without_cache=frozenset({"anthropic"}),
        output_without_reasoning=_GEMINI,
    ),
    replace(_OPENTELEMETRY, name="pydantic-ai", marker="model_request_parameters"),
    replace(
        _OPENTELEMETRY,
        name="logfire",
        marker="logfire.msg_template",
        operation=("gen_ai.operation.name", "url"),
        documents=("gen_ai.usage.raw",),
        lasted_s=("duration",),
        answer_follows=("logfire.span_type", "span"),
    ),
    replace(
        _OPENTELEMETRY,
        name="mistralai",
        marker="agent.trace.public",
        operation=("gen_ai.operation.name", "mistral_ai.operation.id"),
        operations=_MISTRAL_OPERATIONS,
        usage={**_OPENTELEMETRY.usage, "document_pages": ("mistral_ai.ocr.usage.pages_processed",)},
        # Of a failure it tells no more, unless the body is the usual one of an error.
        answered=("http.response.status_code",),
    ),
    _OPENLLMETRY,
    replace(_OPENLLMETRY, marker="traceloop.association.properties.ls_provider"),
    replace(_OPENLLMETRY, marker="llm.request.type"),
    _OPENTELEMETRY,  # the spans that Anthropic's SDK writes itself speak it, too
    replace(_OPENTELEMETRY, marker="gen_ai.provider.name"),
    replace(_OPENTELEMETRY, marker="gen_ai.system"),
)
"""In the order in which they are tried: a span may speak more than one, and the most telling one is read."""

PROVIDERS: Mapping[str, str] = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""What instrumentations call a provider, in lower case, and its name in the conventions where that is another."""

DOCUMENT_USAGE: Mapping[str, Names] = {
    "tokens_in": ("prompt_tokens", "input_tokens"),
    "tokens_out": ("completion_tokens", "output_tokens"),
    "tokens_cache_read": (
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "cache_read_input_tokens",
        "input_token_details.cache_read",
        "cache_read",
    ),
    "tokens_cache_write": (
        "cache_creation_input_tokens",
        "prompt_tokens_details.cache_write_tokens",
        "input_token_details.cache_creation",
        "cache_creation",
    ),
    "tokens_cache_write_5m": ("cache_creation.ephemeral_5m_input_tokens",),
    "tokens_cache_write_1h": ("cache_creation.ephemeral_1h_input_tokens",),
    "tokens_reasoning": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens",
        "output_token_details.reasoning",
        "reasoning",
    ),
    "tokens_audio_in": ("prompt_tokens_details.audio_tokens", "input_tokens_details.audio_tokens"),
    "tokens_audio_out": ("completion_tokens_details.audio_tokens", "output_tokens_details.audio_tokens"),
    "tokens_image_in": ("input_tokens_details.image_tokens",),
    "tokens_image_out": ("output_tokens_details.image_tokens",),
    "audio_seconds": ("seconds",),
    "web_searches": ("server_tool_use.web_search_requests",),
}
"""Usage as the providers write it, by the path of its keys."""

CACHE_BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Where a provider's own usage has one of these, its input tokens are those that no cache had a part in."""
