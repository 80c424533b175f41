// What people do with the Langfuse JS SDK 3: it sends batches of events to /ingestion.
import { randomUUID } from "node:crypto";
import { Langfuse, LangfuseMedia } from "langfuse";
import { assert, eventually, run } from "./steps.mjs";

const options = {
  publicKey: process.env.LANGFUSE_PUBLIC_KEY,
  secretKey: process.env.LANGFUSE_SECRET_KEY,
  baseUrl: process.env.LANGFUSE_BASE_URL,
};
const langfuse = new Langfuse(options);
const key = randomUUID().slice(0, 8);
const id = `js-trace-${key}`;

await run({
  async auth() {
    const found = await langfuse.api.projectsGet();
    assert.equal(found.data.length, 1);
    const wrong = new Langfuse({ ...options, secretKey: "sk-lf-wrong" });
    const refused = await wrong.api.projectsGet().catch((error) => error);
    assert.ok(!refused.data, JSON.stringify(refused));
  },

  async traces() {
    const trace = langfuse.trace({
      id, name: "request", userId: `ada-${key}`, sessionId: `s-${key}`, tags: ["b", "a"],
      metadata: { tier: "gold" }, input: { q: "hi" }, release: "r1", public: true,
    });
    const span = trace.span({ name: "work", input: { a: 1 } });
    const generation = span.generation({
      name: "llm", model: "gpt-4o", modelParameters: { temperature: 0.2 }, input: [{ role: "user", content: "hi" }],
    });
    generation.end({ output: "hello", usage: { promptTokens: 10, completionTokens: 5 } });
    span.event({ name: "seen", level: "WARNING" });
    span.end({ output: { b: 2 } });
    trace.update({ output: { a: "hello" } });
    generation.update({ metadata: { late: true } });
    await langfuse.flushAsync();
  },

  async reads() {
    const trace = (await eventually(() => langfuse.fetchTrace(id))).data;
    assert.deepEqual([trace.name, trace.tags, trace.output], ["request", ["a", "b"], { a: "hello" }]);
    const named = Object.fromEntries(trace.observations.map((one) => [one.name, one]));
    assert.equal(named.llm.parentObservationId, named.work.id);
    assert.deepEqual(named.llm.usageDetails, { input: 10, output: 5, total: 15 });
    assert.deepEqual(named.llm.metadata, { late: true });
    const found = await langfuse.fetchTraces({ userId: `ada-${key}`, tags: ["a", "b"] });
    assert.deepEqual(found.data.map((one) => one.id), [id]);
    const generations = await langfuse.fetchObservations({ traceId: id, type: "GENERATION" });
    assert.equal(generations.data.length, 1);
  },

  async scores() {
    langfuse.score({ id: `sc-${key}`, traceId: id, name: "quality", value: 0.5, comment: "fine" });
    langfuse.score({ traceId: id, name: "tone", value: "kind" });
    await langfuse.flushAsync();
    await eventually(async () => {
      const found = await langfuse.api.scoreV2Get({ userId: `ada-${key}` });
      assert.deepEqual(found.data.map((one) => one.name).sort(), ["quality", "tone"]);
    });
    await langfuse.api.scoreDelete(`sc-${key}`);
  },

  async sessions() {
    const found = await langfuse.fetchSessions();
    assert.ok(found.data.some((one) => one.id === `s-${key}`));
  },

  async prompts() {
    const name = `folder/greet ${key}`;
    await langfuse.createPrompt({ name, prompt: "Hello {{who}}", labels: ["production"], config: { t: 1 } });
    await langfuse.createPrompt({ name, prompt: "Hi {{who}}", labels: ["staging"] });
    const prompt = await langfuse.getPrompt(name);
    assert.deepEqual([prompt.version, prompt.compile({ who: "Ada" })], [1, "Hello Ada"]);
    assert.equal((await langfuse.getPrompt(name, undefined, { label: "latest" })).version, 2);
    await langfuse.updatePrompt({ name, version: 2, newLabels: ["production"] });
    assert.equal((await langfuse.getPrompt(name, undefined, { cacheTtlSeconds: 0 })).version, 2);
    const fallback = await langfuse.getPrompt(`none-${key}`, undefined, { fallback: "else", maxRetries: 0 });
    assert.ok(fallback.isFallback);
    langfuse.trace({ id: `p-${key}` }).generation({ id: `pg-${key}`, name: "linked", prompt });
    await langfuse.flushAsync();
    const linked = (await eventually(() => langfuse.fetchObservation(`pg-${key}`))).data;
    assert.deepEqual([linked.promptName, linked.promptVersion], [name, 1]);
  },

  async experiments() {
    const name = `set ${key}`;
    await langfuse.createDataset({ name, description: "d" });
    for (const n of [0, 1]) await langfuse.createDatasetItem({ datasetName: name, input: { n }, expectedOutput: n });
    const dataset = await langfuse.getDataset(name);
    assert.equal(dataset.items.length, 2);
    for (const item of dataset.items) await item.link(langfuse.trace({ name: "trial" }), "run 1");
    await langfuse.flushAsync();
    const found = await langfuse.getDatasetRun({ datasetName: name, runName: "run 1" });
    assert.equal(found.datasetRunItems.length, 2);
  },

  async media() {
    const content = Buffer.from(`PNG${key}`);
    const picture = new LangfuseMedia({ contentBytes: content, contentType: "image/png" });
    langfuse.trace({ id: `m-${key}`, input: { picture } });
    await langfuse.flushAsync();
    const trace = (await eventually(() => langfuse.fetchTrace(`m-${key}`))).data;
    const reference = LangfuseMedia.parseReferenceString(trace.input.picture);
    const found = await eventually(async () => {
      // It hands on what a refusal says as if it were an answer.
      const found = await langfuse.fetchMedia(reference.mediaId);
      assert.ok(found.url, JSON.stringify(found));
      return found;
    });
    const bytes = Buffer.from(await (await fetch(found.url)).arrayBuffer());
    assert.deepEqual(bytes, content);
  },
});
