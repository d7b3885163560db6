"""The terminal event of a stream is its end, whether or not anybody reads on, closes it, or lets go of it."""

import pytest
from sdk_calls import KINDS, create, drive, listed, make_client, resolved

from tollspan.budget import budget
from tollspan.console._provider import Answer, LocalProvider


@KINDS
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_a_stream_settles_with_its_last_event(provider, seen, *, kind, asynchronous):
    """A framework that stops at the last event, and keeps the stream, has its call in the ledger all the same."""

    async def work():
        client = make_client(provider, "anthropic" if kind == "messages" else "openai", asynchronous=asynchronous)
        with budget("5 USD", name="b") as entry:
            stream = await resolved(create(client, kind, stream=True))
            raw = stream.response.stream  # what the SDK reads from; nobody closes it
            if asynchronous:
                async for chunk in raw:
                    if is_last(kind, chunk):
                        break
            else:
                for chunk in raw:
                    if is_last(kind, chunk):
                        break
            assert (entry.held, entry.spent > 0) == (0, True)
            assert seen.end.usage["tokens_out"] > 0
            await resolved(stream.close())
            await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    assert (seen.end.status, seen.end.estimated, len(seen.of("commit"))) == ("ok", False, 1)


def is_last(kind, chunk):
    return {"chat": b"[DONE]", "responses": b"response.completed", "messages": b"message_stop"}[kind] in chunk


@KINDS
@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_its_name_in_the_text_ends_nothing(seen, *, kind, asynchronous):
    """A model that writes about terminal events is read to its real one."""
    text = "data: [DONE] is how it ends, or message_stop, or response.completed"

    async def work():
        client = make_client(provider, "anthropic" if kind == "messages" else "openai", asynchronous=asynchronous)
        await listed(await resolved(create(client, kind, stream=True)))
        await resolved(client.close())

    with LocalProvider(answer=lambda _: Answer(text=text)) as provider:
        drive(work(), asynchronous=asynchronous)
        assert (seen.end.status, seen.end.estimated) == ("ok", False)
        assert seen.end.usage["tokens_out"] == provider.billed[-1].output_tokens
