"""Runs an agent of Pydantic AI with a tool; prints the trace's id. usage: pydantic_ai_agent.py MODEL_URL"""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

spans = TracerProvider()
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(spans)
Agent.instrument_all()

provider = OpenAIProvider(base_url=sys.argv[1], api_key="none")
agent = Agent(OpenAIChatModel("gpt-4o", provider=provider), name="geographer", instructions="Be brief.")


@agent.tool_plain
def capital(country: str) -> str:
    return "Paris"


with trace.get_tracer("app").start_as_current_span("handle") as span:
    agent.run_sync("What is the capital of France?")
spans.shutdown()
print(format(span.get_span_context().trace_id, "032x"))
