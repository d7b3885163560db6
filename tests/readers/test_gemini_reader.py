"""Readers of Google's APIs. Answers by hand after ai.google.dev/api (generate-content, embeddings, interactions)."""

import base64
import json
import re
import struct

import pytest

from tollspan.instrumentation._readers import FETCHES, ResponseFacts, reader_for_path

MODEL = "gemini-3-flash-preview"
PATH = f"/v1beta/models/{MODEL}:generateContent"
GENERATE = reader_for_path(PATH)
EMBED = reader_for_path("/v1beta/models/m:batchEmbedContents")
IMAGES = reader_for_path("/v1beta/models/m:predict")
VIDEOS = reader_for_path("/v1beta/models/m:predictLongRunning")
INTERACT = reader_for_path("/v1beta/interactions")
COUNTED = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 30,
    "toolUsePromptTokenCount": 5,
    "totalTokenCount": 155,
}
USED = {"tokens_in": 105, "tokens_out": 50, "tokens_cache_read": 40, "tokens_reasoning": 30}
LIVE = {"tokens_in": 9, "tokens_out": 47, "tokens_reasoning": 5}


def answer(*parts, reason="STOP", counted=COUNTED, **candidate):
    """An answer, or one event of a stream of them."""
    content = {"role": "model", "parts": [{"text": part} if isinstance(part, str) else part for part in parts]}
    one = {"content": content, **({"finishReason": reason} if reason else {}), "index": 0, **candidate}
    return {"candidates": [one], "usageMetadata": counted, "modelVersion": MODEL, "responseId": "r1"}


def read(body, reader=GENERATE):
    return reader.response(json.dumps(body).encode())


def stream_of(*events):
    return "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in events).encode()


def asked(path=PATH, reader=GENERATE, **body):
    return reader.request(body, path)


def part(data, mime_type, **more):
    return {"inlineData": {"data": base64.urlsafe_b64encode(data).decode(), "mimeType": mime_type}, **more}


def content(*parts):
    return [{"role": "user", "parts": list(parts)}]


EXPECTED = ResponseFacts(model=MODEL, response_id="r1", usage=USED, finish_reasons=("STOP",))
EARLY = {"promptTokenCount": 100, "thoughtsTokenCount": 7, "totalTokenCount": 107}
EVENTS = (answer("Dan", reason=None, counted=EARLY), answer("ube.", reason=None, counted=EARLY), answer(""))


def test_an_answer_is_read():
    """Thoughts are output, what tools put into the prompt is input, and what was cached is a part of that."""
    assert read(answer("Danube.")) == EXPECTED


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        ({"promptTokenCount": 9, "totalTokenCount": 9}, {"tokens_in": 9, "tokens_out": 0}),
        ({"promptTokenCount": 9, "candidatesTokenCount": 4}, {"tokens_in": 9, "tokens_out": 4}),
        ({"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 20}, {"tokens_in": 9, "tokens_out": 11}),
        (COUNTED | {"candidatesTokenCount": 50}, USED),
        (COUNTED | {"promptTokenCount": 105}, USED),
        (COUNTED | {"promptTokenCount": 105, "candidatesTokenCount": 50}, USED),
        (COUNTED | {"candidatesTokenCount": 20, "totalTokenCount": 125}, USED),
        ({"responseTokenCount": 42, "promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 51}, LIVE),
        ({"candidatesTokenCount": 4, "totalTokenCount": 13}, {"tokens_in": 9, "tokens_out": 4}),
        ({"candidatesTokenCount": 4}, None),
        ({"promptTokenCount": "9", "totalTokenCount": None}, None),
        ({}, None),
        (None, None),
    ],
    ids=[
        *("nothing said", "no total", "hidden thoughts", "thoughts inside", "tools inside", "both"),
        *("thoughts left out", "live", "input not named", "input not told", "no counts", "empty", "none"),
    ],
)
def test_the_total_tells_what_counts_are_inside_of_others(counted, usage):
    """A count of 0 is left out on the wire; the total shows whether a count stands inside of another or beside it."""
    assert read(answer("x", counted=counted)).usage == usage


@pytest.mark.parametrize(
    "named", [("TEXT", "IMAGE", "VIDEO", "AUDIO"), (1, 2, 3, 4), ("text", "image", "video", "audio")]
)
def test_tokens_of_media_are_told_apart(named):
    """By modality, whose names are numbers where a server speaks for its protocol buffers."""
    text, image, video, audio = named
    counted = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 12,
        "candidatesTokenCount": 60,
        "promptTokensDetails": [{"modality": m, "tokenCount": c} for m, c in ((text, 40), (image, 30), (audio, 25))],
        "toolUsePromptTokensDetails": [{"modality": image, "tokenCount": 5}, {"modality": video, "tokenCount": 6}],
        "cacheTokensDetails": [{"modality": audio, "tokenCount": 8}, {"modality": image, "tokenCount": 4}],
        "candidatesTokensDetails": [{"modality": image, "tokenCount": 50}, {"modality": audio, "tokenCount": 10}],
    }
    assert read(answer("x", counted=counted)).usage == {
        "tokens_in": 100,
        "tokens_out": 60,
        "tokens_cache_read": 12,
        "tokens_image_in": 35,
        "tokens_video_in": 6,
        "tokens_audio_in": 25,
        "tokens_audio_cache_read": 8,
        "tokens_image_cache_read": 4,
        "tokens_image_out": 50,
        "tokens_audio_out": 10,
    }


@pytest.mark.parametrize(("model", "searches"), [("gemini-3-flash-preview", 2), ("gemini-2.5-flash", 1)])
def test_web_searches_are_counted_as_they_are_billed(model, searches):
    """Gemini 3 is billed for each search, those before it for each prompt that searched; empty searches are none."""
    grounded = answer("x", groundingMetadata={"webSearchQueries": ["", "rivers", "rivers", "depth"]})
    assert read(grounded | {"modelVersion": model}).usage["web_searches"] == searches
    assert GENERATE.stream(stream_of(*EVENTS[:2], grounded | {"modelVersion": model})).usage["web_searches"] == searches
    assert "web_searches" not in read(answer("x", groundingMetadata={"webSearchQueries": [""]})).usage


def test_a_stream_is_read_from_its_last_event():
    """Counts grow from event to event, and are never added."""
    assert GENERATE.stream(stream_of(*EVENTS)) == EXPECTED


def test_a_stream_without_events_is_an_array():
    """Without `alt=sse`, a stream is an array that grows."""
    received = json.dumps(list(EVENTS), indent=2).encode()
    assert GENERATE.stream(received) == EXPECTED
    cut = GENERATE.stream(received[:-30])
    assert not cut.complete
    assert (cut.usage, cut.visible_output_bytes) == (None, 7 + 7)


def test_counts_that_the_last_event_leaves_out_are_those_before_it():
    """Gemini 3 may end with an event that brings sources, and leaves the tokens of the answer out."""
    last = {key: COUNTED[key] for key in COUNTED if key != "candidatesTokenCount"} | {"totalTokenCount": 135}
    assert GENERATE.stream(stream_of(answer("x", reason=None), answer("", counted=last))).usage == USED


def test_a_stream_is_cut_until_every_candidate_has_ended():
    """What is counted until then is no usage, but tells thoughts that nobody sees."""
    thought = answer({"text": "Hm", "thought": True}, reason=None, counted=EARLY)
    call = answer({"functionCall": {"name": "depth", "args": {}}}, reason=None, counted=EARLY)
    facts = GENERATE.stream(stream_of(thought, answer("Donau é", reason=None, counted=EARLY)))
    assert (facts.complete, facts.usage, facts.visible_output_bytes) == (False, None, 8 + 7)
    assert GENERATE.stream(stream_of(call)).visible_output_bytes == len('{"name":"depth","args":{}}') + 7
    assert not GENERATE.is_complete(stream_of(*EVENTS[:2]))
    assert GENERATE.is_complete(stream_of(*EVENTS))


def test_a_blocked_prompt_is_a_whole_answer():
    """What Google's filters block is billed as input, and why is the reason that it ended."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    for facts in (read(blocked), GENERATE.stream(stream_of(blocked))):
        assert (facts.complete, facts.finish_reasons) == (True, ("SAFETY",))
        assert facts.usage == {"tokens_in": 9, "tokens_out": 0}


def test_each_candidate_has_its_reason():
    """In the order of their indexes, and by name where the wire has a number."""
    two = answer("a") | {"candidates": [{"finishReason": "STOP"}, {"index": 1, "finishReason": 2}]}
    later = answer("a") | {"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}]}
    assert read(two).finish_reasons == ("STOP", "MAX_TOKENS")
    assert GENERATE.stream(stream_of(later, answer("b"))).finish_reasons == ("STOP", "MAX_TOKENS")


@pytest.mark.parametrize(
    ("counted", "tier"),
    [
        ({"trafficType": "ON_DEMAND"}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"serviceTier": "standard"}, "standard"),
        ({"trafficType": 1}, None),
    ],
)
def test_the_tier_of_an_answer(counted, tier):
    """Gemini names the service tier, and Vertex AI the kind of traffic."""
    assert read(answer("x", counted=COUNTED | counted)).service_tier == tier


def test_errors_have_their_status_as_type():
    """The code is only the HTTP status again; in a stream an error is an event, or all that comes."""
    error = {"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}}
    expected = ("RESOURCE_EXHAUSTED", "Quota exceeded.")
    found = (read(error), read([error]), GENERATE.stream(json.dumps(error).encode()), GENERATE.stream(stream_of(error)))
    assert [(facts.error_type, facts.error_message) for facts in found] == [expected] * 4


@pytest.mark.parametrize(
    ("path", "model", "streams"),
    [
        (PATH, MODEL, False),
        (f"/v1beta/models/{MODEL}:streamGenerateContent", MODEL, True),
        ("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro", False),
        ("/v1/projects/p/locations/l/endpoints/12:streamGenerateContent", "endpoints/12", True),
        ("/v1beta/tunedModels/t1:generateContent", "tunedModels/t1", False),
        ("", None, False),
    ],
)
def test_the_path_names_model_and_kind(path, model, streams):
    """The body says neither which model is asked nor whether the answer is streamed."""
    facts = asked(path, contents=content({"text": "x"}))
    assert (facts.model, facts.stream) == (model, streams)


def test_a_request_is_read():
    """Maximum, choices and settings stand in `generationConfig`."""
    config = {
        "maxOutputTokens": 500,
        "candidateCount": 2,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "stopSequences": ["END"],
        "seed": 7,
    }
    facts = asked(contents=content({"text": "x"}), generationConfig=config, serviceTier="flex")
    assert (facts.max_output_tokens, facts.choices, facts.service_tier, facts.unbounded) == (500, 2, "flex", None)
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 500,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.seed": 7,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tools": [{"googleSearch": {}}]}, "hosted tool googleSearch"),
        ({"tools": [{"urlContext": {}}, {"functionDeclarations": []}]}, "hosted tool urlContext"),
        ({"tools": [{"code_execution": {}}]}, "hosted tool code_execution"),
        ({"tools": [{"functionDeclarations": [{"name": "f"}], "computerUse": {}}]}, None),
        ({"cachedContent": "cachedContents/1"}, "cached content"),
        ({"continuationToken": "dG9r"}, "continued generation"),
        ({"contents": content({"fileData": {"fileUri": "gs://a/b", "mimeType": "image/png"}})}, "file by URI"),
        (
            {"contents": content({"functionResponse": {"parts": [{"fileData": {"fileUri": "gs://a/b"}}]}})},
            "file by URI",
        ),
    ],
)
def test_what_has_no_bound(body, reason):
    """Tools that Google runs, what it holds, and what it fetches cost what nobody can tell before."""
    assert asked(**({"contents": content({"text": "x"})} | body)).unbounded == reason


def _png(width, height):
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02"


def _jpeg(width, height):
    return b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03" * 20


def _movie(seconds):
    return (
        b"\x00\x00\x00\x6cmoov\x00\x00\x00\x6cmvhd" + bytes(12) + struct.pack(">II", 1000, seconds * 1000) + bytes(40)
    )


OLD = "gemini-2.5-flash"
NEW = "gemini-3-flash-preview"
TUNED = "my-endpoint"


@pytest.mark.parametrize(
    ("media", "model", "billed", "most"),
    [
        (part(_png(3008, 2000), "image/png"), OLD, 13 * 258, 3_700),
        (part(_jpeg(3008, 2000), "image/jpeg"), OLD, 13 * 258, 3_700),
        (part(_png(540, 360), "image/png"), OLD, 1_806, 2_100),
        (part(_png(384, 384), "image/png"), OLD, 258, 600),
        (part(_png(385, 384), "image/png"), OLD, 258 * 2, 1_700),
        (part(_png(8, 8), "image/png", mediaResolution={"level": "MEDIA_RESOLUTION_HIGH"}), OLD, 2_304, 2_600),
        (part(bytes(1_000_000), "image/heic"), OLD, 24 * 258, 150_000),
        (part(bytes(1_000_000), "image/heic"), NEW, 1_120, 1_500),
        (part(_png(3008, 2000), "image/png"), NEW, 1_120, 1_500),
        (part(_png(8, 8), "image/png"), NEW, 1_120, 1_500),
        (part(_png(8, 8), "image/png", mediaResolution={"level": "MEDIA_RESOLUTION_LOW"}), NEW, 280, 700),
        (part(_png(8, 8), "image/png", media_resolution={"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}), NEW, 2_240, 2_700),
        (part(_png(3008, 2000), "image/png"), TUNED, 13 * 258, 3_700),
        (part(_png(8, 8), "image/png"), TUNED, 1_120, 1_500),
        (part(b"ID3" + bytes(54_000), "audio/mpeg"), NEW, 214, 2_300),
        (part(bytes(54_000), "audio/aac"), NEW, 214, 4_500),
        (part(_movie(60), "video/mp4"), OLD, 60 * 290, 60 * 300 + 1_200),
        (part(_movie(60), "video/mp4"), NEW, 60 * 102, 60 * 125 + 1_200),
        (part(_movie(60), "video/mp4", videoMetadata={"fps": 2}), OLD, 60 * 258 * 2, 60 * 560 + 1_700),
        (
            part(_movie(60), "video/mp4", mediaResolution={"level": "MEDIA_RESOLUTION_HIGH"}),
            NEW,
            60 * 312,
            60 * 330 + 1_200,
        ),
        (part(bytes(800_000), "video/webm"), OLD, 3_284, 700_000),
        (part(bytes(13_000), "application/pdf"), NEW, 5 * 1_120, 22_000),
        (part(b"plain text, " * 1_000, "text/plain"), NEW, 3_000, 12_400),
    ],
)
def test_media_are_bounded_by_what_they_show(media, model, billed, most):
    """Never below what Google bills for them by its guides, and not far above it either."""
    path = PATH.replace(MODEL, model)
    for contents in (content(media), content({"functionResponse": {"name": "f", "response": {}, "parts": [media]}})):
        assert billed <= asked(path, contents=contents).input_tokens_bound <= most


@pytest.mark.parametrize(("level", "least", "most"), [("LOW", 280, 600), ("MEDIUM", 560, 900), ("HIGH", 1_120, 1_500)])
def test_a_resolution_of_the_whole_request_holds_for_its_parts(level, least, most):
    """What the configuration names is the resolution of each image that does not name its own."""
    config = {"mediaResolution": f"MEDIA_RESOLUTION_{level}"}
    media = part(_png(3008, 2000), "image/png")
    path = PATH.replace(MODEL, NEW)
    assert least <= asked(path, contents=content(media), generationConfig=config).input_tokens_bound <= most
    own = {**media, "mediaResolution": {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}}
    assert asked(path, contents=content(own), generationConfig=config).input_tokens_bound >= 2_240


def test_a_request_of_text_alone_is_priced_as_text():
    """Media, and a document whose pages are images, may have prices of their own; text has none."""
    assert asked(contents=content({"text": "x"})).is_text()
    for kind in ("image/png", "application/pdf", "audio/mpeg"):
        assert not asked(contents=content({"text": "x"}, part(bytes(50), kind))).is_text()


def test_text_is_bounded_by_its_bytes():
    """Wherever it stands: in contents, system instruction, tools and schema."""
    long = "\u5b57" * 1_000
    plain = asked(contents=content({"text": "x"})).input_tokens_bound
    places = (
        {"contents": content({"text": long})},
        {"systemInstruction": {"parts": [{"text": long}]}},
        {"tools": [{"functionDeclarations": [{"name": "f", "description": long}]}]},
        {"generationConfig": {"responseSchema": {"description": long}}},
    )
    for place in places:
        assert asked(**({"contents": content({"text": "x"})} | place)).input_tokens_bound >= plain + 2_900


def test_media_need_prices_of_their_own():
    """What is read by its MIME type, what is made by the modalities that are asked for."""
    sent = content(part(b"a", "audio/wav"), {"fileData": {"fileUri": "gs://a/b", "mimeType": "video/mp4"}})
    facts = asked(contents=sent, generationConfig={"responseModalities": ["TEXT", "IMAGE"]})
    assert set(facts.find_units()) == {"tokens_audio_in", "tokens_video_in", "tokens_image_out"}
    assert asked(contents=content({"text": "x"})).find_units() == ()


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({}, {"generationConfig": {"maxOutputTokens": 100}}),
        ({"generationConfig": {"seed": 7}}, {"generationConfig": {"seed": 7, "maxOutputTokens": 100}}),
        ({"generationConfig": {"maxOutputTokens": 50}}, {"generationConfig": {"maxOutputTokens": 50}}),
        ({"generation_config": {"max_output_tokens": 900}}, {"generation_config": {"max_output_tokens": 100}}),
    ],
)
def test_the_output_is_limited_where_the_caller_limits_it(body, changed):
    """Beside the caller's other settings, and never above the caller's own limit."""
    assert GENERATE.with_output_limit(body, 100) == changed


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"embeddings": [], "usageMetadata": {"promptTokenCount": 7, "promptTokenDetails": []}}, 7),
        ({"embedding": {}, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}}, 7),
        ({"predictions": [{"embeddings": {"statistics": {"token_count": count}}} for count in (3, 4)]}, 7),
        ({"predictions": [{"embeddings": {"statistics": {"token_count": 3}}}, {"embeddings": {}}]}, None),
        ({"embeddings": [{"values": [0.5]}]}, None),
    ],
)
def test_embeddings(body, usage):
    """Their tokens are told for all of them, for each, or not at all."""
    assert read(body, EMBED).usage == (None if usage is None else {"tokens_in": usage, "tokens_out": 0})


@pytest.mark.parametrize(
    "body",
    [
        {"content": {"parts": [{"text": "x" * 900}]}, "outputDimensionality": 64},
        {"requests": [{"content": {"parts": [{"text": "x" * 900}]}, "outputDimensionality": 64}]},
        {"instances": [{"content": "x" * 900}], "parameters": {"outputDimensionality": 64}},
        {"content": {"parts": [{"text": "x" * 900}]}, "embedContentConfig": {"outputDimensionality": 64}},
    ],
)
def test_a_request_for_embeddings(body):
    """In each of its three shapes it has a bound, no output, and its number of dimensions."""
    facts = asked("/v1beta/models/gemini-embedding-2:embedContent", EMBED, **body)
    assert (facts.model, facts.max_output_tokens, facts.unbounded) == ("gemini-embedding-2", 0, None)
    assert 900 <= facts.input_tokens_bound <= 1_200
    assert facts.attributes == {"gen_ai.embeddings.dimension.count": 64}


def test_images_that_are_given_count():
    """Those that filters hold back are not billed; where all are, the answer is empty."""
    made = [{"bytesBase64Encoded": "aGVsbG8="}, {"gcsUri": "gs://a/b"}, {"raiFilteredReason": "no"}]
    assert read({"predictions": made}, IMAGES).usage == {"images": 2}
    assert read({}, IMAGES).usage == {"images": 0}
    assert IMAGES.response(b'{"predictions": [').usage is None
    assert read({"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}, IMAGES).usage is None


def test_enlarged_images_have_a_price_of_their_own():
    """The mode that sets the price is a detail of the images."""
    facts = asked("/v1/models/m:predict", IMAGES, instances=[{}], parameters={"mode": "upscale"})
    assert facts.usage_of(ResponseFacts(usage={"images": 1})) == {"images": 1, "images:upscale": 1}


@pytest.mark.parametrize(
    ("parameters", "seconds", "detail"),
    [
        ({}, 8, "720p"),
        ({"durationSeconds": 6, "sampleCount": 2, "resolution": "1080p"}, 12, "1080p"),
        ({"generateAudio": False}, 8, "720p:silent"),
    ],
)
def test_videos_that_are_begun_count_as_they_were_asked_for(parameters, seconds, detail):
    """Their seconds stand in the request alone, with the resolution and the sound that set their price."""
    facts = asked("/v1/models/m:predictLongRunning", VIDEOS, instances=[{"prompt": "x"}], parameters=parameters)
    begun = read({"name": "models/m/operations/1"}, VIDEOS)
    assert facts.usage_of(begun) == {"video_seconds": seconds, f"video_seconds:{detail}": seconds}
    assert facts.usage_of(ResponseFacts()) is None
    assert facts.unbounded == "videos"


INTERACTION = {
    "id": "v1_1",
    "status": "completed",
    "model": f"models/{MODEL}",
    "created": "2026-05-13T19:57:43Z",
    "service_tier": "standard",
    "usage": {
        "total_input_tokens": 100,
        "total_cached_tokens": 40,
        "total_output_tokens": 20,
        "total_thought_tokens": 30,
        "total_tool_use_tokens": 5,
        "total_tokens": 155,
        "output_tokens_by_modality": [{"modality": "image", "tokens": 12}],
        "grounding_tool_count": [{"type": "google_search", "count": 2}, {"type": "google_maps", "count": 1}],
    },
}
INTERACTED = ResponseFacts(
    model=MODEL,
    response_id="v1_1",
    usage={**USED, "tokens_image_out": 12, "web_searches": 2},
    finish_reasons=("completed",),
    service_tier="standard",
    created=1778702263.0,
)
INTERACTION_EVENTS = (
    {"event_type": "interaction.created", "interaction": {"id": "v1_1", "status": "in_progress", "model": MODEL}},
    {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "abc"}},
    {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Danube."}},
    {"event_type": "interaction.completed", "interaction": INTERACTION},
)


@pytest.mark.parametrize("terminal", ["interaction.completed", "interaction.complete"])
def test_an_interaction_is_read(terminal):
    """Whole, or from the terminal event of its stream, which older versions name otherwise."""
    events = (*INTERACTION_EVENTS[:3], {**INTERACTION_EVENTS[3], "event_type": terminal})
    assert read(INTERACTION, INTERACT) == INTERACTED
    assert INTERACT.stream(stream_of(*events) + b"event: done\ndata: [DONE]\n\n") == INTERACTED
    assert INTERACT.is_complete(stream_of(*events))


def test_an_interaction_that_is_not_over_has_no_usage():
    """What a stream tells before its terminal event, or a poll before the end, is not what is billed."""
    facts = INTERACT.stream(stream_of(*INTERACTION_EVENTS[:3]))
    assert (facts.complete, facts.usage, facts.response_id, facts.visible_output_bytes) == (False, None, "v1_1", 7)
    assert read(INTERACTION | {"status": "in_progress"}, INTERACT).usage is None


def test_a_fetched_interaction_is_read():
    """As an answer, or as a stream that is taken up again."""
    path = "/v1beta/interactions/v1_1"
    (fetch,) = [fetch for fetch in FETCHES if fetch.reader is INTERACT]
    assert re.fullmatch(fetch.path, path)
    assert list(fetch.read(json.dumps(INTERACTION).encode())) == [INTERACTED]
    assert list(fetch.read(stream_of(*INTERACTION_EVENTS))) == [INTERACTED]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"previous_interaction_id": "v1_0"}, "previous interaction"),
        ({"model": None, "agent": "deep-research"}, "agent"),
        ({"tools": [{"type": "google_search"}]}, "hosted tool google_search"),
        ({"tools": [{"type": "function", "name": "f"}]}, None),
        ({"input": [{"type": "image", "uri": "https://a/b"}]}, "image by URI"),
        ({"input": [{"type": "user_input", "content": [{"type": "video", "uri": "gs://a/b"}]}]}, "video by URI"),
        ({"background": True}, "background interaction"),
    ],
)
def test_interactions_without_a_bound(body, reason):
    """What Google holds, runs or fetches costs what nobody can tell before."""
    facts = INTERACT.request({"model": MODEL, "input": "x", **body})
    assert facts.unbounded == reason
    assert facts.limitable is ("agent" not in body)


def test_an_interaction_with_media_is_bounded():
    """Media count by what they show, wherever they stand in the input, and need a price of their own."""
    image = {"type": "image", "mime_type": "image/png", "data": base64.b64encode(_png(3008, 2000) * 9_000).decode()}
    for given in ([image], [{"type": "user_input", "content": [image]}]):
        facts = INTERACT.request({"model": MODEL, "input": given, "response_modalities": ["AUDIO"]})
        assert 1_120 <= facts.input_tokens_bound <= 1_500
        assert facts.find_units() == ("tokens_image_in", "tokens_audio_out")
    limit = INTERACT.with_output_limit({"generation_config": {"seed": 7}}, 100)
    assert limit == {"generation_config": {"seed": 7, "max_output_tokens": 100}}


@pytest.mark.parametrize("path", ["/v1beta/models/m:countTokens", "/v1/models/m:rawPredict", "/v1beta/models"])
def test_other_paths_are_not_read_as_these(path):
    """Counting tokens is free, and partners' models on Vertex AI speak flavours of their own."""
    assert reader_for_path(path) not in (GENERATE, EMBED, IMAGES, VIDEOS, INTERACT)
