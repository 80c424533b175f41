// Integrations of the Langfuse JS SDK 4 and 5: its OpenAI wrapper, and LangChain's callback.
// The first argument says which; the second is the URL of a model server. Prints the trace's id.
import { ChatOpenAI } from "@langchain/openai";
import { CallbackHandler } from "@langfuse/langchain";
import { observeOpenAI } from "@langfuse/openai";
import { LangfuseSpanProcessor } from "@langfuse/otel";
import { propagateAttributes, startActiveObservation } from "@langfuse/tracing";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import OpenAI from "openai";
import { assert } from "./steps.mjs";

const [which, baseURL] = process.argv.slice(2);
const provider = new NodeTracerProvider({ spanProcessors: [new LangfuseSpanProcessor()] });
provider.register();

async function call() {
  if (which === "openai") {
    const openai = observeOpenAI(new OpenAI({ baseURL, apiKey: "sk-none" }), { generationName: "ask" });
    const answer = await openai.chat.completions.create({
      model: "gpt-4o", temperature: 0.5, messages: [{ role: "user", content: "Capital of France?" }],
    });
    assert.equal(answer.choices[0].message.content, "Paris.");
  } else {
    const model = new ChatOpenAI({ model: "gpt-4o", temperature: 0.5, apiKey: "sk-none", configuration: { baseURL } });
    const answer = await model.invoke("Capital of France?", { callbacks: [new CallbackHandler()], runName: "ask" });
    assert.equal(answer.content, "Paris.");
  }
}

const id = await startActiveObservation("handle", async (root) => {
  await propagateAttributes({ userId: "ada" }, call);
  return root.traceId;
});
await provider.forceFlush();
console.log(id);
