"""Requests, answers and streams of all kinds of vendors, small, for whoever has to take all of them.

Written by hand after the vendors' references: OpenAI, Anthropic, Gemini, Amazon Bedrock, Cohere, Ollama, DashScope,
Voyage, Replicate, watsonx.
"""

import binascii
import json
import struct

OPENAI_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
    "cost": 0.1,
}
CHAT = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "h\u00e9llo"}, "finish_reason": "stop"}],
    "usage": OPENAI_USAGE,
}
RESPONSE = {
    "id": "resp_1",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "incomplete_details": {"reason": None},
    "output": [{"type": "web_search_call", "action": {"type": "search"}}],
    "usage": {"input_tokens": 9, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}},
}
MESSAGE = {
    "id": "msg_1",
    "model": "m",
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 9,
        "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
        "output_tokens": 7,
        "iterations": [{"type": "compaction", "input_tokens": 5, "output_tokens": 1}],
        "server_tool_use": {"web_search_requests": 1},
    },
}
GEMINI = {
    "responseId": "r1",
    "modelVersion": "m",
    "candidates": [{"content": {"parts": [{"text": "h\u00e9llo"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 9,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 2,
        "cachedContentTokenCount": 4,
        "toolUsePromptTokenCount": 1,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
        "totalTokenCount": 17,
    },
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "h\u00e9llo"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 9, "outputTokens": 7, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 3},
}
COHERE = {
    "id": "c1",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "h\u00e9llo"}]},
    "finish_reason": "COMPLETE",
    "usage": {"billed_units": {"input_tokens": 9, "output_tokens": 7}, "tokens": {"input_tokens": 80}},
}
OLLAMA = {
    "model": "m",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {"role": "assistant", "content": "h\u00e9llo"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 9,
    "eval_count": 7,
}
DASHSCOPE = {
    "request_id": "q1",
    "output": {"choices": [{"message": {"content": "h\u00e9llo"}, "finish_reason": "stop"}], "task_id": "t1"},
    "usage": {"input_tokens": 9, "output_tokens": 7, "image_count": 1, "characters": 5},
}
ANSWERS = {
    "openai chat": CHAT,
    "openai responses": RESPONSE,
    "openai images": {"created": 1, "data": [{"b64_json": "aGk="}], "usage": RESPONSE["usage"]},
    "openai transcription": {"text": "h\u00e9llo", "duration": 3.5, "usage": {"type": "duration", "seconds": 4}},
    "openai video": {"id": "video_1", "object": "video", "status": "completed", "seconds": "8", "model": "m"},
    "embeddings": {"model": "m", "data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
    "anthropic": MESSAGE,
    "anthropic count": {"input_tokens": 9},
    "gemini": GEMINI,
    "gemini images": {"predictions": [{"bytesBase64Encoded": "aGk=", "mimeType": "image/png"}]},
    "converse": CONVERSE,
    "titan": {"inputTextTokenCount": 9, "results": [{"tokenCount": 7, "completionReason": "FINISH"}]},
    "llama": {"generation": "h\u00e9llo", "prompt_token_count": 9, "generation_token_count": 7, "stop_reason": "stop"},
    "cohere": COHERE,
    "cohere rerank": {"results": [{"index": 0}], "meta": {"billed_units": {"search_units": 1}}},
    "ollama": OLLAMA,
    "dashscope": DASHSCOPE,
    "mistral ocr": {"model": "m", "pages": [{}], "usage_info": {"pages_processed": 3, "doc_size_bytes": 10}},
    "replicate": {"id": "p1", "model": "m", "status": "succeeded", "output": ["x"], "metrics": {"predict_time": 1.5}},
    "watsonx": {"model_id": "m", "results": [{"generated_text": "x", "input_token_count": 9}]},
    "error": {"error": {"type": "invalid", "message": "no", "code": 400, "status": "INVALID_ARGUMENT"}},
}


def sse(*events, named=False):
    """Server-sent events."""
    name = b"event: %s\n" if named else b""
    return b"".join(
        (name % event["type"].encode() if named else b"") + b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    )


def frame(kind, payload):
    """One frame of Amazon's event streams: two lengths, their checksum, headers, payload, checksum of all."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in (
            (b":event-type", kind),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))


def _lines(*events):
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


_DELTA = {"index": 0, "delta": {"content": "h\u00e9llo \u5b57"}}
STREAMS = {
    "openai chat": sse(
        CHAT | {"choices": [_DELTA], "usage": None},
        CHAT | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
        CHAT | {"choices": [], "usage": OPENAI_USAGE},
    )
    + b"data: [DONE]\n\n",
    "openai responses": sse(
        {"type": "response.created", "response": RESPONSE | {"usage": None, "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "h\u00e9llo \u5b57"},
        {"type": "response.completed", "response": RESPONSE},
        named=True,
    ),
    "openai images": sse(
        {"type": "image_generation.partial_image", "b64_json": "aGVsbG8=", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "aGVsbG8=", "usage": RESPONSE["usage"]},
    ),
    "anthropic": sse(
        {"type": "message_start", "message": MESSAGE | {"usage": MESSAGE["usage"] | {"output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "h\u00e9llo \u5b57"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
        named=True,
    ),
    "gemini": sse(GEMINI | {"usageMetadata": {"promptTokenCount": 9}}, GEMINI),
    "gemini, a list": json.dumps([GEMINI, GEMINI]).encode(),
    "gemini interactions": sse(
        {"event_type": "interaction.start", "interaction": {"id": "i1"}},
        {"event_type": "interaction.complete", "interaction": {"id": "i1", "usage": {"total_tokens": 9}}},
    ),
    "converse": frame(b"contentBlockDelta", json.dumps({"delta": {"text": "h\u00e9llo"}}).encode())
    + frame(b"messageStop", b'{"stopReason":"end_turn"}')
    + frame(b"metadata", json.dumps({"usage": CONVERSE["usage"]}).encode()),
    "invoke": frame(
        b"chunk", json.dumps({"bytes": binascii.b2a_base64(json.dumps(MESSAGE).encode()).decode()}).encode()
    ),
    "cohere": sse(
        {"type": "message-start", "id": "c1"},
        {"type": "content-delta", "delta": {"message": {"content": {"text": "h\u00e9llo"}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE["usage"]}},
        named=True,
    ),
    "ollama": _lines(OLLAMA | {"done": False, "eval_count": None}, OLLAMA),
    "dashscope": sse(DASHSCOPE | {"usage": {"input_tokens": 9, "output_tokens": 1}}, DASHSCOPE),
    "audio": b"ID3\x04\x00\x00" + bytes(range(256)),
}
WHOLE = {name: json.dumps(answer).encode() for name, answer in ANSWERS.items()}

FIELDS = [
    *("model", "messages", "input", "system", "tools", "stream", "n", "max_tokens", "max_completion_tokens", "stop"),
    *("max_output_tokens", "seed", "temperature", "top_p", "extra_body", "stream_options", "thinking", "reasoning"),
    *("context_management", "service_tier", "prompt", "best_of", "dimensions", "size", "quality", "seconds", "file"),
    *("contents", "generationConfig", "systemInstruction", "requests", "instances", "parameters", "cachedContent"),
    *("agent", "agent_config", "inferenceConfig", "toolConfig", "anthropic_version", "textGenerationConfig"),
    *("inputText", "max_gen_len", "modelId", "modelInput", "guardrailConfig", "message", "chat_history", "preamble"),
    *("query", "documents", "texts", "images", "inputs", "options", "think", "keep_alive", "truncate", "text", "voice"),
    *("document", "pages", "completion_args", "connectors", "version", "model_id", "project_id", "suffix", "data"),
]
INNER = [
    *("type", "role", "content", "text", "parts", "image_url", "url", "file", "source", "data", "file_data", "id"),
    *(
        "maxOutputTokens",
        "candidateCount",
        "thinkingConfig",
        "thinkingBudget",
        "maxTokens",
        "max_tokens",
        "num_predict",
    ),
    *("maxTokenCount", "max_new_tokens", "sampleCount", "inlineData", "fileData", "mimeType", "fileUri", "input"),
    *("prompt", "tools", "image", "format", "bytes", "function", "parameters", "budget_tokens", "max_output_tokens"),
    *("input_audio", "video_url", "images", "n", "messages", "model", "duration", "size", "durationSeconds"),
]
TYPES = [
    *("text", "image", "image_url", "input_image", "input_audio", "input_file", "file", "document", "video_url"),
    *("tool_use", "tool_result", "function", "web_search_20250305", "reasoning", "item_reference", "thinking"),
]
