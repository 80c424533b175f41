// Integrations of the Langfuse JS SDK 3: its OpenAI wrapper, and LangChain's callback below a trace, as
// Flowise uses it. The first argument says which; the second is the URL of a model server. Prints the trace's id.
import { ChatOpenAI } from "@langchain/openai";
import { Langfuse, observeOpenAI } from "langfuse";
import { CallbackHandler } from "langfuse-langchain";
import OpenAI from "openai";
import { assert } from "./steps.mjs";

const [which, baseURL] = process.argv.slice(2);
const langfuse = new Langfuse({
  publicKey: process.env.LANGFUSE_PUBLIC_KEY,
  secretKey: process.env.LANGFUSE_SECRET_KEY,
  baseUrl: process.env.LANGFUSE_BASE_URL,
});
const trace = langfuse.trace({ name: "handle", userId: "ada" });

if (which === "openai") {
  const openai = observeOpenAI(new OpenAI({ baseURL, apiKey: "sk-none" }), { parent: trace, generationName: "ask" });
  const answer = await openai.chat.completions.create({
    model: "gpt-4o", temperature: 0.5, messages: [{ role: "user", content: "Capital of France?" }],
  });
  assert.equal(answer.choices[0].message.content, "Paris.");
} else {
  const model = new ChatOpenAI({ model: "gpt-4o", temperature: 0.5, apiKey: "sk-none", configuration: { baseURL } });
  const handler = new CallbackHandler({ root: trace });
  const answer = await model.invoke("Capital of France?", { callbacks: [handler], runName: "ask" });
  assert.equal(answer.content, "Paris.");
}
await langfuse.flushAsync();
console.log(trace.id);
