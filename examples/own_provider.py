"""Spans and ledger with a TracerProvider of one's own, beside whatever else it exports to."""

import offline  # noqa: F401 - answers without a key
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from tollspan.exporter import LedgerSpanProcessor
from tollspan.instrumentation import instrument
from tollspan.ledger import open_ledger


def one_line(span: ReadableSpan) -> str:
    return f"span: {span.name}, {(span.attributes or {}).get('gen_ai.usage.cost.amount')} USD\n"


ledger = open_ledger()
provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
provider.add_span_processor(LedgerSpanProcessor(ledger))
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
trace.set_tracer_provider(provider)
instrument()

with trace.get_tracer("shop").start_as_current_span("describe a chair"):
    OpenAI().chat.completions.create(
        model="gpt-4o-mini", max_tokens=100, messages=[{"role": "user", "content": "Describe a chair."}]
    )
provider.force_flush()
print(f"ledger: ${ledger.spend_today():.6f} today")
ledger.close()
