"""boto3 and aiobotocore, against the wire format of `bedrock-runtime` (Amazon Bedrock API reference and user guide)."""

import asyncio
import gc
import io
import json
import struct
import zlib
from base64 import b64encode
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache, partial

import pytest
from contract import *  # noqa: F403
from contract import Case, driven
from wire_server import Reply, cut

from tollspan.budget import BudgetExceeded, budget
from tollspan.instrumentation import uncovered

botocore_session = pytest.importorskip("botocore.session", reason="botocore is not installed")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError  # noqa: E402

try:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session as get_aio_session
except ImportError:
    AioConfig = get_aio_session = None

KEYS = {"region_name": "us-east-1", "aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
SAID = [{"role": "user", "content": [{"text": "One river."}]}]
NOVA = "amazon.nova-micro-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
REFUSAL = Reply(
    {"message": "The provided model identifier is invalid."},
    status=400,
    headers={"x-amzn-errortype": "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"},
)
COUNTS = {"x-amzn-bedrock-input-token-count": "6", "x-amzn-bedrock-output-token-count": "10"}


def frame(kind, event, **headers):
    """One event as Amazon's event streams have it (Smithy, "Amazon Event Stream Specification")."""
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
    headers = {":event-type": None, ":exception-type": kind, ":message-type": "exception"}
    return frame("", {"message": message}, **headers)


def streamed(*frames):
    return Reply(chunks=frames, content_type="application/vnd.amazon.eventstream")


def metrics(tokens_in, tokens_out, **more):
    return {
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": tokens_in,
            "outputTokenCount": tokens_out,
            "invocationLatency": 200,
            "firstByteLatency": 60,
            **more,
        }
    }


CONVERSED = Reply(
    {
        "metrics": {"latencyMs": 404},
        "output": {"message": {"role": "assistant", "content": [{"text": "Danube."}]}},
        "stopReason": "end_turn",
        "usage": {
            "inputTokens": 22,
            "outputTokens": 13,
            "totalTokens": 2535,
            "cacheReadInputTokens": 500,
            "cacheReadInputTokenCount": 500,
            "cacheWriteInputTokens": 2000,
            "cacheWriteInputTokenCount": 2000,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 500}, {"ttl": "5m", "inputTokens": 1500}],
            "serverToolUsage": {},
        },
    }
)
CACHED = {
    "tokens_in": 2522,
    "tokens_out": 13,
    "tokens_cache_read": 500,
    "tokens_cache_write": 2000,
    "tokens_cache_write_5m": 1500,
    "tokens_cache_write_1h": 500,
}
CONVERSE_STREAM = streamed(
    frame("messageStart", {"role": "assistant", "p": "ab"}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Dan"}, "p": "abc"}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "ube."}, "p": "abcd"}),
    frame("contentBlockStop", {"contentBlockIndex": 0}),
    frame("messageStop", {"stopReason": "end_turn"}),
    frame("metadata", {"metrics": {"latencyMs": 9}, "usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}}),
)
CLAUDE_STREAM = streamed(
    chunk(
        {
            "type": "message_start",
            "message": {
                "id": "msg_bdrk_1",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": "claude-sonnet-4-5-20250929",
                "usage": {"input_tokens": 21, "cache_read_input_tokens": 100, "output_tokens": 1},
            },
        }
    ),
    chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Danube."}}),
    chunk({"type": "content_block_stop", "index": 0}),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 22}}),
    chunk({"type": "message_stop", **metrics(21, 22, cacheReadInputTokenCount=100)}),
)
CLAUDE_ANSWER = {
    "id": "msg_bdrk_2",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Danube."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 30, "output_tokens": 5, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 0},
}
CLAUDE_BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "River?"}],
}


# The classes of a service's exceptions belong to a session.
session = lru_cache(botocore_session.get_session)
aio_session = lru_cache(get_aio_session or botocore_session.get_session)


def configured(maker, url, *, attempts=1, mode="standard"):
    config = maker(retries={"total_max_attempts": attempts, "mode": mode}, connect_timeout=5, read_timeout=20)
    return {"endpoint_url": url, "config": config, **KEYS}


def blocking(url, **how):
    return session().create_client("bedrock-runtime", **configured(Config, url, **how))


class Waiting:
    """A client of aiobotocore that is made with its first call."""

    def __init__(self, url, **how):
        self._made = aio_session().create_client("bedrock-runtime", **configured(AioConfig, url, **how))
        self._stack = AsyncExitStack()
        self._client = None

    async def call(self, operation, asked, take):
        if self._client is None:
            self._client = await self._stack.enter_async_context(self._made)
        answer = await getattr(self._client, operation)(**asked)
        return await answer["body"].read() if take == "read" else answer[take] if take else without_date(answer)

    async def aclose(self):
        await self._stack.aclose()


def without_date(answer):
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def asking(operation, asked, take, *, asynchronous):
    """Call an operation, and take of its answer what is read, if anything."""

    def call(client):
        answer = getattr(client, operation)(**asked)
        return answer["body"].read() if take == "read" else answer[take] if take else without_date(answer)

    return (lambda client: client.call(operation, asked, take)) if asynchronous else call


TEN = {"tokens_in": 6, "tokens_out": 10}
THREE = {"tokens_in": 3, "tokens_out": 0}
TEXT = {"operation": "text_completion"}
EMBEDDED = {"operation": "embeddings"}
PICTURES = {"operation": "generate_content", "bounded": False}
NO_PRICE = {"bounded": False}
# A cut body whose headers tell the counts is billed by them: see `test_a_cut_answer_whose_headers_tell`.
IN_HEADERS = {"cuttable": False}

NOVA_BODY = {"schemaVersion": "messages-v1", "messages": SAID, "inferenceConfig": {"maxTokens": 10}}
NOVA_USAGE = {"inputTokens": 6, "outputTokens": 10, "totalTokens": 16, "cacheReadInputTokenCount": 0}
NOVA_ANSWER = {
    "output": {"message": {"content": [{"text": "Danube."}]}},
    "stopReason": "max_tokens",
    "usage": NOVA_USAGE,
}
NOVA_STREAM = streamed(
    chunk({"messageStart": {"role": "assistant"}}),
    chunk({"contentBlockDelta": {"delta": {"text": "Danube."}, "contentBlockIndex": 0}}),
    chunk({"messageStop": {"stopReason": "max_tokens"}}),
    chunk({"metadata": {"usage": NOVA_USAGE, "metrics": {}}, **metrics(6, 10)}),
)
TITAN = "amazon.titan-text-express-v1"
TITAN_BODY = {"inputText": "One river.", "textGenerationConfig": {"maxTokenCount": 10}}
TITAN_SAID = {"outputText": "Danube.", "index": 0, "totalOutputTextTokenCount": None, "inputTextTokenCount": None}
TITAN_LAST = TITAN_SAID | {"totalOutputTextTokenCount": 10, "inputTextTokenCount": 6, "completionReason": "LENGTH"}
LLAMA, LLAMA_BODY = "meta.llama3-8b-instruct-v1:0", {"prompt": "One river.", "max_gen_len": 10}
LLAMA_SAID = {"generation": "Danube.", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": None}
LLAMA_ANSWER = LLAMA_SAID | {"prompt_token_count": 6, "generation_token_count": 10, "stop_reason": "length"}
LLAMA_STREAM = streamed(
    chunk(LLAMA_SAID | {"prompt_token_count": 6, "generation_token_count": 1}),
    chunk(LLAMA_SAID),
    chunk(LLAMA_SAID | {"generation": "", "generation_token_count": 10, "stop_reason": "length", **metrics(6, 10)}),
)
PROMPT = {"prompt": "One river.", "max_tokens": 10}
MISTRAL = "mistral.mistral-7b-instruct-v0:2"
MISTRAL_ANSWER = {"outputs": [{"text": "Danube.", "stop_reason": "length"}]}
COHERE = "cohere.command-text-v14"
COHERE_ANSWER = {"generations": [{"finish_reason": "MAX_TOKENS", "id": "g", "text": "Danube."}], "id": "r"}
COHERE_STREAM = streamed(
    chunk({"index": 0, "is_finished": False, "text": " Danube"}),
    chunk({"index": 0, "is_finished": False, "text": "."}),
    chunk({"finish_reason": "MAX_TOKENS", "is_finished": True, **metrics(6, 10)}),
)
JURASSIC_ANSWER = {"completions": [{"data": {"text": "Danube."}, "finishReason": {"reason": "length"}}]}
DEEPSEEK_ANSWER = {"choices": [{"text": "Danube.", "stop_reason": "length"}]}
OSS, OSS_BODY = "openai.gpt-oss-120b-1:0", {"messages": [{"role": "user", "content": "?"}], "max_completion_tokens": 50}
OSS_ANSWER = {
    "id": "chatcmpl-1",
    "model": OSS,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Danube."}}],
    "usage": {"prompt_tokens": 6, "completion_tokens": 10, "total_tokens": 16},
}
OSS_STREAM = streamed(
    chunk({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "Dan"}}]}),
    chunk({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "ube."}}]}),
    chunk({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **metrics(6, 10)}),
)
EMBEDDING = {"embedding": [0.1], "embeddingsByType": {"float": [0.1]}, "inputTextTokenCount": 3}
EMBEDDINGS = {"id": "e", "texts": ["river"], "embeddings": [[0.1]], "response_type": "embeddings_floats"}
EMBED_COUNT = {"x-amzn-bedrock-input-token-count": "3"}
PICTURE = {
    "taskType": "TEXT_IMAGE",
    "textToImageParams": {"text": "River"},
    "imageGenerationConfig": {"numberOfImages": 2},
}
STABLE_ANSWER = {"seeds": [1], "finish_reasons": [None], "images": ["aGk="]}
CLAUDE_USAGE = {"tokens_in": 40, "tokens_out": 5, "tokens_cache_write": 10, "tokens_cache_write_5m": 10}
CLAUDE_FLOW = {"tokens_in": 121, "tokens_out": 22, "tokens_cache_read": 100}

INVOKED = (
    ("claude", CLAUDE, CLAUDE_BODY, Reply(CLAUDE_ANSWER), CLAUDE_USAGE, {}),
    ("nova", NOVA, NOVA_BODY, Reply(NOVA_ANSWER), TEN, {}),
    ("titan", TITAN, TITAN_BODY, Reply({"inputTextTokenCount": 6, "results": [{"tokenCount": 10}]}), TEN, TEXT),
    ("llama", LLAMA, LLAMA_BODY, Reply(LLAMA_ANSWER), TEN, TEXT),
    ("mistral", MISTRAL, PROMPT, Reply(MISTRAL_ANSWER, headers=COUNTS), TEN, TEXT | IN_HEADERS),
    ("cohere", COHERE, PROMPT, Reply(COHERE_ANSWER, headers=COUNTS), TEN, TEXT | NO_PRICE | IN_HEADERS),
    ("ai21", "ai21.j2-mid-v1", PROMPT, Reply(JURASSIC_ANSWER, headers=COUNTS), TEN, TEXT | NO_PRICE | IN_HEADERS),
    ("deepseek", "us.deepseek.r1-v1:0", PROMPT, Reply(DEEPSEEK_ANSWER, headers=COUNTS), TEN, TEXT | IN_HEADERS),
    ("gpt-oss", OSS, OSS_BODY, Reply(OSS_ANSWER), TEN, {}),
    ("titan embeddings", "amazon.titan-embed-text-v2:0", {"inputText": "?"}, Reply(EMBEDDING), THREE, EMBEDDED),
    (
        "cohere embeddings", "cohere.embed-english-v3", {"texts": ["River"], "input_type": "search_query"},
        Reply(EMBEDDINGS, headers=EMBED_COUNT), THREE, EMBEDDED | NO_PRICE | IN_HEADERS,
    ),
    (
        "images", "amazon.titan-image-generator-v2:0", PICTURE, Reply({"images": ["aGk=", "aGk="]}), {"images": 2},
        PICTURES,
    ),
    ("stability", "stability.sd3-5-large-v1:0", {"prompt": "?"}, Reply(STABLE_ANSWER), {"images": 1}, PICTURES),
)  # fmt: skip
FLOWING = (
    ("claude stream", CLAUDE, CLAUDE_BODY, CLAUDE_STREAM, CLAUDE_FLOW, {}),
    ("nova stream", NOVA, NOVA_BODY, NOVA_STREAM, TEN, {}),
    (
        "titan stream", TITAN, TITAN_BODY,
        streamed(chunk(TITAN_SAID), chunk(TITAN_SAID), chunk(TITAN_LAST | metrics(6, 10))), TEN, TEXT,
    ),
    ("llama stream", LLAMA, LLAMA_BODY, LLAMA_STREAM, TEN, TEXT),
    ("cohere stream", COHERE, PROMPT | {"stream": True}, COHERE_STREAM, TEN, TEXT | NO_PRICE),
    ("gpt-oss stream", OSS, OSS_BODY, OSS_STREAM, TEN, {}),
)  # fmt: skip
REEL = {
    "modelId": "amazon.nova-reel-v1:1",
    "modelInput": {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "River"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket"}},
    "clientRequestToken": "t",
}
BEGUN = Reply({"invocationArn": "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abc"})
FROM_CLAUDE = {"modelId": CLAUDE, "messages": SAID, "inferenceConfig": {"maxTokens": 50}}
FROM_NOVA = {"modelId": NOVA, "messages": SAID, "inferenceConfig": {"maxTokens": 50}}
FIVE = {"tokens_in": 5, "tokens_out": 3}
OPERATIONS = (
    ("converse", "converse", FROM_CLAUDE, None, CONVERSED, CACHED, {}),
    ("converse stream", "converse_stream", FROM_NOVA, "stream", CONVERSE_STREAM, FIVE, {}),
    ("async invoke", "start_async_invoke", REEL, None, BEGUN, None, PICTURES),
    *(
        (name, "invoke_model", {"modelId": model, "body": json.dumps(body)}, "read", *rest)
        for name, model, body, *rest in INVOKED
    ),
    *(
        (name, "invoke_model_with_response_stream", {"modelId": model, "body": json.dumps(body)}, "body", *rest)
        for name, model, body, *rest in FLOWING
    ),
)


def case(name, method, asked, take, reply, usage, more, *, asynchronous):  # noqa: PLR0917 - a row has its columns
    if not asynchronous and take is None:
        more = more | {"cuttable": False}  # botocore takes what came for an empty answer: see a test of its own below
    site = "aiobotocore.client:AioBaseClient" if asynchronous else "botocore.client:BaseClient"
    return Case(
        name=name,
        site=f"{site}._make_api_call",
        client=Waiting if asynchronous else blocking,
        run=asking(method, asked, take, asynchronous=asynchronous),
        reply=reply,
        usage=usage,
        provider="aws.bedrock",
        model=asked["modelId"],
        streams=take in ("stream", "body"),
        asynchronous=asynchronous,
        refusal=REFUSAL,
        **more,
    )


CASES = [
    case(*row, asynchronous=asynchronous)
    for asynchronous in ((False, True) if get_aio_session else (False,))
    for row in OPERATIONS
]


def conversing(server, **how):
    return blocking(server.url, **how).converse(**FROM_NOVA)


def test_a_cut_answer_that_botocore_takes_for_an_empty_one(server, instrumented):
    """Half a Converse answer is no usage, and botocore does not mind: the call is an estimate."""
    server.reply = cut(CONVERSED)
    with instrumented() as seen:
        try:
            assert "usage" not in conversing(server)
        except BotoCoreError:
            pytest.skip("this version of botocore does mind")
        assert (seen.end.event_type, seen.end.estimated, seen.end.usage) == ("commit", True, {})
        assert seen.end.reason


@pytest.mark.parametrize("left", ["cut", "closed", "unread"])
def test_a_cut_answer_whose_headers_tell(server, instrumented, left):
    """Where the headers have the counts, a body that is cut, or never read, is billed by them."""
    whole = Reply(MISTRAL_ANSWER, headers=COUNTS)
    server.reply = cut(whole) if left == "cut" else whole
    with instrumented() as seen:
        body = blocking(server.url).invoke_model(modelId=MISTRAL, body=json.dumps(PROMPT))["body"]
        if left == "cut":
            with pytest.raises(BotoCoreError):
                body.read()
        elif left == "closed":
            body.close()
        del body
        gc.collect()
        assert (seen.end.event_type, seen.end.usage, seen.end.estimated) == ("commit", TEN, False)


def test_a_body_that_is_read_in_parts(server, instrumented):
    """The body of an answer is the same in parts, and its usage is known when it has been read."""
    server.reply = Reply(CLAUDE_ANSWER)
    with instrumented() as seen:
        body = blocking(server.url).invoke_model(modelId=CLAUDE, body=json.dumps(CLAUDE_BODY))["body"]
        assert json.loads(b"".join(body.iter_chunks(7))) == CLAUDE_ANSWER
        assert seen.end.usage == CLAUDE_USAGE


def limit_in(asked, *path):
    value = asked.json
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize(
    ("model", "usd", "body", "path"),
    [
        (CLAUDE, "0.02", {"anthropic_version": "bedrock-2023-05-31", "messages": SAID}, ("max_tokens",)),
        (NOVA, "0.0002", {"messages": SAID}, ("inferenceConfig", "maxTokens")),
        (NOVA, "0.0002", {"messages": SAID, "inferenceConfig": {"topP": 0.5}}, ("inferenceConfig", "maxTokens")),
        (TITAN, "0.001", {"inputText": "?"}, ("textGenerationConfig", "maxTokenCount")),
        (LLAMA, "0.001", {"prompt": "?"}, ("max_gen_len",)),
        (MISTRAL, "0.001", {"prompt": "?"}, ("max_tokens",)),
        ("us.deepseek.r1-v1:0", "0.02", {"prompt": "?"}, ("max_tokens",)),
        (OSS, "0.001", {"messages": [{"role": "user", "content": "?"}]}, ("max_completion_tokens",)),
    ],
)
def test_each_family_is_limited_in_its_own_words(server, instrumented, model, usd, body, path):  # noqa: PLR0917
    """What is left of a budget limits the output by the key that the model knows, before the request is signed."""
    server.reply = Reply({"usage": {"inputTokens": 6, "outputTokens": 10}})
    with instrumented() as seen:
        with budget(f"{usd} USD", name="small") as small:
            blocking(server.url).invoke_model(modelId=model, body=json.dumps(body).encode())["body"].read()
        assert small.spent <= small.limit
        assert seen.end.event_type == "commit"
    (asked,) = server.asked
    assert limit_in(asked, *path) > 0
    assert asked.json == {**body, path[0]: asked.json[path[0]]}
    assert "Signature=" in asked.headers["authorization"]


def test_converse_is_limited(server, instrumented):
    """A limit on the output of Converse lowers the budget for thinking, too; the caller's own arguments stay."""
    server.reply = CONVERSED
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 50_000}}
    asked = {
        "modelId": CLAUDE,
        "messages": SAID,
        "inferenceConfig": {"topP": 0.5},
        "additionalModelRequestFields": thinking,
    }
    with instrumented(), budget("0.05 USD", name="small"):
        blocking(server.url).converse(**asked)
    sent = server.asked[0].json
    limit = sent["inferenceConfig"]["maxTokens"]
    assert 1_024 < limit < 5_000
    assert sent["inferenceConfig"]["topP"] == 0.5
    assert sent["additionalModelRequestFields"]["thinking"]["budget_tokens"] < limit
    assert asked["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 50_000}}
    assert asked["inferenceConfig"] == {"topP": 0.5}


def test_a_cheaper_model_takes_its_place(server, instrumented):
    """Converse is the same for all models, so a fallback can change the one in the path."""
    server.reply = CONVERSED
    with (
        instrumented() as seen,
        budget("0.01 USD", name="small", on_limit="fallback", fallback_model=NOVA, output_bound="max"),
    ):
        blocking(server.url).converse(modelId=CLAUDE, messages=SAID, inferenceConfig={"maxTokens": 2_000})
    assert server.asked[0].path == "/model/amazon.nova-micro-v1%3A0/converse"
    assert seen.end.model == NOVA


@pytest.mark.parametrize(
    "body", [io.BytesIO(json.dumps(TITAN_BODY).encode()), bytearray(json.dumps(TITAN_BODY).encode())]
)
def test_a_body_in_a_file_or_in_bytes(server, instrumented, body):
    """A body may be a file or any bytes; it is sent whole, and its request is read all the same."""
    server.reply = Reply({"inputTextTokenCount": 6, "results": [{"tokenCount": 10}]})
    with instrumented() as seen, budget("1 USD", name="enough"):
        blocking(server.url).invoke_model(modelId=TITAN, body=body)["body"].read()
    assert server.asked[0].json == TITAN_BODY
    assert seen.end.usage == TEN


@pytest.mark.parametrize("body", ["no JSON", "[1]", b"\xff\xfe"])
def test_a_body_that_is_no_request(server, instrumented, body):
    """What nobody can read is sent as it is, and is one call."""
    server.reply = REFUSAL
    with instrumented() as seen, pytest.raises(ClientError):
        blocking(server.url).invoke_model(modelId=TITAN, body=body)
    assert server.asked[0].content == (body.encode() if isinstance(body, str) else body)
    assert (seen.end.event_type, seen.end.error_type) == ("cancel", "ValidationException")


def test_a_profile_without_a_name(server, instrumented):
    """An ARN in the path is the model, whichever way it is written there."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc1"
    server.reply = CONVERSED
    with instrumented() as seen:
        blocking(server.url).converse(modelId=arn, messages=SAID)
        assert seen.end.model == arn
        assert seen.end.reason
        assert "price" in seen.end.reason
    assert "%2Fabc1/converse" in server.asked[0].path


def test_a_router_tells_the_model(server, instrumented):
    """A prompt router names in its trace the model that it has chosen."""
    chosen = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
    server.reply = replace(CONVERSED, body=CONVERSED.body | {"trace": {"promptRouter": {"invokedModelId": chosen}}})
    router = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/amazon.nova:1"
    with instrumented() as seen:
        blocking(server.url).converse(modelId=router, messages=SAID)
        assert seen.end.model == chosen
        assert seen.end.cost_actual_usd > 0


@pytest.mark.parametrize(("region", "usd"), [("us", "0.000198"), ("global", "0.000180")])
def test_claude_costs_what_its_profile_costs(server, instrumented, region, usd):
    """The answer names a model without a region; the price is that of the profile asked for."""
    server.reply = Reply(CLAUDE_ANSWER | {"usage": {"input_tokens": 10, "output_tokens": 10}})
    with instrumented() as seen:
        model = CLAUDE.replace("us.", f"{region}.", 1)
        blocking(server.url).invoke_model(modelId=model, body=json.dumps(CLAUDE_BODY))["body"].read()
        assert seen.end.cost_actual_usd == Decimal(usd)


def test_an_error_in_a_stream(server, instrumented):
    """An exception that comes as an event is the SDK's, and its type stands on the call, which may have to be paid."""
    server.reply = streamed(*CONVERSE_STREAM.chunks[:3], exception("throttlingException", "Too many tokens."))
    with instrumented() as seen:
        stream = blocking(server.url).converse_stream(**FROM_NOVA)["stream"]
        with pytest.raises(EventStreamError):
            list(stream)
        del stream
        gc.collect()
        event = seen.end
    assert (event.event_type, event.error_type, event.estimated) == ("commit", "throttlingException", True)


def test_a_stream_ends_with_its_last_event(server, instrumented):
    """Who stops at the event with the usage, and neither reads on nor closes, has a settled call."""
    server.reply = CONVERSE_STREAM
    with instrumented() as seen:
        stream = blocking(server.url).converse_stream(**FROM_NOVA)["stream"]
        for event in stream:
            if "metadata" in event:
                break
        assert seen.end.usage == FIVE
        assert seen.end.status == "ok"


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_every_attempt_is_seen(server, instrumented, mode):
    """botocore's own retries are attempts of one call, in all of its modes."""
    replies = iter([Reply({"message": "busy"}, status=503), CONVERSED])
    server.reply = lambda _asked: next(replies)
    with instrumented() as seen:
        conversing(server, attempts=2, mode=mode)
        assert len(seen.of("retry")) == 1
        assert (seen.end.attempts, seen.end.usage) == (2, CACHED)


def test_a_retry_that_no_budget_has_room_for(server, instrumented):
    """After an attempt that may have to be paid, the next one is held for apart; without room, nothing more is sent."""
    server.reply = Reply(b"<html>bad gateway</html>", status=502, content_type="text/html")
    asked = {"modelId": CLAUDE, "messages": SAID, "inferenceConfig": {"maxTokens": 1_000}}
    with instrumented() as seen, budget("0.03 USD", name="one", output_bound="max"), pytest.raises(BudgetExceeded):
        blocking(server.url, attempts=3).converse(**asked)
    assert len(server.asked) == 1
    assert seen.open_holds == 0


def test_what_never_left(instrumented):
    """A connection that cannot be made costs nothing."""
    with instrumented() as seen:
        with pytest.raises(BotoCoreError):
            blocking("http://127.0.0.1:1").converse(**FROM_NOVA)
        assert (seen.end.event_type, seen.end.spend_usd) == ("cancel", None)


def test_other_operations_are_not_ours(server, instrumented):
    """Counting tokens, and all that other services do, passes without a trace."""
    server.reply = Reply({"inputTokens": 5})
    with instrumented() as seen:
        blocking(server.url).count_tokens(modelId=NOVA, input={"converse": {"messages": SAID}})
        sts = session().create_client("sts", **configured(Config, server.url))
        told = b"<R><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult></R>"
        server.reply = Reply(told, content_type="text/xml")
        assert sts.get_caller_identity()["Account"] == "1"
        assert len(server.asked) == 2
        assert seen.events == []
    assert not uncovered


needs_aio = pytest.mark.skipif(get_aio_session is None, reason="aiobotocore is not installed")


@needs_aio
@pytest.mark.parametrize("first", [cut(CONVERSED), Reply({"message": "busy"}, status=503)], ids=["cut", "busy"])
def test_every_attempt_is_seen_in_aiobotocore(server, instrumented, first):
    """What aiobotocore sends again, after a refusal or a cut answer, is another attempt of the same call."""
    replies = iter([first, CONVERSED])
    server.reply = lambda _asked: next(replies)

    async def work():
        client = Waiting(server.url, attempts=2)
        try:
            await client.call("converse", FROM_NOVA, None)
        finally:
            await client.aclose()

    with instrumented() as seen:
        asyncio.run(work())
        assert len(seen.of("retry")) == 1
        assert (seen.end.attempts, seen.end.usage) == (2, CACHED)


@needs_aio
@pytest.mark.parametrize("name", ["converse", "claude"])  # it reads no event stream over httpx
def test_aiobotocore_over_httpx(server, instrumented, monkeypatch, name):
    """With httpx below it, aiobotocore is seen just as well."""
    pytest.importorskip("httpx", reason="httpx is not installed")
    httpx_session = pytest.importorskip("aiobotocore.httpxsession", reason="this aiobotocore has no httpx session")
    monkeypatch.setattr("test_bedrock.AioConfig", partial(AioConfig, http_session_cls=httpx_session.HttpxSession))
    (chosen,) = [each for each in CASES if each.asynchronous and each.name == name]
    server.reply = chosen.reply

    async def use(result):
        return result

    with instrumented() as seen:
        driven(chosen, server, use)
        assert seen.end.usage == chosen.usage
        assert (seen.end.event_type, seen.end.status, seen.end.attempts) == ("commit", "ok", 1)
    assert not uncovered
