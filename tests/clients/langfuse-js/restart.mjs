// Sends traces while the server is killed and started again; nothing may be lost. Prints how many were sent.
// Major 3 sends batches, 4 and 5 export OTLP. Their queues and retries are what people rely on.
import { setTimeout as sleep } from "node:timers/promises";

const count = Number(process.argv[2]);
const options = {
  publicKey: process.env.LANGFUSE_PUBLIC_KEY,
  secretKey: process.env.LANGFUSE_SECRET_KEY,
  baseUrl: process.env.LANGFUSE_BASE_URL,
  flushAt: 5,
  flushInterval: 0.2,
};

async function batches() {
  const { Langfuse } = await import("langfuse");
  const langfuse = new Langfuse({ ...options, flushInterval: 200, fetchRetryCount: 10, fetchRetryDelay: 300 });
  return {
    send: (number) => langfuse.trace({ id: `restart-${number}`, name: "restarted" }).span({ name: "work" }).end(),
    flush: () => langfuse.shutdownAsync(),
  };
}

async function spans() {
  const { LangfuseSpanProcessor } = await import("@langfuse/otel");
  const { NodeTracerProvider } = await import("@opentelemetry/sdk-trace-node");
  const tracing = await import("@langfuse/tracing");
  const processor = new LangfuseSpanProcessor({ ...options, timeout: 30 });
  new NodeTracerProvider({ spanProcessors: [processor] }).register();
  return {
    send: () => tracing.startObservation("restarted").end(),
    flush: () => processor.forceFlush(),
  };
}

const client = process.env.LANGFUSE_MAJOR === "3" ? await batches() : await spans();
for (let number = 0; number < count; number++) {
  client.send(number);
  await sleep(30);
}
await client.flush();
console.log(count);
