// Runs the steps of a capability script: each is named after what it shows; all run, whatever fails.
import assert from "node:assert/strict";

export { assert };

/** What SDKs send arrives in its own time; a read that fails is tried again. */
export async function eventually(read, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export async function run(steps) {
  const outcome = {};
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
      outcome[name] = "ok";
    } catch (error) {
      console.error(name, error);
      outcome[name] = "failed";
    }
  }
  console.log(JSON.stringify(outcome));
  process.exit(Object.values(outcome).every((one) => one === "ok") ? 0 : 1);
}
