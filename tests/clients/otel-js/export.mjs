// Exports a trace with OpenTelemetry's JavaScript SDK (OTLP in JSON): URL and Authorization header
// from the environment.
import { context, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { BatchSpanProcessor, StackContextManager, TracerProvider } from '@opentelemetry/sdk-trace';

context.setGlobalContextManager(new StackContextManager().enable());
const exporter = new OTLPTraceExporter({
  url: `${process.env.XTRACE_URL}/api/public/otel/v1/traces`,
  headers: { authorization: process.env.XTRACE_AUTHORIZATION },
});
const provider = new TracerProvider({ spanProcessors: [new BatchSpanProcessor({ exporter })] });
const tracer = provider.getTracer('js-app', '1.0');

tracer.startActiveSpan('handle', (root) => {
  root.setAttribute('session.id', 's-js');
  tracer.startActiveSpan('chat gpt-4o', (child) => {
    child.setAttributes({
      'gen_ai.operation.name': 'chat',
      'gen_ai.request.model': 'gpt-4o',
      'gen_ai.usage.input_tokens': 10,
      'gen_ai.usage.output_tokens': 5,
      'gen_ai.input.messages': JSON.stringify([{ role: 'user', content: 'hi' }]),
      'gen_ai.output.messages': JSON.stringify([{ role: 'assistant', content: 'yo' }]),
    });
    child.addEvent('first token', { index: 0 });
    child.recordException(new Error('tool failed'));
    child.setStatus({ code: SpanStatusCode.ERROR, message: 'tool failed' });
    child.end();
  });
  root.end();
  console.log(root.spanContext().traceId);
});
await provider.forceFlush();
await provider.shutdown();
