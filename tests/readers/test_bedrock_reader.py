"""Bedrock on the wire: event-stream frames, Converse, and InvokeModel of each family of models.

Sources of the fixtures: Smithy, "Amazon Event Stream Specification"; Amazon Bedrock API reference ("Converse",
"ConverseStream", "InvokeModel") and user guide ("Inference request parameters and response fields").
"""

import io
import json
import struct
import zipfile
import zlib
from base64 import b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollspan.instrumentation._readers import ANTHROPIC_MESSAGES, _aws_frames, reader_for_path
from tollspan.instrumentation._readers._bedrock import ANTHROPIC_ON_VERTEX, VERTEX_COUNTS
from tollspan.instrumentation._readers._bedrock._converse import BEDROCK_CONVERSE
from tollspan.instrumentation._readers._bedrock._invoke import BEDROCK_INVOKE

CONVERSE, CONVERSE_STREAM = "/model/amazon.nova-lite-v1%3A0/converse", "/model/amazon.nova-lite-v1%3A0/converse-stream"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1_000, 800) + b"\x08\x06\0\0\0" + bytes(2_000_000)


def frame(kind, event, **headers):
    named = {":event-type": kind, ":content-type": "application/json", ":message-type": "event", **headers}
    coded = b"".join(
        b"%c%s\x07%s%s" % (len(name), name.encode(), struct.pack(">H", len(value)), value.encode())
        for name, value in named.items()
        if value is not None
    )
    payload = json.dumps(event).encode()
    prelude = struct.pack(">II", 16 + len(coded) + len(payload), len(coded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + coded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def chunk(event):
    return frame("chunk", {"bytes": b64encode(json.dumps(event).encode()).decode(), "p": "abcdef"})


def exception(kind, message):
    return frame(
        "", {"message": message}, **{":event-type": None, ":exception-type": kind, ":message-type": "exception"}
    )


def metrics(tokens_in, tokens_out, **more):
    return {"amazon-bedrock-invocationMetrics": {"inputTokenCount": tokens_in, "outputTokenCount": tokens_out, **more}}


CONVERSED = [
    frame("messageStart", {"role": "assistant"}),
    frame("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"name": "look", "toolUseId": "t"}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"a":1}'}}, "p": "abc"}),
    frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"reasoningContent": {"text": "Hm."}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"text": "Dön"}}),
    frame("messageStop", {"stopReason": "tool_use"}),
    frame("metadata", {"usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}, "metrics": {"latencyMs": 1}}),
]
CLAUDE = [
    chunk(
        {
            "type": "message_start",
            "message": {"id": "msg_bdrk_1", "model": "claude-x", "usage": {"input_tokens": 5, "output_tokens": 1}},
        }
    ),
    chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Danube."}}),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
    chunk({"type": "message_stop", **metrics(5, 3)}),
]
STREAMS = {"converse": (BEDROCK_CONVERSE, b"".join(CONVERSED)), "claude": (BEDROCK_INVOKE, b"".join(CLAUDE))}
streams = pytest.mark.parametrize(("reader", "received"), STREAMS.values(), ids=STREAMS)


# ---- frames


def test_frames_are_read():
    """Headers and payloads come out as they went in."""
    kinds = [found.kind for found in _aws_frames.frames(b"".join(CONVERSED))]
    assert kinds[0] == "messageStart"
    assert kinds[-2:] == ["messageStop", "metadata"]
    assert json.loads(_aws_frames.frames(CONVERSED[-2])[0].payload) == {"stopReason": "tool_use"}


@given(st.integers(0, 5_000), st.integers(0, 60), st.binary(max_size=40))
def test_a_damaged_frame_takes_no_other_with_it(at, lost, junk):
    """Where bytes are lost or put in, the whole frames before and after are still found, and none is made up."""
    received = b"".join(CONVERSED)
    damaged = received[:at] + junk + received[at + lost :]
    found = [frame.payload for frame in _aws_frames.frames(damaged)]
    whole = [frame.payload for frame in _aws_frames.frames(received)]
    assert set(found) <= set(whole)
    ends = [len(b"".join(CONVERSED[: n + 1])) for n in range(len(CONVERSED))]
    untouched = [end <= at or end - len(one) >= at + lost for end, one in zip(ends, CONVERSED, strict=True)]
    assert [
        payload for payload, is_whole in zip(whole, untouched, strict=True) if is_whole and payload not in found
    ] == []


@given(st.binary(max_size=300))
@example(b":message-type\x07")
def test_garbage_is_no_frame(junk):
    """Any bytes are harmless; those that have the look of frames, and are none, tell nothing."""
    assert _aws_frames.frames(junk) == []
    assert _aws_frames.server_sent(junk) == (b"" if _aws_frames.is_framed(junk) else junk)
    for reader in (BEDROCK_CONVERSE, BEDROCK_INVOKE):
        assert reader.stream(junk).usage is None
        assert reader.response(junk).usage is None
        assert reader.is_complete(junk) is False


@pytest.mark.parametrize("before", range(6))
def test_a_text_is_found_inside_base64(before):
    """Wherever a text begins, one of its three looks stands in the base64."""
    coded = b64encode(b"x" * before + b"invocationMetrics" + b"yy")
    assert any(look in coded for look in _aws_frames.in_base64(b"invocationMetrics"))


# ---- streams


@streams
def test_a_stream_cut_anywhere(reader, received):
    """A stream cut at any byte knows its whole usage or none, and is complete only with its last event."""
    whole = reader.stream(received)
    assert whole.usage == {"tokens_in": 5, "tokens_out": 3}
    assert whole.complete
    for cut in range(len(received)):
        facts = reader.stream(received[:cut])
        assert facts.usage in (None, whole.usage)
        assert facts.complete is False
        assert reader.is_complete(received[:cut]) is False
    assert reader.is_complete(received[-700:])


@streams
def test_the_terminal_event_has_a_mark(reader, received):
    """In the chunk of the terminal event stands one of the marks that make somebody look at it."""
    last = CONVERSED[-1] if reader is BEDROCK_CONVERSE else CLAUDE[-1]
    assert any(mark in last for mark in reader.terminal_marks)


def test_what_was_said_before_a_cut():
    """Text, reasoning and the arguments of calls are counted in bytes where no usage came."""
    assert BEDROCK_CONVERSE.stream(b"".join(CONVERSED[:-1])).visible_output_bytes == len('look{"a":1}Hm.Dön'.encode())
    assert BEDROCK_INVOKE.stream(b"".join(CLAUDE[:2])).visible_output_bytes == len("Danube.")


def test_why_a_converse_stream_ended():
    """The reason stands in the event before the usage."""
    assert BEDROCK_CONVERSE.stream(b"".join(CONVERSED)).finish_reasons == ("tool_use",)


@pytest.mark.parametrize("reader", [BEDROCK_CONVERSE, BEDROCK_INVOKE])
def test_an_exception_ends_a_stream(reader):
    """An error that comes as an event gives its type and its text."""
    begun = CONVERSED[0] if reader is BEDROCK_CONVERSE else CLAUDE[0]
    facts = reader.stream(begun + exception("modelStreamErrorException", "It broke."))
    assert (facts.error_type, facts.error_message) == ("modelStreamErrorException", "It broke.")
    assert not facts.complete


def test_anthropics_reader_reads_frames():
    """Anthropic's own SDK gets the same frames on Bedrock."""
    facts = ANTHROPIC_MESSAGES.stream(b"".join(CLAUDE))
    assert facts.usage == {"tokens_in": 5, "tokens_out": 3}
    assert (facts.response_id, facts.model, facts.complete) == ("msg_bdrk_1", None, True)
    assert ANTHROPIC_MESSAGES.is_complete(b"".join(CLAUDE)[-300:])
    assert not ANTHROPIC_MESSAGES.is_complete(b"".join(CLAUDE[:-1])[-300:])
    assert any(mark in CLAUDE[-1] for mark in ANTHROPIC_MESSAGES.framed_marks)
    torn = ANTHROPIC_MESSAGES.stream(CLAUDE[0] + exception("throttlingException", "Slow down."))
    assert (torn.error_type, torn.error_message) == ("throttlingException", "Slow down.")


def test_a_blocked_prompt_of_titan():
    """A guardrail answers in one event, without metrics."""
    event = {"outputText": "Blocked.", "totalOutputTextTokenCount": 3.0, "inputTextTokenCount": 6.0}
    facts = BEDROCK_INVOKE.stream(chunk(event))
    assert (facts.usage, facts.complete) == ({"tokens_in": 6, "tokens_out": 3}, True)


def test_counts_of_llama_on_its_way_are_not_its_usage():
    """A stream cut after an event that counts what was generated so far has no known usage."""
    so_far = {"generation": "Da", "prompt_token_count": 6, "generation_token_count": 1}
    assert BEDROCK_INVOKE.stream(chunk(so_far)).usage is None
    facts = BEDROCK_INVOKE.stream(chunk(so_far) + chunk({"generation": "", **metrics(6, 10)}))
    assert facts.usage == {"tokens_in": 6, "tokens_out": 10}


def test_the_cache_stands_beside_the_input():
    """What was read from the cache, or written to it, is in no input count of Bedrock's."""
    facts = BEDROCK_INVOKE.stream(chunk(metrics(6, 10, cacheReadInputTokenCount=100, cacheWriteInputTokenCount=20)))
    assert facts.usage == {"tokens_in": 126, "tokens_out": 10, "tokens_cache_read": 100, "tokens_cache_write": 20}


# ---- answers


def answered(reader, body, **headers):
    facts = reader.response(json.dumps(body).encode())
    reader.take_headers(facts, {name.replace("_", "-"): value for name, value in headers.items()})
    return facts


COUNTED = {"x_amzn_bedrock_input_token_count": "6", "x_amzn_bedrock_output_token_count": "10"}
TEN = {"tokens_in": 6, "tokens_out": 10}


@pytest.mark.parametrize(
    ("body", "usage", "reasons"),
    [
        ({"inputTextTokenCount": 6, "results": [{"tokenCount": 10, "completionReason": "LENGTH"}]}, TEN, ("LENGTH",)),
        ({"inputTextTokenCount": 6, "results": [{"tokenCount": 4}, {"tokenCount": 6}]}, TEN, ()),
        ({"inputTextTokenCount": 6, "results": [{"tokenCount": 4}, {"tokenCount": "?"}]}, None, ()),
        ({"inputTextTokenCount": 6, "embedding": [0.1]}, {"tokens_in": 6, "tokens_out": 0}, ()),
        ({"prompt_token_count": 6, "generation_token_count": 10, "stop_reason": "stop"}, TEN, ("stop",)),
        ({"prompt_token_count": 6}, None, ()),
        ({"usage": {"inputTokens": 6, "outputTokens": 10}, "stopReason": "end_turn"}, TEN, ("end_turn",)),
        ({"usage": {"inputTokens": 6}}, None, ()),
        ({"usage": {"prompt_tokens": 6, "completion_tokens": 10}}, TEN, ()),
        ({"choices": [{"finish_reason": "stop"}]}, None, ("stop",)),
        ({"usage": {"input_tokens": 6, "output_tokens": 10}, "stop_reason": "end_turn"}, TEN, ("end_turn",)),
        ({"outputs": [{"text": "?", "stop_reason": "length"}]}, None, ("length",)),
        ({"completions": [{"finishReason": {"reason": "endoftext"}}]}, None, ("endoftext",)),
        ({"images": ["aGk=", "aGk="]}, {"images": 2}, ()),
        ({"artifacts": [{"base64": "aGk=", "finishReason": "SUCCESS"}]}, {"images": 1}, ("SUCCESS",)),
        ({"images": [{"width": 10}], "embeddings": [[0.1]]}, None, ()),
        ({}, None, ()),
    ],
)  # fmt: skip
def test_what_each_family_tells(body, usage, reasons):
    """Usage and reasons are found wherever a family has them; what is missing or no count is not known."""
    facts = BEDROCK_INVOKE.response(json.dumps(body).encode())
    assert (facts.usage, facts.finish_reasons) == (usage, reasons)


def test_the_headers_tell_where_the_body_does_not():
    """A body without usage, or with a part of it, as a guardrail leaves it, is completed by the headers."""
    for body in ({"outputs": []}, {"usage": {"inputTokens": 6}}):
        assert answered(BEDROCK_INVOKE, body, **COUNTED).usage == TEN
    assert answered(BEDROCK_INVOKE, {"usage": {"inputTokens": 1, "outputTokens": 2}}, **COUNTED).usage["tokens_in"] == 1
    assert answered(BEDROCK_INVOKE, {}, x_amzn_bedrock_input_token_count="6").usage == {"tokens_in": 6, "tokens_out": 0}
    assert answered(BEDROCK_INVOKE, {}, x_amzn_bedrock_output_token_count="6").usage is None
    assert answered(BEDROCK_INVOKE, {}, x_amzn_bedrock_input_token_count="-6").usage is None


def test_the_tier_of_an_answer():
    """The service tier, and a latency that is optimized, are told in headers or in the body."""
    assert answered(BEDROCK_INVOKE, {}, x_amzn_bedrock_service_tier="priority").service_tier == "priority"
    assert (
        answered(BEDROCK_INVOKE, {}, x_amzn_bedrock_performanceconfig_latency="optimized").service_tier == "optimized"
    )
    assert answered(BEDROCK_CONVERSE, {"serviceTier": {"type": "flex"}}).service_tier == "flex"
    assert answered(BEDROCK_CONVERSE, {"performanceConfig": {"latency": "optimized"}}).service_tier == "optimized"


@pytest.mark.parametrize("reader", [BEDROCK_CONVERSE, BEDROCK_INVOKE])
def test_an_error(reader):
    """An error's text is in its body, and its type in a header; without that it is some error."""
    facts = answered(reader, {"message": "No."}, x_amzn_errortype="ValidationException:http://internal")
    assert (facts.error_type, facts.error_message, facts.usage) == ("ValidationException", "No.", None)
    assert answered(reader, {"Message": "No."}).error_type == "_OTHER"
    assert answered(reader, {"message": "Danube.", "text": "."}).error_type is None


KEYS = (
    "usage",
    "metadata",
    "results",
    "inputTokens",
    "message",
    "images",
    "trace",
    "promptRouter",
    "cacheDetails",
    "ttl",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from((*KEYS, "choices")), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_any_json(value):
    """Any JSON, in an answer, a chunk or an event, is harmless."""
    for reader in (BEDROCK_CONVERSE, BEDROCK_INVOKE):
        reader.response(json.dumps(value).encode())
        for kind in ("metadata", "messageStop", "contentBlockDelta", "chunk"):
            reader.stream(frame(kind, value) + chunk(value))
        if isinstance(value, dict):
            for path in (CONVERSE, "/model/x/invoke"):
                facts = reader.request(value, path)
                assert facts.input_tokens_bound > 0
                reader.with_output_limit(value, 5)


# ---- requests


def test_a_request_to_converse():
    """Model, limit, stream and attributes come from path and body."""
    inference = {"maxTokens": 50, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]}
    facts = BEDROCK_CONVERSE.request({"messages": [], "inferenceConfig": inference}, CONVERSE_STREAM)
    assert (facts.model, facts.stream, facts.max_output_tokens) == ("amazon.nova-lite-v1:0", True, 50)
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.stream": True,
    }
    assert not BEDROCK_CONVERSE.request({"messages": []}, CONVERSE).stream


def test_a_limit_in_the_models_own_words():
    """The larger of two limits counts for what is held, and both are lowered."""
    body = {"inferenceConfig": {"maxTokens": 50}, "additionalModelRequestFields": {"max_tokens": 900, "top_k": 3}}
    assert BEDROCK_CONVERSE.request(body, CONVERSE).max_output_tokens == 900
    assert BEDROCK_CONVERSE.with_output_limit(body, 40) == {
        "inferenceConfig": {"maxTokens": 40},
        "additionalModelRequestFields": {"max_tokens": 40, "top_k": 3},
    }


def test_titan_may_give_one_more():
    """What Titan is seen to give above its limit is held for, and left out of a limit."""
    body = {"inputText": "?", "textGenerationConfig": {"maxTokenCount": 50, "topP": 1}}
    facts = BEDROCK_INVOKE.request(body, "/model/amazon.titan-tg1-large/invoke")
    assert facts.max_output_tokens == 51
    limited = BEDROCK_INVOKE.with_output_limit({**body, "modelId": "amazon.titan-tg1-large"}, 40)
    assert limited == {"textGenerationConfig": {"maxTokenCount": 39, "topP": 1}}


def blocks(*content, model=CONVERSE, **more):
    return BEDROCK_CONVERSE.request({"messages": [{"role": "user", "content": list(content)}], **more}, model)


# The header of an MP4 film of 60 seconds.
MINUTE = (
    b"\0\0\0\x6cmoov\0\0\0\x6cmvhd" + bytes(12) + (1_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + bytes(80)
)


@pytest.mark.parametrize("data", [PNG, b64encode(PNG).decode()], ids=["bytes", "base64"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_image_counts_what_its_pixels_do(data, nested):
    """Two megabytes of image are a few thousand tokens, not millions; also in the result of a tool."""
    image = {"image": {"format": "png", "source": {"bytes": data}}}
    block = {"toolResult": {"toolUseId": "t", "content": [image]}} if nested else image
    facts = blocks(block)
    assert 5_000 < facts.input_tokens_bound < 6_000
    assert facts.unbounded is None
    plain = blocks({"text": "x"})
    assert plain.input_tokens_bound < 300


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://x"}}}}, "image in S3"),
        ({"image": {"format": "png", "source": {"bytes": b"?"}}}, "image of unknown size"),
        ({"document": {"format": "pdf", "name": "d", "source": {"s3Location": {"uri": "s3://x"}}}}, "document in S3"),
        ({"document": {"format": "docx", "name": "d", "source": {"bytes": b"?"}}}, "document of unknown size"),
        ({"audio": {"format": "mp3", "source": {"s3Location": {"uri": "s3://x"}}}}, "audio of unknown size"),
        ({"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://x"}}}}, "video"),
    ],
)
def test_media_without_a_bound(block, reason):
    """What is elsewhere, or of no known size, has no bound, and says so."""
    assert blocks(block, model="/model/mistral.pixtral/converse").unbounded == reason


def test_media_with_a_bound():
    """Documents count their bytes, packed ones those of what is in them; sound and Nova's video a bounded sum."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", "x" * 300_000)
    assert packed.tell() < 10_000
    for kind, source, least, most in (
        ({"document": {"format": "pdf"}}, b"%PDF" + bytes(10_000), 10_000, 20_000),
        ({"document": {"format": "docx"}}, packed.getvalue(), 300_000, 310_000),
        ({"audio": {"format": "mp3"}}, bytes(80_000), 1_000, 3_000),
        ({"video": {"format": "mp4"}}, bytes(1_000_000), 276_480, 280_000),
        ({"video": {"format": "mp4"}}, MINUTE, 60 * 288, 62 * 288 + 500),
    ):
        ((name, block),) = kind.items()
        for data in (source, b64encode(source).decode()):
            facts = blocks({name: {**block, "source": {"bytes": data}}})
            assert least <= facts.input_tokens_bound <= most
            assert facts.unbounded is None
    text = blocks({"document": {"format": "txt", "name": "d", "source": {"text": "y" * 9_000}}})
    assert 9_000 < text.input_tokens_bound < 18_000


@pytest.mark.parametrize(
    ("more", "model", "reason"),
    [
        (
            {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
            CONVERSE,
            "hosted tool nova_grounding",
        ),
        ({}, "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt%2FABC/converse", "prompt kept by the server"),
    ],
)
def test_requests_without_a_bound(more, model, reason):
    """Hosted tools and prompts that the server keeps have no bound."""
    assert blocks({"text": "?"}, model=model, **more).unbounded == reason


def test_tools_of_the_clients_own():
    """Tools are walked, and have a sum for what the vendor adds around them."""
    tool = {"toolSpec": {"name": "t", "description": "d" * 1_000, "inputSchema": {"json": {"type": "object"}}}}
    facts = blocks({"text": "?"}, toolConfig={"tools": [tool, {"cachePoint": {"type": "default"}}]})
    assert 2_536 < facts.input_tokens_bound < 3_000
    assert facts.unbounded is None


@pytest.mark.parametrize(
    ("model", "body", "operation", "limit", "limitable"),
    [
        ("us.anthropic.claude-x", {"anthropic_version": "v", "messages": [], "max_tokens": 9}, "chat", 9, True),
        ("amazon.nova-pro-v1:0", {"messages": [], "inferenceConfig": {"max_new_tokens": 9}}, "chat", 9, True),
        ("arn:aws:bedrock:::x/y", {"messages": [], "max_tokens": 9}, "chat", 9, True),
        ("arn:aws:bedrock:::x/y", {"messages": []}, "chat", None, False),
        ("cohere.command-r-v1:0", {"message": "?"}, "chat", None, True),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": "?"}, "text_completion", None, True),
        ("arn:aws:bedrock:::x/y", {"inputText": "?", "maxTokens": 9}, "text_completion", 9, True),
        ("arn:aws:bedrock:::x/y", {"inputText": "?"}, "text_completion", None, False),
        ("amazon.titan-embed-text-v2:0", {"inputText": "?"}, "embeddings", 0, False),
        ("arn:aws:bedrock:::x/y", {"inputText": "?", "normalize": True}, "embeddings", 0, False),
        ("cohere.embed-v4:0", {"texts": ["?"], "input_type": "search_query"}, "embeddings", 0, False),
        ("amazon.nova-2-multimodal-embeddings-v1:0", {"taskType": "SINGLE_EMBEDDING"}, "embeddings", 0, False),
        ("amazon.rerank-v1:0", {"query": "?", "documents": ["?"]}, "rerank", 0, False),
        ("amazon.nova-canvas-v1:0", {"taskType": "TEXT_IMAGE"}, "generate_content", 0, False),
        ("stability.stable-image-core-v1:1", {"prompt": "?"}, "generate_content", 0, False),
    ],
)  # fmt: skip
def test_what_a_request_asks_for(model, body, operation, limit, limitable):
    """Operation and limit are told by the request, and by the model only where that is not enough."""
    facts = BEDROCK_INVOKE.request({**body, "modelId": model}, f"/model/{model}/invoke")
    assert (facts.operation, facts.max_output_tokens, facts.limitable) == (operation, limit, limitable)
    assert (facts.model, facts.stream) == (model, False)


def test_choices_of_a_request():
    """Cohere bills a prompt once for each generation, and each has an output of its own."""
    one = BEDROCK_INVOKE.request({"prompt": "x" * 1_000, "max_tokens": 10}, "/model/cohere.command/invoke")
    body = {"prompt": "x" * 1_000, "max_tokens": 10, "num_generations": 3}
    three = BEDROCK_INVOKE.request(body, "/model/cohere.command/invoke")
    assert (one.choices, three.choices) == (1, 3)
    assert three.input_tokens_bound > 2.9 * one.input_tokens_bound


def test_an_image_to_embed_has_a_price_of_its_own():
    """Titan bills an image apart from the text, and only the request tells that there is one."""
    body = {"inputText": "?", "inputImage": b64encode(PNG).decode()}
    facts = BEDROCK_INVOKE.request(body, "/model/amazon.titan-embed-image-v1/invoke")
    assert facts.find_units() == ("images",)
    assert facts.input_tokens_bound < 300
    answer = BEDROCK_INVOKE.response(b'{"embedding":[0.1],"inputTextTokenCount":3}')
    assert facts.usage_of(answer) == {"tokens_in": 3, "tokens_out": 0, "images": 1}


# ---- paths


@pytest.mark.parametrize(
    ("path", "reader"),
    [
        (CONVERSE, BEDROCK_CONVERSE),
        (CONVERSE_STREAM, BEDROCK_CONVERSE),
        ("/model/x/invoke", BEDROCK_INVOKE),
        ("/model/x/invoke-with-response-stream", BEDROCK_INVOKE),
        ("/async-invoke", BEDROCK_INVOKE),
        ("/model/x/count-tokens", None),
        ("/guardrail/x/version/1/apply", None),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:rawPredict", ANTHROPIC_ON_VERTEX),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict", ANTHROPIC_ON_VERTEX),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", VERTEX_COUNTS),
    ],
)
def test_who_reads_a_path(path, reader):
    """Each endpoint has its reader, and what is no call of a model has none, or one that nothing asks for."""
    assert reader_for_path(path) is reader


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/model/us.anthropic.claude-x-v1%3A0/invoke", "us.anthropic.claude-x-v1:0", False),
        ("/model/arn:aws:bedrock:us-east-1:1:profile/us.x/invoke", "arn:aws:bedrock:us-east-1:1:profile/us.x", False),
        ("/model/x/invoke-with-response-stream", "x", True),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x@1:rawPredict", "claude-x@1", False),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x@1:streamRawPredict", "claude-x@1", True),
        ("/v1/messages", None, False),
    ],
)  # fmt: skip
def test_the_path_tells_what_the_body_does_not(path, model, stream):
    """On the clouds, model and stream of Anthropic's messages stand in the path."""
    facts = ANTHROPIC_MESSAGES.request({"messages": [], "anthropic_version": "v"}, path)
    assert (facts.model, facts.stream) == (model, stream)
    assert ANTHROPIC_MESSAGES.request({"messages": [], "model": "m"}, path).model == "m"
