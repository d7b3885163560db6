"""Exports of providers for the tests, written by hand after the documented formats. Each says where it is documented.

All are of 2026-09-21 and 2026-09-22 (UTC); figures are made up.
"""

import json
from datetime import UTC, datetime

FIRST, SECOND = "2026-09-21", "2026-09-22"
DAY_S = 86_400


def epoch(day):
    """When a day begins, in epoch seconds."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def openai_costs(lines, *, has_more=False, days=(FIRST, SECOND)):
    """An answer of `GET /v1/organization/costs` (platform.openai.com/docs/api-reference/usage/costs).

    `lines` are (day, line_item, value); the costs are grouped by line_item where that is no None.
    """
    buckets = [
        {
            "object": "bucket",
            "start_time": epoch(day),
            "end_time": epoch(day) + DAY_S,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": value, "currency": "usd"},
                    "line_item": item,
                    "project_id": None,
                }
                for own, item, value in lines
                if own == day
            ],
        }
        for day in days
    ]
    return json.dumps({"object": "page", "data": buckets, "has_more": has_more, "next_page": None})


OPENAI_COSTS = openai_costs(
    [
        (FIRST, "gpt-4o-2024-08-06, input", 1.5),
        (FIRST, "gpt-4o-2024-08-06, cached input", 0.25),
        (FIRST, "gpt-4o-2024-08-06, output", 0.25),
        (FIRST, "web search tool calls", 0.3),
        (SECOND, "priority | gpt-5-mini, output, long context", 0.5),
    ]
)

# The CSV of the costs page has the fields of the API as columns; days without costs have empty amounts.
OPENAI_COSTS_CSV = f"""\
start_time,end_time,start_time_iso,amount_value,amount_currency,line_item,project_id,organization_id
{epoch(FIRST)},{epoch(FIRST) + DAY_S},2026-09-21T00:00:00+00:00,1.75,usd,"gpt-4o-2024-08-06, input",proj_a,org-1
{epoch(FIRST)},{epoch(FIRST) + DAY_S},2026-09-21T00:00:00+00:00,0.25000000,usd,"gpt-4o-2024-08-06, output",proj_b,org-1
{epoch(SECOND)},{epoch(SECOND) + DAY_S},2026-09-22T00:00:00+00:00,,,,,
"""

# An answer of `GET /v1/organization/usage/completions` (platform.openai.com/docs/api-reference/usage/completions).
OPENAI_USAGE = json.dumps(
    {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": epoch(FIRST),
                "end_time": epoch(FIRST) + DAY_S,
                "results": [
                    {
                        "object": "organization.usage.completions.result",
                        "input_tokens": 1000,
                        "output_tokens": 500,
                        "input_cached_tokens": 800,
                        "input_audio_tokens": 0,
                        "output_audio_tokens": 0,
                        "num_model_requests": 5,
                        "project_id": None,
                        "user_id": None,
                        "api_key_id": None,
                        "model": "gpt-4o-2024-08-06",
                        "batch": False,
                    }
                ],
            }
        ],
        "has_more": False,
        "next_page": None,
    }
)

OPENAI_USAGE_CSV = f"""\
start_time,end_time,project_id,num_model_requests,model,batch,service_tier,input_tokens,output_tokens,input_cached_tokens
{epoch(FIRST)},{epoch(FIRST) + DAY_S},proj_a,5,gpt-4o-2024-08-06,False,default,1000,500,800
"""


def anthropic_costs(lines, *, days=(FIRST, SECOND)):
    """An answer of `GET /v1/organizations/cost_report` (platform.claude.com/docs/en/api/admin/cost_report).

    `lines` are (day, model, description, cents, service tier, token type), grouped by description.
    """
    buckets = [
        {
            "starting_at": f"{day}T00:00:00Z",
            "ending_at": f"{datetime.fromtimestamp(epoch(day) + DAY_S, UTC):%Y-%m-%d}T00:00:00Z",
            "results": [
                {
                    "amount": cents,
                    "currency": "USD",
                    "cost_type": "tokens" if model else "web_search",
                    "description": description,
                    "model": model,
                    "service_tier": tier,
                    "token_type": kind,
                    "context_window": "0-200k",
                    "inference_geo": None,
                    "workspace_id": None,
                }
                for own, model, description, cents, tier, kind in lines
                if own == day
            ],
        }
        for day in days
    ]
    return json.dumps({"data": buckets, "has_more": False, "next_page": None})


SONNET = "claude-sonnet-4-20250514"
ANTHROPIC_COSTS = anthropic_costs(
    [
        (FIRST, SONNET, "Claude Sonnet 4 Usage - Input Tokens", "123.78912", "standard", "uncached_input_tokens"),
        (FIRST, SONNET, "Claude Sonnet 4 Usage - Cache Read", "50", "standard", "cache_read_input_tokens"),
        (FIRST, SONNET, "Claude Sonnet 4 Usage - Batch Output", "26.21088", "batch", "output_tokens"),
        (FIRST, None, "Web Search Usage", "100", None, None),
    ]
)

# An answer of `GET /v1/organizations/usage_report/messages` (platform.claude.com/docs/en/api/admin/usage_report).
ANTHROPIC_USAGE = json.dumps(
    {
        "data": [
            {
                "starting_at": f"{FIRST}T00:00:00Z",
                "ending_at": f"{SECOND}T00:00:00Z",
                "results": [
                    {
                        "uncached_input_tokens": 1000,
                        "cache_creation": {"ephemeral_1h_input_tokens": 100, "ephemeral_5m_input_tokens": 200},
                        "cache_read_input_tokens": 200,
                        "output_tokens": 500,
                        "server_tool_use": {"web_search_requests": 10},
                        "api_key_id": None,
                        "workspace_id": None,
                        "model": SONNET,
                        "service_tier": "standard",
                        "context_window": "0-200k",
                    }
                ],
            }
        ],
        "has_more": False,
        "next_page": None,
    }
)

# The CSV of the console's Cost page (support.claude.com, "Cost and Usage Reporting in the Claude Console").
ANTHROPIC_COSTS_CSV = """\
usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type
2026-09-21,Claude Sonnet 4,Default,key-1,message,\N{LESS-THAN OR EQUAL TO} 200k,input_no_cache,1.50,1.50,token
2026-09-21,Claude Sonnet 4,Default,key-1,batch,\N{LESS-THAN OR EQUAL TO} 200k,input_cache_read,0.50,0.50,token
"""

ANTHROPIC_USAGE_CSV = """\
usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,\
usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,\
web_search_count
2026-09-21 13:00,claude-sonnet-4-20250514,key-1,Default,standard,,1000,200,100,200,500,0
"""

# An answer of `GET /api/v1/activity` (openrouter.ai/docs/api/api-reference/analytics/get-user-activity).
OPENROUTER = json.dumps(
    {
        "data": [
            {
                "date": FIRST,
                "model": "openai/gpt-4.1",
                "model_permaslug": "openai/gpt-4.1-2025-04-14",
                "endpoint_id": "550e8400-e29b-41d4-a716-446655440000",
                "provider_name": "OpenAI",
                "usage": 2.0,
                "byok_usage_inference": 0.7,
                "requests": 5,
                "prompt_tokens": 50,
                "completion_tokens": 125,
                "reasoning_tokens": 25,
            },
            {
                "date": f"{SECOND} 00:00:00",
                "model": "anthropic/claude-sonnet-4.5",
                "model_permaslug": "anthropic/claude-4.5-sonnet-20250929",
                "endpoint_id": "e2",
                "provider_name": "Anthropic",
                "usage": 0.5,
                "byok_usage_inference": 0,
                "requests": 1,
                "prompt_tokens": 50,
                "completion_tokens": 125,
                "reasoning_tokens": 0,
            },
        ]
    }
)

# The CSV of single requests from the activity page (openrouter.ai/docs/guides/guides/activity-export).
OPENROUTER_CSV = """\
generation_id,created_at,cost_total,tokens_prompt,tokens_completion,model_permaslug,variant,provider_name
gen-1,2026-09-21 03:46:57.713,1.25,10389,137,openai/gpt-4.1-2025-04-14,standard,OpenAI
gen-2,2026-09-21 23:59:59.999,0.75,10389,137,openai/gpt-4.1-2025-04-14,standard,OpenAI
gen-3,2026-09-22 03:46:57.713,0,10389,137,openai/gpt-oss-120b,free,Chutes
"""

# Columns: docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html; usage types: the user guide of Bedrock,
# "Understanding your Amazon Bedrock Cost and Usage Report data".
CUR_HEADER = (
    "line_item_usage_start_date,line_item_product_code,line_item_line_item_type,line_item_usage_type,"
    "line_item_unblended_cost,line_item_currency_code,product,product_servicecode"
)
CUR = f"""\
{CUR_HEADER}
2026-09-21T00:00:00Z,AmazonBedrock,Usage,USE1-Claude4.5Haiku-input-tokens,1.00,USD,,AmazonBedrock
2026-09-21T05:00:00Z,AmazonBedrock,Usage,USE1-Claude4.5Haiku-cache-read-input-token-count-cross-region-global,0.25,USD,,
2026-09-21T06:00:00Z,AmazonBedrock,Usage,USE1-Claude4.5Haiku-output-tokens-batch,0.75,USD,,
2026-09-21T06:00:00Z,AmazonEC2,Usage,USE1-BoxUsage:m5.large,9.99,USD,,AmazonEC2
2026-09-21T06:00:00Z,AmazonBedrock,Usage,USE1-Guardrail-ContentPolicyUnits,0.15,USD,,
2026-09-21T06:00:00Z,AmazonBedrock,Tax,USE1-Claude4.5Haiku-input-tokens,0.20,USD,,
2026-09-22T06:00:00Z,6qh2xxample,Usage,USE1-MP:USE1_OutputTokenCount-Units,0.50,USD,\
"{{""product_name"": ""Claude Sonnet 4.6 (Amazon Bedrock Edition)""}}",AmazonBedrockFoundationModels
"""
OLD_CUR = """\
identity/LineItemId,lineItem/UsageStartDate,lineItem/ProductCode,lineItem/LineItemType,lineItem/UsageType,\
lineItem/UnblendedCost,lineItem/CurrencyCode,product/ProductName
1,2026-09-21T00:00:00Z,AmazonBedrock,Usage,USE1-Claude4.5Haiku-input-tokens,2.0000000000,USD,Amazon Bedrock
"""
