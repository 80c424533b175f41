"""Exports log records with OpenTelemetry's Python SDK, over HTTP or gRPC (argument): one of a span,
one event, one exception.

The endpoint, the compression and the headers come from OTEL_EXPORTER_OTLP_*, as users set them.
"""

import sys
import time

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

provider = LoggerProvider(resource=Resource.create({"service.name": "py-app"}))
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logger = provider.get_logger("py-app", "1.0")


def emit(body, severity, **more):
    now = time.time_ns()
    logger.emit(LogRecord(timestamp=now, observed_timestamp=now, severity_number=severity, body=body, **more))


with TracerProvider().get_tracer("t").start_as_current_span("handle") as span:
    emit("in a span", SeverityNumber.WARN, severity_text="WARN", attributes={"n": 1, "list": ["a", "b"]})
    emit({"content": "hi", "role": "user"}, SeverityNumber.INFO, event_name="gen_ai.user.message")
emit("out of it", SeverityNumber.ERROR)

assert provider.force_flush(10_000)
provider.shutdown()
print(f"{span.get_span_context().trace_id:032x}")
