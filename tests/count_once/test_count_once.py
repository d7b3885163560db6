"""However many instrumentations see a call, in whatever order they came, it is one commit with the usage billed."""

import pytest
from peers import CACHED, IN, NEEDED, OUT, PEERS, WAYS, missing

if absent := missing([*NEEDED, *(module for rows in PEERS.values() for module, _ in rows)]):
    needed = f"these need the packages of .ci/peers.txt; not installed: {', '.join(absent)}"
    pytest.skip(needed, allow_module_level=True)

SETS = [*((peer,) for peer in PEERS), ("openllmetry", "openinference"), ("openinference", "official"), tuple(PEERS)]
EACH_SET = pytest.mark.parametrize("peers", SETS, ids="+".join)
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def shown(events):
    """What is compared of events: their types and what they say was billed."""
    keys = ("tokens_in", "tokens_out", "tokens_cache_read")
    return [(event.event_type, *(event.usage.get(key, 0) for key in keys)) for event in events]


ONE = [("commit", IN, OUT, CACHED)]
UNTOLD = [("commit", 0, 0, 0)]
# OpenLLMetry reads no usage of a stream that is asked for as a raw response, as LiteLLM does.
WITHOUT_USAGE = {("litellm_stream", ("openllmetry",))}


@EACH_SET
@EACH_WAY
@pytest.mark.parametrize("ours", ["first", "last"])
def test_with_our_patch(world, provider, peers, way, ours):
    """Our patch and any set of others make one commit of a call, ours, in either order of activation."""
    with world(peers, ours) as seen:
        way(provider)
        assert shown(seen.ends) == ONE
        assert seen.ends[0].category is None


@EACH_SET
@EACH_WAY
def test_without_our_patch(world, provider, peers, way):
    """Without our patch any set of others that sees a call makes one commit of it, with its price."""
    with world(peers, None) as seen:
        way(provider)
        assert len(seen.spans) > 0
        if (way.__name__, peers) in WITHOUT_USAGE:
            assert shown(seen.ends) == UNTOLD
            assert seen.ends[0].cost_actual_usd is None
            assert seen.ends[0].reason == "the span carried no usage"
        else:
            assert shown(seen.ends) == ONE
            assert seen.ends[0].cost_actual_usd > 0


@EACH_SET
@pytest.mark.parametrize("ours", ["first", "last", None])
def test_an_agent_over_two_calls(world, provider, peers, ours):
    """The span of an agent, with the sum of its calls, is no call: two calls below it are two commits."""
    with world(peers, ours) as seen:
        with seen.tracer.start_as_current_span("invoke_agent") as span:
            span.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 2 * IN})
            WAYS["openai_plain"](provider)
            WAYS["anthropic_plain"](provider)
        assert shown(seen.ends) == 2 * ONE


@pytest.mark.parametrize("peers", [(peer,) for peer in PEERS], ids="+".join)
@pytest.mark.parametrize("way", [way for name, way in WAYS.items() if "openai" in name])
def test_unsampled(world, provider, unsampled, peers, way):
    """Where the sampler drops every span, the calls that others see are counted all the same, and none is exported."""
    with world(peers, None) as seen:
        way(provider)
        assert seen.spans == []
        assert shown(seen.ends) == ONE
