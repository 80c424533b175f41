"""Exports a trace with OpenTelemetry's Python SDK: OTLP in protobuf, over HTTP or gRPC (argument).

The endpoint, the compression and the headers come from OTEL_EXPORTER_OTLP_*, as users set them.
"""

import sys

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode

resource = Resource.create({"service.name": "py-app", "deployment.environment.name": "staging"})
provider = TracerProvider(resource=resource)
exporter = OTLPSpanExporter()
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("py-app", "1.0")

with tracer.start_as_current_span("handle") as root:
    root.set_attribute("user.id", "ada")
    link = Link(root.get_span_context(), {"why": "test"})
    with tracer.start_as_current_span("chat gpt-4o", links=[link]) as child:
        child.set_attribute("gen_ai.operation.name", "chat")
        child.set_attribute("gen_ai.request.model", "gpt-4o")
        child.set_attribute("gen_ai.usage.input_tokens", 10)
        child.set_attribute("gen_ai.usage.output_tokens", 5)
        child.add_event("gen_ai.user.message", {"content": "hi"})
        child.add_event("gen_ai.choice", {"index": 0, "message": "yo"})
        child.set_status(Status(StatusCode.OK))
    for number in range(600):
        with tracer.start_as_current_span(f"step {number}"):
            pass

assert provider.force_flush(10_000)
provider.shutdown()
print(f"{root.get_span_context().trace_id:032x}")
