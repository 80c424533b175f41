//! Exports a trace with OpenTelemetry's SDK for Rust, compressed by zstd, over HTTP in protobuf or over
//! gRPC (argument). Endpoint and headers come from `OTEL_EXPORTER_OTLP_*`, as users set them.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_otlp::{Compression, SpanExporter, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;

fn main() {
    // gRPC's channel lives on a runtime, the HTTP client blocks a thread of its own.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let over_grpc = std::env::args().nth(1).is_some_and(|name| name == "grpc");
    let exporter = if over_grpc {
        let _entered = runtime.enter();
        let exporter = SpanExporter::builder().with_tonic();
        exporter.with_compression(Compression::Zstd).build()
    } else {
        let exporter = SpanExporter::builder().with_http();
        exporter.with_compression(Compression::Zstd).build()
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.unwrap())
        .build();
    let tracer = provider.tracer("rust-app");
    let trace_id = tracer.in_span("handle", |context| {
        let mut chat = tracer
            .span_builder("chat gpt-4o")
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("gen_ai.request.model", "gpt-4o"),
                KeyValue::new("gen_ai.usage.input_tokens", 10),
                KeyValue::new("gen_ai.usage.output_tokens", 5),
            ])
            .start(&tracer);
        chat.end();
        context.span().span_context().trace_id()
    });
    provider.shutdown().unwrap();
    println!("{trace_id}");
}
