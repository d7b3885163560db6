"""Calls with media by the real SDKs under a strict budget: the hold covers what the vendor's rule bills for them."""

import asyncio
import base64
import struct

import anthropic
import openai
import pytest

from tollspan.budget import budget
from tollspan.console._provider import Answer, LocalProvider

PAGE = b"<< /Type /Page /Parent 2 0 R >>\nendobj\n"
PDF = (
    b"%PDF-1.4\n"
    + PAGE * 4
    + b"9 0 obj\n<< /Length 40 >>\nstream\nBT (four pages of so few words) Tj ET\nendstream\nendobj\n%%EOF"
)


def png(width, height):
    data = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x06\0\0\0" + bytes(200_000)
    )
    return base64.b64encode(data).decode()


def openai_image(size, detail="auto"):
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(*size)}", "detail": detail}}


def openai_file():
    data = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
    return {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}


def openai_sound(seconds):
    frames = bytes(16_000 * 2 * seconds)
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"data\0\0\0\0"
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(head + frames).decode(), "format": "wav"}}


def claude_image(size):
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png(*size)}}


def claude_file():
    data = base64.b64encode(PDF).decode()
    return {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}


# What is sent, and the tokens that the vendor's guide says are billed for it.
CASES = [
    ("gpt-4o", [openai_image((1024, 1024), "high")], 765),
    ("gpt-4o", [openai_image((4096, 8192), "low")], 85),
    ("gpt-4o-mini", [openai_image((2048, 4096), "high")] * 3, 3 * (2_833 + 6 * 5_667)),
    ("gpt-5-mini", [openai_image((1800, 2400))], 2_353),
    ("gpt-5.4", [openai_image((6000, 4000), "original")], 10_000),
    ("gpt-4o", [openai_file()], 4 * 765 + 20),
    ("gpt-audio", [openai_sound(60)], 600),
    ("claude-haiku-4-5", [claude_image((1000, 1000))], 1_334),
    ("claude-haiku-4-5", [claude_image((8000, 8000))] * 5, 5 * 1_568),
    ("claude-opus-4-8", [claude_image((2576, 1456))], 4_784),
    ("claude-haiku-4-5", [claude_file()], 4 * 1_568 + 20),
]


@pytest.fixture(scope="module")
def vendor():
    """A provider that bills the input tokens which a header names."""
    with LocalProvider(
        answer=lambda request: Answer(output_tokens=20, input_tokens=int(request.headers["x-billed"]))
    ) as running:
        yield running


def ask(vendor, model, parts, billed):
    """One call of the model by its vendor's SDK."""
    headers, asked = {"x-billed": str(billed)}, {"model": model, "messages": [{"role": "user", "content": parts}]}
    if model.startswith("claude"):
        with anthropic.Anthropic(base_url=vendor.anthropic_url, api_key="k", default_headers=headers) as client:
            client.messages.create(max_tokens=20, **asked)
    else:
        with openai.OpenAI(base_url=vendor.openai_url, api_key="k", default_headers=headers) as client:
            client.chat.completions.create(max_completion_tokens=20, **asked)


async def aask(vendor, model, parts, billed):
    """The same by the SDK's async client."""
    headers, asked = {"x-billed": str(billed)}, {"model": model, "messages": [{"role": "user", "content": parts}]}
    if model.startswith("claude"):
        async with anthropic.AsyncAnthropic(
            base_url=vendor.anthropic_url, api_key="k", default_headers=headers
        ) as client:
            await client.messages.create(max_tokens=20, **asked)
    else:
        async with openai.AsyncOpenAI(base_url=vendor.openai_url, api_key="k", default_headers=headers) as client:
            await client.chat.completions.create(max_completion_tokens=20, **asked)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("model", "parts", "billed"), CASES, ids=[f"{m}-{b}" for m, _, b in CASES])
def test_the_hold_covers_what_is_billed(vendor, seen, model, parts, billed, *, asynchronous):
    """The cost is within the hold, and the hold within a few times the cost."""
    with budget("5 USD", name="b"):
        if asynchronous:
            asyncio.run(aask(vendor, model, parts, billed))
        else:
            ask(vendor, model, parts, billed)
    (hold,) = seen.of("precheck_hold")
    assert seen.end.usage["tokens_in"] == billed
    times = 20 if model == "gpt-audio" else 8  # this provider bills sound as text, which is cheaper
    assert seen.end.spend_usd <= hold.cost_est_usd <= times * seen.end.spend_usd
