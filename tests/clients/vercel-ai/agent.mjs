// Generates with a tool and streams with the Vercel AI SDK; prints the trace's id.
// usage: agent.mjs MODEL_URL
import { createOpenAI } from "@ai-sdk/openai";
import { trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { embed, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
provider.register();

const openai = createOpenAI({ baseURL: process.argv[2], apiKey: "none" });
const telemetry = {
  isEnabled: true,
  functionId: "geographer",
  metadata: { userId: "ada", sessionId: "chat-7", tags: ["js"], topic: "maps" },
};
const capital = tool({
  description: "The capital of a country",
  inputSchema: z.object({ country: z.string() }),
  execute: async () => "Paris",
});

const id = await trace.getTracer("app").startActiveSpan("handle", async (span) => {
  const common = {
    model: openai.chat("gpt-4o"),
    system: "Be brief.",
    prompt: "What is the capital of France?",
    experimental_telemetry: telemetry,
  };
  await generateText({ ...common, tools: { capital }, stopWhen: stepCountIs(3) });
  await streamText(common).consumeStream();
  await embed({
    model: openai.textEmbeddingModel("text-embedding-3-small"),
    value: "Paris",
    experimental_telemetry: telemetry,
  });
  span.end();
  return span.spanContext().traceId;
});
await provider.shutdown();
console.log(id);
