"""Names on spans: the current OpenTelemetry GenAI conventions, in one place.

Source: the semantic-conventions-genai repository (status Development). Literals, because the released constants lag
behind (cache_write is still cache_creation there). Cost attributes are those proposed upstream, not adopted yet.
"""

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

USAGE = {
    "tokens_in": "gen_ai.usage.input_tokens",
    "tokens_out": "gen_ai.usage.output_tokens",
    "tokens_cache_read": "gen_ai.usage.cache_read.input_tokens",
    "tokens_cache_write": "gen_ai.usage.cache_write.input_tokens",
    "tokens_reasoning": "gen_ai.usage.reasoning.output_tokens",
    "tokens_audio_in": "gen_ai.usage.audio.input_tokens",
    "tokens_audio_out": "gen_ai.usage.audio.output_tokens",
}
"""From our usage keys to span attributes."""

COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"

EVENT_ID = "tollspan.event_id"
BUDGET_NAME = "tollspan.budget.name"
BUDGET_WAIT_MS = "tollspan.budget.wait_ms"
COST_ESTIMATED = "tollspan.cost.estimated"
COST_REASON = "tollspan.cost.reason"
USAGE_ASKED = "tollspan.request.include_usage"
COUNTED_TOKENS = "tollspan.request.counted_tokens"
OUTPUT_CLAMPED = "tollspan.request.clamped_max_tokens"
FALLBACK_FROM = "tollspan.request.fallback_from"
ATTEMPTS = "tollspan.attempts"
UNCOVERED = "tollspan.uncovered"
