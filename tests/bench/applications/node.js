// The benchmark's application with ioredis or node-redis. Arguments: the module, and then those that ../applications.py describes.
const assert = require("node:assert");
const { readFileSync } = require("node:fs");

const [library, scenario, secondsArgument, address, authority] = process.argv.slice(2);
const seconds = Number(secondsArgument);
const tls = authority && { ca: readFileSync(authority) };

// The operations, in the terms of each library.
const libraries = {
  ioredis: {
    connect() {
      const Redis = require("ioredis");
      return address.startsWith("/") ? new Redis(address) : new Redis({ host: "127.0.0.1", port: Number(address), ...(tls && { tls }) });
    },
    pipeline(client) {
      const pipeline = client.pipeline();
      for (let i = 0; i < 50; i++) pipeline.get("small");
      return pipeline.exec();
    },
    close: (client) => client.disconnect(),
  },
  redis: {
    connect() {
      const socket = address.startsWith("/") ? { path: address } : { host: "127.0.0.1", port: Number(address), ...(tls && { tls: true, ...tls }) };
      return require("redis").createClient({ socket }).connect();
    },
    pipeline: (client) => Promise.all(Array.from({ length: 50 }, () => client.get("small"))),
    close: (client) => client.destroy(),
  },
};
const { connect, pipeline, close } = libraries[library];

// The number of requests of a step, and the step.
const steps = {
  single: [1, (client) => client.get("small")],
  pipeline: [50, async (client) => assert.strictEqual((await pipeline(client)).length, 50)],
  large: [1, (client) => client.get("large")],
  connect: [1, async () => {
    const client = await connect();
    assert.strictEqual((await client.get("small")).length, 64);
    close(client);
  }],
  tasks: [1, (client) => client.get("small")],
};
const [requests, step] = steps[scenario];

// Repeats the step in one task, or in 50. Returns the time of each step in seconds.
async function run(client, duration) {
  const times = [];
  const until = performance.now() + duration * 1000;
  async function repeat() {
    for (let now = performance.now(); now < until;) {
      await step(client);
      const before = now;
      now = performance.now();
      times.push((now - before) / 1000);
    }
  }
  await Promise.all(Array.from({ length: scenario === "tasks" ? 50 : 1 }, repeat));
  return times;
}

async function main() {
  const client = await connect();
  await run(client, seconds / 4);
  const [wall, cpu] = [performance.now(), process.cpuUsage()];
  const times = Float64Array.from(await run(client, seconds));
  const used = process.cpuUsage(cpu);
  const result = { requests: times.length * requests, seconds: (performance.now() - wall) / 1000, cpu: (used.user + used.system) / 1e6 };
  times.sort();
  const at = (part) => times[Math.floor(times.length * part)];
  console.log(JSON.stringify({ ...result, latencies: { p50: at(0.5), p99: at(0.99), "p99.9": at(0.999) } }));
  close(client);
}

main();
