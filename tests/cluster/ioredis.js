// Uses a cluster with ioredis as applications do. Arguments: module, port. Prints the ports that it dialled.
const { ports } = require("./dialled.js");
const assert = require("assert");
const { once } = require("events");
const Redis = require("ioredis");

const begin = [{ host: "127.0.0.1", port: Number(process.argv[2]) }];
const p = "ioredis-";
const keys = Array.from({ length: 2000 }, (_, n) => `${p}${n}`);

async function main() {
  const r = new Redis.Cluster(begin);
  await once(r, "ready");
  assert.equal(r.nodes("master").length, 3);
  assert.equal(r.nodes("slave").length, 3);

  await Promise.all(keys.map((key, n) => r.set(key, n)));
  assert.deepEqual(await Promise.all(keys.map((key) => r.get(key))), keys.map((_, n) => `${n}`));
  for (const key of keys.slice(0, 200)) await r.incr(key);

  // An ioredis pipeline must stay within one shard.
  const pipeline = r.pipeline();
  for (let n = 0; n < 500; n++) pipeline.set(`{${p}pipe}${n}`, n).get(`{${p}pipe}${n}`);
  const replies = await pipeline.exec();
  assert.deepEqual(replies.filter((_, n) => n % 2).map(([, value]) => value), keys.slice(0, 500).map((_, n) => `${n}`));

  await r.mset(`{${p}tag}a`, "1", `{${p}tag}b`, "2");
  assert.deepEqual(await r.mget(`{${p}tag}a`, `{${p}tag}b`), ["1", "2"]);
  assert.deepEqual(await r.multi().incr(`{${p}tag}a`).incr(`{${p}tag}b`).exec(), [[null, 2], [null, 3]]);
  assert.equal(await r.eval("return redis.call('GET', KEYS[1])", 1, `{${p}tag}a`), "2");

  const subscriber = new Redis.Cluster(begin);
  await subscriber.subscribe(`${p}news`);
  const message = once(subscriber, "message");
  await r.publish(`${p}news`, "hello");
  assert.deepEqual(await message, [`${p}news`, "hello"]);

  const sharded = new Redis.Cluster(begin, { shardedSubscribers: true });
  await once(sharded, "ready");
  // Redis 7.0 or later.
  const [hasSharded] = await r.command("INFO", "ssubscribe");
  for (let n = 0; hasSharded && n < 8; n++) {
    await sharded.ssubscribe(`${p}${n}`);
    const message = once(sharded, "smessage");
    assert.equal(await r.spublish(`${p}${n}`, `${n}`), 1);
    assert.deepEqual(await message, [`${p}${n}`, `${n}`]);
  }

  const hits = async () => {
    const stats = await Promise.all(r.nodes("slave").map((node) => node.info("stats")));
    return stats.map((text) => Number(/keyspace_hits:(\d+)/.exec(text)[1])).reduce((a, b) => a + b);
  };
  await Promise.all(r.nodes("master").map(async (node) => assert.equal(await node.wait(1, 10000), 1)));
  const before = await hits();
  const reader = new Redis.Cluster(begin, { scaleReads: "slave" });
  const read = await Promise.all(keys.map((key) => reader.get(key)));
  assert.deepEqual(read, keys.map((_, n) => `${n < 200 ? n + 1 : n}`));
  assert.ok((await hits()) - before >= 2000, "replicas were asked");

  for (const client of [r, subscriber, sharded, reader]) client.disconnect();
  console.log(JSON.stringify([...ports]));
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
