// What load.py does, with ioredis at its defaults. The argument is its JSON.
const fs = require("fs");
const { setTimeout: later } = require("node:timers/promises");
const Redis = require("ioredis");

const given = JSON.parse(process.argv[2]);
const counts = { acknowledged: 0, failed: 0, read: {}, errors: {} };
let stopped = false;
process.stdin.once("data", () => (stopped = true));

function count(error) {
  const text = `${error.name}: ${error.message}`.slice(0, 160);
  counts.errors[text] = (counts.errors[text] ?? 0) + 1;
}

function connect(role) {
  const ca = given.ca && fs.readFileSync(given.ca);
  const client = new Redis({
    sentinels: given.sentinels.map(([host, port]) => ({ host, port })),
    name: given.name,
    role,
    ...(given.server_password && { password: given.server_password }),
    ...(given.sentinel_password && { sentinelPassword: given.sentinel_password }),
    ...(given.server_tls && { tls: { ca } }),
    ...(given.sentinel_tls && { enableTLSForSentinelMode: true, sentinelTLS: { ca } }),
  });
  client.on("error", count);
  return client;
}

const attempt = (call) => call.catch(count);

async function main() {
  const [primary, replica] = [connect("master"), connect("slave")];
  for (let up = false; ; await later(5)) {
    const stopping = stopped;
    const wrote = await attempt(primary.incr(given.key));
    const role = await attempt(replica.role());
    counts[wrote ? "acknowledged" : "failed"]++;
    if (role) counts.read[role[0]] = (counts.read[role[0]] ?? 0) + 1;
    if (!wrote || !role) continue;
    if (!up) console.log("up");
    up = true;
    if (stopping) break;
  }
  console.log(JSON.stringify(counts));
}

main().then(() => process.exit(0));
