// Uses ioredis as applications do: pipeline, transaction, Pub/Sub, blocking pop, script. Argument: a port.
const assert = require("node:assert");
const Redis = require("ioredis");

const options = { port: Number(process.argv[2]), db: 2, connectionName: "orders" };

async function main() {
  const redis = new Redis(options);
  await redis.flushdb();
  assert.strictEqual(await redis.set("k", "\r\n\0"), "OK");
  assert.strictEqual(await redis.get("k"), "\r\n\0");
  assert.strictEqual(await redis.client("GETNAME"), "orders");
  await assert.rejects(redis.lpush("k", "x"), /WRONGTYPE/);
  redis.defineCommand("twice", { numberOfKeys: 0, lua: "return ARGV[1] * 2" });
  assert.strictEqual(await redis.twice(21), 42);

  const pipeline = redis.pipeline();
  for (let i = 0; i < 500; i++) pipeline.set(`p${i}`, i).get(`p${i}`);
  const replies = await pipeline.exec();
  assert.deepStrictEqual(replies, Array.from({ length: 1000 }, (_, i) => [null, i % 2 ? `${(i - 1) / 2}` : "OK"]));

  const automatic = new Redis({ ...options, enableAutoPipelining: true });
  const names = Array.from({ length: 500 }, (_, i) => `p${i}`);
  assert.deepStrictEqual(await Promise.all(names.map((name) => automatic.get(name))), names.map((_, i) => `${i}`));

  assert.deepStrictEqual(await redis.multi().incr("n").incr("n").get("n").exec(), [[null, 1], [null, 2], [null, "2"]]);
  const watcher = redis.duplicate();
  await watcher.watch("k");
  await redis.set("k", "other");
  assert.strictEqual(await watcher.multi().set("k", "own").exec(), null);
  assert.strictEqual(await watcher.get("k"), "other");

  const worker = redis.duplicate();
  const job = worker.blpop("queue", 10);
  await redis.rpush("queue", "job");
  assert.deepStrictEqual(await job, ["queue", "job"]);
  assert.strictEqual(await worker.get("k"), "other");

  const subscriber = redis.duplicate();
  const heard = new Promise((resolve) => subscriber.on("message", (channel, message) => resolve(message)));
  await subscriber.subscribe("channel");
  await redis.publish("channel", "m");
  assert.strictEqual(await heard, "m");
  await subscriber.unsubscribe("channel");
  assert.strictEqual(await subscriber.get("k"), "other");

  for (const client of [redis, automatic, watcher, worker, subscriber]) await client.quit();
}

main().then(() => console.log("done"), (error) => {
  console.error(error);
  process.exit(1);
});
