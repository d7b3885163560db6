"""Records of calls for the tests of the exporter."""

from tollspan.exporter import CallRecord, Held
from tollspan.ledger import Limit, event_id_for, new_call_id

USD = Limit("money", "", 0, "USD", 10**12)
TOKENS = Limit("tokens", "user=ada", 3600, "tokens", 10**6)
REQUESTS = Limit("calls", "", 0, "requests", 100)
LIMITS = (USD, TOKENS, REQUESTS)


def a_record(**fields):
    """A call that was answered and cost 3000 nano-USD."""
    usual = {
        "call_id": new_call_id(),
        "started": 1_700_000_000.0,
        "operation": "chat",
        "provider": "openai",
        "request_model": "gpt-4o",
        "usage": {"tokens_in": 100, "tokens_out": 20, "tokens_reasoning": 10},
        "cost": 3000,
        "cost_source": "genai-prices",
        "total_ms": 250.0,
    }
    return CallRecord(**{**usual, **fields})


def held_by(record, *, nano=9000):
    """What was held for the record's first attempt, in all the limits."""
    return Held(event_id_for(record.call_id, "precheck_hold"), LIMITS, (nano or 0, 5000, 1), nano)
