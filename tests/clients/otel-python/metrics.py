"""Exports metrics with OpenTelemetry's Python SDK, over HTTP or gRPC (argument): counters, a histogram with
exemplars, an exponential histogram, a gauge, in the temporality of the second argument.

The endpoint, the compression and the headers come from OTEL_EXPORTER_OTLP_*, as users set them.
"""

import os
import sys

from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

os.environ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = sys.argv[2]
if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

provider = MeterProvider(
    resource=Resource.create({"service.name": "py-app", "deployment.environment.name": "staging"}),
    metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=60_000)],
    views=[View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())],
    exemplar_filter=TraceBasedExemplarFilter(),
)
meter = provider.get_meter("py-app", "1.0")
requests = meter.create_counter("requests", unit="1", description="how many")
depth = meter.create_up_down_counter("depth")
duration = meter.create_histogram("duration", unit="s")
size = meter.create_histogram("size", unit="By")
temperature = meter.create_gauge("temperature")

with TracerProvider().get_tracer("t").start_as_current_span("handle") as span:
    for number in range(10):
        requests.add(2, {"model": "gpt-4o", "stream": True})
        duration.record(0.1 * (number + 1), {"model": "gpt-4o"})
        size.record(2**number)
depth.add(5)
depth.add(-2)
temperature.set(36.6, {"room": 1})

assert provider.force_flush(10_000)
requests.add(3, {"model": "gpt-4o", "stream": True})
provider.shutdown()
print(f"{span.get_span_context().trace_id:032x}")
