// Uses a BullMQ queue: immediate, delayed, retried and nested jobs, and their events.
// Argument: a port.
const assert = require("node:assert");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");

const connection = { port: Number(process.argv[2]), maxRetriesPerRequest: null };

async function main() {
  const queue = new Queue("orders", { connection });
  const events = new QueueEvents("orders", { connection });
  const flows = new FlowProducer({ connection });
  await events.waitUntilReady();

  const failed = new Set();
  const worker = new Worker("orders", async (job) => {
    if (job.name === "stubborn" && !failed.has(job.id)) {
      failed.add(job.id);
      throw new Error("not yet");
    }
    if (job.name === "sum") {
      const values = Object.values(await job.getChildrenValues());
      return values.reduce((sum, value) => sum + value, 0);
    }
    await job.updateProgress(50);
    return job.data.n * 2;
  }, { connection, concurrency: 10 });

  const jobs = await queue.addBulk(Array.from({ length: 200 }, (_, n) => ({ name: "double", data: { n } })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30_000)));
  assert.deepStrictEqual(results, jobs.map((_, n) => n * 2));

  const later = await queue.add("double", { n: 21 }, { delay: 100 });
  assert.strictEqual(await later.waitUntilFinished(events, 30_000), 42);

  const stubborn = await queue.add("stubborn", { n: 4 }, { attempts: 2 });
  assert.strictEqual(await stubborn.waitUntilFinished(events, 30_000), 8);
  assert.strictEqual(failed.size, 1);

  const flow = await flows.add({
    name: "sum",
    queueName: "orders",
    children: [1, 2, 3].map((n) => ({ name: "double", data: { n }, queueName: "orders" })),
  });
  assert.strictEqual(await flow.job.waitUntilFinished(events, 30_000), 12);

  const counts = await queue.getJobCounts("completed", "failed", "active", "waiting", "delayed");
  assert.deepStrictEqual(counts, { completed: 206, failed: 0, active: 0, waiting: 0, delayed: 0 });

  await worker.close();
  await flows.close();
  await events.close();
  await queue.close();
}

main().then(() => console.log("done"), (error) => {
  console.error(error);
  process.exit(1);
});
