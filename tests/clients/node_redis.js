// Uses node-redis as applications do: pool, pipeline, transaction, Pub/Sub, blocking pop, script, in both protocols.
// Argument: a port.
const assert = require("node:assert");
const { createClient, createClientPool, defineScript } = require("redis");

const socket = { host: "127.0.0.1", port: Number(process.argv[2]) };
const scripts = {
  twice: defineScript({
    SCRIPT: "return ARGV[1] * 2",
    NUMBER_OF_KEYS: 0,
    parseCommand(parser, number) { parser.push(String(number)); },
    transformReply: (reply) => reply,
  }),
};

async function protocol(RESP) {
  const client = await createClient({ socket, RESP, name: "orders", database: 3, scripts }).connect();
  await client.flushDb();
  assert.strictEqual(await client.set("k", "\r\n\0"), "OK");
  assert.strictEqual(await client.get("k"), "\r\n\0");
  assert.strictEqual(await client.clientGetName(), "orders");
  await client.hSet("h", { a: "1", b: "2" });
  assert.deepStrictEqual({ ...(await client.hGetAll("h")) }, { a: "1", b: "2" });
  assert.strictEqual(await client.twice(21), 42);
  await assert.rejects(client.lPush("k", "x"), /WRONGTYPE/);

  // Commands of one tick are a pipeline.
  const names = Array.from({ length: 500 }, (_, i) => `p${i}`);
  await Promise.all(names.map((name) => client.set(name, name)));
  assert.deepStrictEqual(await Promise.all(names.map((name) => client.get(name))), names);

  const executed = await client.multi().incr("n").incr("n").get("n").exec();
  assert.deepStrictEqual(executed, [1, 2, "2"]);

  // A watched key that another client of the pool writes fails the transaction.
  const pool = await createClientPool({ socket, RESP, database: 3 }, { minimum: 2, maximum: 8 }).connect();
  await assert.rejects(pool.execute(async (own) => {
    await own.watch("k");
    await client.set("k", "other");
    return own.multi().set("k", "own").exec();
  }), /WATCH|watch/);
  assert.strictEqual(await client.get("k"), "other");

  const jobs = pool.execute((own) => own.blPop("queue", 10));
  const worked = await Promise.all(names.map((name) => pool.get(name)));
  assert.deepStrictEqual(worked, names);
  await client.rPush("queue", "job");
  assert.deepStrictEqual({ ...(await jobs) }, { key: "queue", element: "job" });

  const subscriber = await client.duplicate().connect();
  const heard = new Promise((resolve) => {
    subscriber.subscribe("channel", (message) => resolve(message)).then(() => client.publish("channel", "m"));
  });
  assert.strictEqual(await heard, "m");
  await subscriber.unsubscribe("channel");

  let scanned = 0;
  for await (const keys of client.scanIterator({ MATCH: "p*" })) scanned += keys.length;
  assert.strictEqual(scanned, names.length);

  await pool.close();
  await subscriber.close();
  await client.close();
}

protocol(2).then(() => protocol(3)).then(() => console.log("done"), (error) => {
  console.error(error);
  process.exit(1);
});
