"""Calls a model below a span `handle`, seen by one instrumentation; prints the trace's id.

usage: openai_calls.py openinference|openllmetry|openai-v2 MODEL_URL
"""

import sys

from openai import OpenAI
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TOOL = {
    "type": "function",
    "function": {
        "name": "capital",
        "description": "The capital of a country",
        "parameters": {"type": "object", "properties": {"country": {"type": "string"}}},
    },
}


def instrumentor(name):
    if name == "openinference":
        from openinference.instrumentation.openai import OpenAIInstrumentor
    elif name == "openllmetry":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    else:
        from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
    return OpenAIInstrumentor()


def main():
    which, model_url = sys.argv[1:]
    spans, records = TracerProvider(), LoggerProvider()
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    records.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    trace.set_tracer_provider(spans)
    set_logger_provider(records)
    instrumentor(which).instrument(tracer_provider=spans, logger_provider=records)

    client = OpenAI(base_url=model_url, api_key="none")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    with trace.get_tracer("app").start_as_current_span("handle") as span:
        chat = {"model": "gpt-4o", "messages": messages, "temperature": 0.5}
        client.chat.completions.create(**chat, tools=[TOOL])
        stream = client.chat.completions.create(
            **chat, stream=True, stream_options={"include_usage": True}
        )
        for _ in stream:
            pass
        client.embeddings.create(model="text-embedding-3-small", input="Paris")
    records.shutdown()
    spans.shutdown()
    print(format(span.get_span_context().trace_id, "032x"))


main()
