"""What providers are asked when they count the input of a request, and what is made of their answers."""

import pytest

from tollspan.instrumentation._readers import READERS, reader_for_path
from tollspan.instrumentation._readers._counting import COUNTS

GEMINI = "/v1beta/models/gemini-2.5-flash"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash"


@pytest.mark.parametrize(
    ("name", "path", "counted"),
    [
        ("anthropic.messages", "/v1/messages", "/v1/messages/count_tokens"),
        ("anthropic.messages", "/gateway/v1/messages/", "/gateway/v1/messages/count_tokens"),
        ("anthropic.messages", "/model/claude/invoke", None),
        ("openai.responses", "/v1/responses", "/v1/responses/input_tokens"),
        ("openai.responses", "/v1/responses/compact", None),
        ("gemini.generate_content", f"{GEMINI}:generateContent", f"{GEMINI}:countTokens"),
        ("gemini.generate_content", f"{VERTEX}:streamGenerateContent", f"{VERTEX}:countTokens"),
        ("gemini.generate_content", f"{GEMINI}:embedContent", None),
    ],
)
def test_where_a_request_is_counted(name, path, counted):
    """The endpoint stands beside that of the request; it is free, and known as that."""
    assert COUNTS[name].path(path) == counted
    if counted is not None:
        assert reader_for_path(path).name == name
        assert reader_for_path(counted).request({}, counted).free


def test_what_is_counted_is_the_input():
    """What the endpoints do not take is left out: they refuse what they do not know."""
    asked = {"model": "m", "messages": [], "system": "s", "max_tokens": 5, "stream": True, "temperature": None}
    assert COUNTS["anthropic.messages"].body(asked, "") == {"model": "m", "messages": [], "system": "s"}
    asked = {"model": "m", "input": "x", "max_output_tokens": 5, "previous_response_id": "r", "store": False}
    assert COUNTS["openai.responses"].body(asked, "") == {"model": "m", "input": "x", "previous_response_id": "r"}
    asked = {"contents": [], "generationConfig": {"maxOutputTokens": 5}, "safetySettings": []}
    wrapped = {"generateContentRequest": {**asked, "model": "models/gemini-2.5-flash"}}
    assert COUNTS["gemini.generate_content"].body(asked, f"{GEMINI}:generateContent") == wrapped
    plain = {"contents": [], "generationConfig": {"maxOutputTokens": 5}}
    assert COUNTS["gemini.generate_content"].body(asked, f"{VERTEX}:generateContent") == plain


@pytest.mark.parametrize(
    ("name", "answer", "tokens"),
    [
        ("anthropic.messages", b'{"input_tokens": 14}', 14),
        ("openai.responses", b'{"object": "response.input_tokens", "input_tokens": 0}', 0),
        ("gemini.generate_content", b'{"totalTokens": 31, "promptTokensDetails": []}', 31),
        ("anthropic.messages", b'{"input_tokens": "14"}', None),
        ("anthropic.messages", b"<html>", None),
        ("anthropic.messages", b"", None),
    ],
)
def test_what_an_answer_tells(name, answer, tokens):
    """A count, or nothing at all."""
    assert COUNTS[name].tokens(answer) == tokens


URL_IMAGE = {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}
WEB = [{"type": "web_search_20250305", "name": "web_search"}]


@pytest.mark.parametrize(
    ("body", "bound", "reason"),
    [
        ({"messages": [{"role": "user", "content": "x" * 9_000}]}, 1_000 + 20 + 64, None),
        ({"messages": [{"role": "user", "content": "x"}]}, None, None),
        ({"messages": [{"role": "user", "content": [URL_IMAGE]}]}, 1_084, None),
        (
            {"messages": [{"role": "user", "content": [URL_IMAGE]}], "tools": WEB},
            None,
            "hosted tool web_search_20250305",
        ),
        ({"messages": [{"role": "user", "content": [URL_IMAGE, object()]}]}, None, "content given as object"),
        ({"messages": iter([])}, None, "messages given as an iterator"),
    ],
    ids=["long", "short", "by address", "hosted tool", "unknown", "iterator"],
)
def test_what_a_count_bounds(body, bound, reason):
    """The lower of count and bytes; what only the provider sees, too; never what it does by itself."""
    reader = READERS[2]
    facts = reader.request({"model": "claude-opus-4-7", **body})
    before = facts.input_tokens_bound
    COUNTS[reader.name].apply(1_000, facts, reader, body, "/v1/messages")
    assert facts.unbounded == reason
    assert facts.input_tokens_bound == (before if bound is None else bound)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"previous_response_id": "r"}, None),
        ({"previous_response_id": "r", "tools": [{"type": "web_search"}]}, "hosted tool web_search"),
        ({"previous_response_id": "r", "background": True}, "background response"),
        ({"conversation": "c"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, None),
        (
            {
                "input": [
                    {"type": "item_reference", "id": "i"},
                    {"type": "additional_tools", "tools": [{"type": "mcp"}]},
                ]
            },
            "hosted tool mcp",
        ),
    ],
)
def test_what_a_count_says_of_the_servers_state(body, reason):
    """What an earlier response holds is counted; what else is asked for beside it has no bound all the same."""
    reader = READERS[1]
    asked = {"model": "gpt-5-mini", "input": "x", **body}
    facts = reader.request(asked)
    assert facts.unbounded is not None
    COUNTS[reader.name].apply(1_000, facts, reader, asked, "/v1/responses")
    assert facts.unbounded == reason
