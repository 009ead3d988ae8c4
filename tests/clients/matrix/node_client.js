// Uses Node.js clients as applications do, with their default settings. Arguments: the module of a library, a scenario, a port, and `cluster`
// for a cluster. python_client.py describes the scenarios.
const assert = require("node:assert");
const { randomBytes, randomInt } = require("node:crypto");
const { once } = require("node:events");
const { promisify } = require("node:util");
const { setTimeout: later } = require("node:timers/promises");

const [moduleName, scenario, portArgument, topology] = process.argv.slice(2);
const host = "127.0.0.1";
const port = Number(portArgument);
const cluster = topology === "cluster";
const rounds = 2000;
// Keys with a tag are in one slot of a cluster.
const name = `${process.pid}:`;
const tagged = `{${process.pid}}:`;

// The operations, in the terms of each library.

// ioredis, and its fork iovalkey.
class Ioredis {
  library = moduleName.startsWith("ioredis") ? "ioredis" : moduleName;
  Redis = require(moduleName);

  async client(options = {}) {
    const client = cluster
      ? new this.Redis.Cluster([{ host, port }], { redisOptions: options })
      : new this.Redis({ host, port, ...options });
    client.on("error", (error) => console.error(`${error}`));
    return client;
  }

  close(client) { return client.quit(); }

  async pipeline(client, commands) {
    const replies = await client.pipeline(commands).exec();
    return replies.map(([error, reply]) => { if (error) throw error; return reply; });
  }

  async transaction(client, commands) {
    const multi = client.multi();
    for (const [command, ...words] of commands) multi[command](...words);
    const replies = await multi.exec();
    return replies && replies.map(([error, reply]) => { if (error) throw error; return reply; });
  }

  // A cluster client has no connection for a single caller, but the client of a node has.
  async watcher(client) {
    if (!cluster) return client.duplicate();
    const slots = await client.cluster("SLOTS");
    const slot = require("cluster-key-slot")(tagged);
    const [, , [nodeHost, nodePort]] = slots.find(([first, last]) => first <= slot && slot <= last);
    return new this.Redis({ host: nodeHost, port: nodePort });
  }

  hset(client, key, fields) { return client.hset(key, fields); }
  rpush(client, key, ...elements) { return client.rpush(key, ...elements); }
  async blpop(client, key) { return (await client.blpop(key, 10))[1]; }

  async interrupted(key) {
    const blocked = await this.client({ commandTimeout: 200 });
    await assert.rejects(blocked.blpop(key, 0), /timed out/);
    // The connection is still blocked: close it, so that the client reconnects.
    const ended = once(blocked, "end");
    blocked.disconnect();
    await ended;
    // A cluster client does not find its first node again.
    if (cluster) return this.client();
    await blocked.connect();
    return blocked;
  }

  async subscribed(client, channel, pattern, heard) {
    const subscriber = client.duplicate();
    subscriber.on("message", (from, message) => heard.push([from, message]));
    subscriber.on("pmessage", (_, from, message) => heard.push([from, message]));
    await subscriber.subscribe(channel);
    await subscriber.psubscribe(pattern);
    return async () => {
      await subscriber.unsubscribe(channel);
      await subscriber.punsubscribe(pattern);
      await subscriber.quit();
    };
  }

  async scripts(client) {
    // Sends EVALSHA, and EVAL if the server does not have the script.
    client.defineCommand("twice", { numberOfKeys: 1, lua: "return ARGV[1] * 2" });
    assert.strictEqual(await client.twice(`${name}script`, 21), 42);
    assert.strictEqual(await client.eval("return ARGV[1]", 1, `${name}script`, "text"), "text");
  }

  async load(client, script) {
    const nodes = cluster ? client.nodes("master") : [client];
    const [sha] = await Promise.all(nodes.map((node) => node.script("LOAD", script)));
    return sha;
  }

  evalsha(client, sha, key, word) { return client.evalsha(sha, 1, key, word); }

  async scan(client, pattern) {
    const nodes = cluster ? client.nodes("master") : [client];
    const found = new Set();
    for (const node of nodes) {
      for await (const keys of node.scanStream({ match: pattern, count: 100 })) keys.forEach((key) => found.add(key));
    }
    return found.size;
  }
}

class NodeRedis {
  library = "node-redis";
  redis = require(moduleName);

  async client({ password } = {}) {
    const client = cluster
      ? this.redis.createCluster({ rootNodes: [{ socket: { host, port } }], defaults: { password } })
      : this.redis.createClient({ socket: { host, port }, password });
    client.on("error", (error) => console.error(`${error}`));
    return this.connected(client);
  }

  // Before version 5 connect() returns nothing.
  async connected(client) { await client.connect(); return client; }

  // Before version 5, close() and destroy() had other names.
  close(client) { return client.close ? client.close() : client.quit(); }
  destroy(client) { return client.destroy ? client.destroy() : client.disconnect(); }

  // Commands of one tick are a pipeline.
  pipeline(client, commands) {
    return Promise.all(commands.map(([command, ...words]) => client[command](...words)));
  }

  transaction(client, commands) {
    const multi = client.multi();
    for (const [command, ...words] of commands) multi[command](...words);
    return multi.exec();
  }

  async watcher(client) {
    if (!cluster) return this.connected(client.duplicate());
    const slot = require("cluster-key-slot")(tagged);
    return this.connected((await client.nodeClient(client.slots[slot].master)).duplicate());
  }

  hset(client, key, fields) { return client.hSet(key, fields); }
  rpush(client, key, ...elements) { return client.rPush(key, elements); }
  async blpop(client, key) { return (await client.blPop(key, 10)).element; }

  async interrupted(key) {
    const blocked = await this.client();
    const popped = assert.rejects(blocked.blPop(key, 0));
    await later(200);
    // The only way to cancel a sent command is to end the connection.
    await this.destroy(blocked);
    await popped;
    return this.connected(blocked);
  }

  async subscribed(client, channel, pattern, heard) {
    const subscriber = await this.connected(client.duplicate());
    const listener = (message, from) => heard.push([from, message]);
    await subscriber.subscribe(channel, listener);
    await subscriber.pSubscribe(pattern, listener);
    return async () => {
      await subscriber.unsubscribe(channel);
      await subscriber.pUnsubscribe(pattern);
      await this.close(subscriber);
    };
  }

  async scripts(client) {
    // Sends EVALSHA, and EVAL if the server does not have the script.
    const twice = this.redis.defineScript({
      SCRIPT: "return ARGV[1] * 2",
      NUMBER_OF_KEYS: 1,
      FIRST_KEY_INDEX: (key) => key,
      parseCommand(parser, key, number) { parser.pushKey(key); parser.push(String(number)); },
      transformArguments: (key, number) => [key, String(number)], // the same, before version 5
      transformReply: (reply) => reply,
    });
    const own = cluster
      ? this.redis.createCluster({ rootNodes: [{ socket: { host, port } }], scripts: { twice } })
      : this.redis.createClient({ socket: { host, port }, scripts: { twice } });
    await own.connect();
    assert.strictEqual(await own.twice(`${name}script`, 21), 42);
    await this.close(own);
    assert.strictEqual(await client.eval("return ARGV[1]", { keys: [`${name}script`], arguments: ["text"] }), "text");
  }

  async load(client, script) {
    const nodes = cluster ? await Promise.all(client.masters.map((node) => client.nodeClient(node))) : [client];
    const [sha] = await Promise.all(nodes.map((node) => node.scriptLoad(script)));
    return sha;
  }

  evalsha(client, sha, key, word) { return client.evalSha(sha, { keys: [key], arguments: [word] }); }

  async scan(client, pattern) {
    const nodes = cluster ? await Promise.all(client.masters.map((node) => client.nodeClient(node))) : [client];
    const found = new Set();
    for (const node of nodes) {
      // Before version 5, the iterator returns single keys, not batches.
      for await (const keys of node.scanIterator({ MATCH: pattern, COUNT: 100 })) [keys].flat().forEach((key) => found.add(key));
    }
    return found.size;
  }
}

// node_redis before version 4, whose methods take callbacks.
class NodeRedisBefore {
  library = "node_redis";
  redis = require(moduleName);

  async client({ password } = {}) {
    const client = this.redis.createClient({ host, port, password });
    client.on("error", (error) => console.error(`${error}`));
    return this.promising(client);
  }

  promising(client) {
    const direct = ["duplicate", "end", "multi", "on"];
    const get = (_, name) => {
      const value = client[name];
      if (typeof value !== "function") return value;
      return (direct.includes(name) ? value : promisify(value)).bind(client);
    };
    return new Proxy(client, { get });
  }

  close(client) { return client.quit(); }

  // Commands of one tick are a pipeline.
  pipeline(client, commands) {
    return Promise.all(commands.map(([command, ...words]) => client[command](...words)));
  }

  transaction(client, commands) {
    const multi = client.multi();
    for (const [command, ...words] of commands) multi[command](...words);
    return promisify(multi.exec).call(multi);
  }

  async watcher(client) { return this.promising(client.duplicate()); }

  hset(client, key, fields) { return client.hset(key, ...Object.entries(fields).flat()); }
  rpush(client, key, ...elements) { return client.rpush(key, ...elements); }
  async blpop(client, key) { return (await client.blpop(key, 10))[1]; }

  async interrupted(key) {
    const blocked = await this.client();
    const popped = assert.rejects(blocked.blpop(key, 0));
    await later(200);
    blocked.end(true);
    await popped;
    return this.client();
  }

  async subscribed(client, channel, pattern, heard) {
    const subscriber = this.promising(client.duplicate());
    subscriber.on("message", (from, message) => heard.push([from, message]));
    subscriber.on("pmessage", (_, from, message) => heard.push([from, message]));
    await subscriber.subscribe(channel);
    await subscriber.psubscribe(pattern);
    return async () => {
      await subscriber.unsubscribe(channel);
      await subscriber.punsubscribe(pattern);
      await subscriber.quit();
    };
  }

  async scripts(client) {
    assert.strictEqual(await client.eval("return ARGV[1]", 1, `${name}script`, "text"), "text");
  }

  load(client, script) { return client.script("LOAD", script); }
  evalsha(client, sha, key, word) { return client.evalsha(sha, 1, key, word); }

  async scan(client, pattern) {
    const found = new Set();
    let [cursor, keys] = ["0", []];
    do {
      [cursor, keys] = await client.scan(cursor, "MATCH", pattern, "COUNT", 100);
      keys.forEach((key) => found.add(key));
    } while (cursor !== "0");
    return found.size;
  }
}

// The scenarios, for all libraries.

async function work(own) {
  const client = await own.client();

  assert.strictEqual(await client.set(`${name}string`, "\r\n\0"), "OK");
  assert.strictEqual(await client.get(`${name}string`), "\r\n\0");
  assert.strictEqual(await client.incr(`${name}number`), 1);
  assert.strictEqual(await own.hset(client, `${name}hash`, { a: "1", b: "2" }), 2);
  const hash = await (client.hgetall ?? client.hGetAll).call(client, `${name}hash`);
  assert.deepStrictEqual({ ...hash }, { a: "1", b: "2" });
  assert.strictEqual(await own.rpush(client, `${name}list`, "x", "y", "z"), 3);
  const list = await (client.lrange ?? client.lRange).call(client, `${name}list`, 0, -1);
  assert.deepStrictEqual(list, ["x", "y", "z"]);

  const values = Array.from({ length: 500 }, () => randomBytes(randomInt(512, 10 * 1024 + 1)).toString("hex"));
  // A pipeline of ioredis goes to one node.
  const pipelined = values.flatMap((value, n) => [["set", `${tagged}pipeline-${n}`, value], ["get", `${tagged}pipeline-${n}`]]);
  assert.deepStrictEqual(await own.pipeline(client, pipelined), values.flatMap((value) => ["OK", value]));

  const steps = [["set", `${tagged}x`, "1"], ["incr", `${tagged}x`], ["get", `${tagged}x`]];
  assert.deepStrictEqual(await own.transaction(client, steps), ["OK", 2, "2"]);
  const watcher = await own.watcher(client);
  for (const writes of [false, true]) {
    await watcher.watch(`${tagged}x`);
    const before = Number(await watcher.get(`${tagged}x`));
    if (writes) await client.set(`${tagged}x`, "10");
    const executed = own.transaction(watcher, [["set", `${tagged}x`, `${before + 1}`]]);
    // ioredis returns null, node-redis throws.
    const replies = await executed.catch((error) => { assert.match(`${error.name} ${error}`, /watch/i); return null; });
    assert.deepStrictEqual(replies, writes ? null : ["OK"]);
  }
  assert.strictEqual(await client.get(`${tagged}x`), "10");
  await own.close(watcher);

  const heard = [];
  const unsubscribe = await own.subscribed(client, `${name}channel`, `${name}pattern-*`, heard);
  await client.publish(`${name}channel`, "to the channel");
  await client.publish(`${name}pattern-1`, "to the pattern");
  for (let tries = 0; heard.length < 2 && tries < 1000; tries += 1) await later(10);
  heard.sort();
  assert.deepStrictEqual(heard, [[`${name}channel`, "to the channel"], [`${name}pattern-1`, "to the pattern"]]);
  await unsubscribe();

  const blocked = await own.client();
  const popped = own.blpop(blocked, `${name}queue`);
  await own.rpush(client, `${name}queue`, "element");
  assert.strictEqual(await popped, "element");
  await own.close(blocked);
  const interrupted = await own.interrupted(`${name}queue`);
  assert.strictEqual(await interrupted.get(`${tagged}x`), "10");
  await own.close(interrupted);

  await own.scripts(client);
  const sha = await own.load(client, "return ARGV[1] .. '!'");
  assert.strictEqual(await own.evalsha(client, sha, `${name}script`, "loaded"), "loaded!");

  for (let n = 0; n < 1000; n += 100) {
    await own.pipeline(client, Array.from({ length: 100 }, (_, i) => ["set", `${tagged}scan-${n + i}`, "v"]));
  }
  assert.strictEqual(await own.scan(client, `${tagged}scan-*`), 1000);
  await own.close(client);
}

async function plain(own) {
  const client = await own.client();
  const sha = await own.load(client, "return ARGV[1]");
  for (let n = 0; n < rounds; n += 1) {
    const value = `${n}`;
    assert.strictEqual(await client.set(`${name}string`, value), "OK");
    assert.strictEqual(await client.get(`${name}string`), value);
    await own.hset(client, `${name}hash`, { field: value });
    await own.rpush(client, `${name}list`, value);
    const ten = Array.from({ length: 10 }, (_, i) => ["set", `${tagged}${i}`, value]);
    assert.deepStrictEqual(await own.pipeline(client, ten), Array(10).fill("OK"));
    assert.strictEqual(await own.evalsha(client, sha, `${name}script`, value), value);
    const transaction = [["set", `${tagged}x`, value], ["get", `${tagged}x`]];
    assert.deepStrictEqual(await own.transaction(client, transaction), ["OK", value]);
  }
  await own.close(client);
}

async function connect(own) {
  for (let n = 0; n < 100; n += 1) await setAndGet(own);
}

async function setAndGet(own, options) {
  const client = await own.client(options);
  assert.strictEqual(await client.set(`${name}once`, "v"), "OK");
  assert.strictEqual(await client.get(`${name}once`), "v");
  await own.close(client);
}

async function stay(own) {
  let stopped = false;
  process.stdin.on("end", () => { stopped = true; }).resume();
  let client;
  let said;
  for (let n = 1; !stopped; n += 1) {
    let now;
    try {
      client ??= await own.client();
      await client.set(`${name}stay`, `${n}`);
      assert.strictEqual(await client.get(`${name}stay`), `${n}`);
      now = "up";
    } catch (error) {
      console.error(`${error}`);
      now = "down";
    }
    if (now !== said && (said || now === "up")) {
      console.log(now);
      said = now;
    }
    await later(20);
  }
}

async function leftover(own) {
  await setAndGet(own, { password: "left over" });
}

const scenarios = { work, plain, connect, stay, leftover };

async function bullmq() {
  const { Queue, QueueEvents, Worker } = require("bullmq");
  // BullMQ's documentation requires this setting.
  const connection = { host, port, maxRetriesPerRequest: null };
  const queueName = "orders";
  const queue = new Queue(queueName, { connection, prefix: `{${process.pid}}` });
  const events = new QueueEvents(queueName, { connection, prefix: `{${process.pid}}` });
  await events.waitUntilReady();
  const worker = new Worker(queueName, async (job) => job.data.n * 2, { connection, prefix: `{${process.pid}}` });
  const jobs = await queue.addBulk(Array.from({ length: 20 }, (_, n) => ({ name: "double", data: { n } })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30_000)));
  assert.deepStrictEqual(results, jobs.map((_, n) => n * 2));
  for (const each of [worker, events, queue]) await each.close();
}

const clients = {
  ioredis: Ioredis,
  "ioredis-4": Ioredis,
  iovalkey: Ioredis,
  "redis-3": NodeRedisBefore,
  "redis-4": NodeRedis,
  redis: NodeRedis,
  "redis-6": NodeRedis,
};

async function main() {
  const own = moduleName === "bullmq" ? { library: moduleName } : new clients[moduleName]();
  await (moduleName === "bullmq" ? bullmq() : scenarios[scenario](own));
  return `${own.library} ${require(`${moduleName}/package.json`).version}`;
}

main().then((about) => {
  console.log(`ok ${about}`);
  process.exit(0);
}, (error) => {
  console.error(error);
  process.exit(1);
});
