// What people do with the Langfuse JS SDK 4 and 5: it exports OTLP in JSON.
import { randomUUID } from "node:crypto";
import { LangfuseClient } from "@langfuse/client";
import { LangfuseSpanProcessor } from "@langfuse/otel";
import * as tracing from "@langfuse/tracing";
import { LangfuseMedia } from "@langfuse/core";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { assert, eventually, run } from "./steps.mjs";

const options = {
  publicKey: process.env.LANGFUSE_PUBLIC_KEY,
  secretKey: process.env.LANGFUSE_SECRET_KEY,
  baseUrl: process.env.LANGFUSE_BASE_URL,
};
const isFour = process.env.LANGFUSE_MAJOR === "4";
const processor = new LangfuseSpanProcessor(options);
new NodeTracerProvider({ spanProcessors: [processor] }).register();
const langfuse = new LangfuseClient(options);
const key = randomUUID().slice(0, 8);
const from = new Date(Date.now() - 3600e3).toISOString();
const types = ["agent", "tool", "chain", "retriever", "evaluator", "embedding", "guardrail", "generation"];
let trace;
let generation;

await run({
  async auth() {
    assert.equal((await langfuse.api.projects.get()).data.length, 1);
    const wrong = new LangfuseClient({ ...options, secretKey: "sk-lf-wrong" });
    await assert.rejects(() => wrong.api.projects.get());
  },

  async traces() {
    const shared = { userId: `ada-${key}`, sessionId: `s-${key}`, tags: ["b", "a"], metadata: { tier: "gold" } };
    await tracing.propagateAttributes(shared, async () => {
      await tracing.startActiveObservation("request", async (root) => {
        trace = root.traceId;
        root.update({ input: { q: "hi" } });
        for (const type of types) {
          const child = tracing.startObservation(type, { input: type }, { asType: type });
          if (type === "generation") {
            generation = child.id;
            child.update({
              model: "gpt-4o", modelParameters: { temperature: 0.2 }, usageDetails: { input: 10, output: 5 },
            });
          }
          child.update({ output: { done: type }, metadata: { n: 1 } });
          child.end();
        }
        root.update({ output: { a: "hello" } });
      });
    });
    await processor.forceFlush();
  },

  async reads() {
    const found = await eventually(async () => {
      const found = await langfuse.api.trace.get(trace);
      assert.equal(found.observations.length, types.length + 1);
      return found;
    });
    assert.deepEqual([found.userId, found.sessionId, found.tags], [`ada-${key}`, `s-${key}`, ["a", "b"]]);
    const named = Object.fromEntries(found.observations.map((one) => [one.name, one]));
    for (const type of types) {
      assert.equal(named[type].type, type.toUpperCase());
      assert.equal(named[type].parentObservationId, named.request.id);
    }
    assert.deepEqual(named.generation.usageDetails, { input: 10, output: 5, total: 15 });
    assert.ok(found.totalCost > 0);
    const v2 = isFour ? langfuse.api.observationsV2 : langfuse.api.observations;
    const rows = await v2.getMany({ traceId: trace, fields: "core,basic,usage", limit: 50 });
    assert.equal(rows.data.length, types.length + 1);
    const listed = await langfuse.api.trace.list({ userId: `ada-${key}`, tags: ["a", "b"] });
    assert.deepEqual(listed.data.map((one) => one.id), [trace]);
  },

  async scores() {
    langfuse.score.create({ id: `sc-${key}`, traceId: trace, name: "quality", value: 0.5, comment: "fine" });
    langfuse.score.create({ traceId: trace, observationId: generation, name: "tone", value: "kind" });
    langfuse.score.create({ sessionId: `s-${key}`, name: "whole", value: 0.25 });
    await langfuse.score.flush();
    const api = isFour ? langfuse.api.scoreV2 : langfuse.api.scores;
    await eventually(async () => {
      const found = isFour ? await api.get({ traceId: trace }) : await api.getMany({ traceId: trace });
      assert.deepEqual(found.data.map((one) => one.name).sort(), ["quality", "tone"]);
    });
    await (isFour ? langfuse.api.score : langfuse.api.legacy.scoreV1).delete(`sc-${key}`);
  },

  async sessions() {
    const found = await langfuse.api.sessions.get(`s-${key}`);
    assert.deepEqual(found.traces.map((one) => one.id), [trace]);
  },

  async metrics() {
    const query = {
      view: "observations",
      metrics: [{ measure: "totalCost", aggregation: "sum" }],
      dimensions: [{ field: "providedModelName" }],
      filters: [{ column: "sessionId", operator: "=", value: `s-${key}`, type: "string" }],
      fromTimestamp: from,
      toTimestamp: new Date(Date.now() + 3600e3).toISOString(),
    };
    const api = isFour ? langfuse.api.metricsV2 : langfuse.api.metrics;
    const found = await api.metrics({ query: JSON.stringify(query) });
    assert.ok(found.data.some((row) => row.providedModelName === "gpt-4o" && row.sum_totalCost > 0));
  },

  async prompts() {
    const name = `folder/greet ${key}`;
    await langfuse.prompt.create({ name, prompt: "Hello {{who}}", labels: ["production"], config: { t: 1 } });
    await langfuse.prompt.create({ name, prompt: "Hi {{who}}", labels: ["staging"] });
    const prompt = await langfuse.prompt.get(name);
    assert.deepEqual([prompt.version, prompt.compile({ who: "Ada" })], [1, "Hello Ada"]);
    assert.equal((await langfuse.prompt.get(name, { label: "latest" })).version, 2);
    await langfuse.prompt.update({ name, version: 2, newLabels: ["production"] });
    assert.equal((await langfuse.prompt.get(name, { cacheTtlSeconds: 0 })).version, 2);
    const messages = [{ role: "system", content: "Be {{how}}" }, { type: "placeholder", name: "history" }];
    await langfuse.prompt.create({ name: `chat-${key}`, type: "chat", prompt: messages, labels: ["production"] });
    const chat = await langfuse.prompt.get(`chat-${key}`, { type: "chat" });
    const compiled = chat.compile({ how: "kind" }, { history: [{ role: "user", content: "hi" }] });
    assert.deepEqual(compiled.map((one) => one.content), ["Be kind", "hi"]);
    const linked = tracing.startObservation("linked", { prompt }, { asType: "generation" });
    linked.end();
    await processor.forceFlush();
    const found = await eventually(() => langfuse.api.trace.get(linked.traceId));
    assert.deepEqual([found.observations[0].promptName, found.observations[0].promptVersion], [name, 1]);
    await langfuse.prompt.delete(`chat-${key}`);
  },

  async experiments() {
    const name = `set ${key}`;
    await langfuse.api.datasets.create({ name, description: "d" });
    for (const n of [0, 1, 2]) {
      await langfuse.api.datasetItems.create({ datasetName: name, input: { n }, expectedOutput: n + 1 });
    }
    const dataset = await langfuse.dataset.get(name);
    assert.equal(dataset.items.length, 3);
    const result = await dataset.runExperiment({
      name: "trial",
      runName: `run ${key}`,
      task: async ({ input }) => input.n + 1,
      evaluators: [async ({ output, expectedOutput }) => ({ name: "exact", value: output === expectedOutput ? 1 : 0 })],
      runEvaluators: [async () => ({ name: "mean", value: 1 })],
    });
    assert.equal(result.itemResults.length, 3);
    await processor.forceFlush();
    await langfuse.score.flush();
    const found = await langfuse.api.datasets.getRun(name, `run ${key}`);
    assert.equal(found.datasetRunItems.length, 3);
    if (isFour) return;
    await eventually(async () => {
      const items = await langfuse.api.experiments.listItems({ fromStartTime: from, experimentName: `run ${key}` });
      assert.equal(items.data.length, 3);
    });
  },

  async media() {
    const content = Buffer.from(`PNG${key}`);
    const picture = new LangfuseMedia({ source: "bytes", contentBytes: content, contentType: "image/png" });
    const span = tracing.startObservation("picture", { input: { picture } });
    span.end();
    await processor.forceFlush();
    const found = await eventually(() => langfuse.api.trace.get(span.traceId));
    const text = JSON.stringify(found.observations[0].input);
    const id = text.match(/id=([^|]+)\|/)[1];
    const media = await eventually(() => langfuse.api.media.get(id));
    const bytes = Buffer.from(await (await fetch(media.url)).arrayBuffer());
    assert.deepEqual(bytes, content);
  },

  async deletes() {
    await langfuse.api.trace.delete(trace);
    await assert.rejects(() => langfuse.api.trace.get(trace));
  },
});
