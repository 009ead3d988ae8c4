// As load.py, which describes the protocol.
const [host, port] = process.argv.slice(2);
const Redis = require('ioredis');
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const steps = [];
let wake = () => {};
let ended = false;
require('readline')
  .createInterface({ input: process.stdin })
  .on('line', (line) => { steps.push(line.trim()); wake(); })
  .on('close', () => { ended = true; wake(); });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const same = (a, b) => { if (String(a) !== String(b)) throw new Error(`wrong: ${a} is not ${b}`); };

let step;
const { LOAD_CA_FILE: ca, LOAD_PASSWORD: password } = process.env;
const tls = ca && { ca: require('fs').readFileSync(ca) };
const connect = (what) => new Redis({ host, port: +port, tls, password }).on('error', (error) => {
  say({ failed: what, step, error: `${error.name}: ${error.message}` });
});
const client = connect('connection');
const subscriber = connect('subscription');
const ready = new Promise((resolve) => { subscriber.once('ready', resolve); });
let heard = 0;
subscriber.on('message', (_, message) => { heard = +message; });

const operations = {
  async commands(key) {
    const value = await client.incr(key);
    await client.set('ioredis:value', value);
    same(await client.get('ioredis:value'), value);
  },
  async pipeline(key) {
    const [[e1, n], [e2, text], [e3]] = await client.pipeline().incr(key).get(key).ping().exec();
    if (e1 || e2 || e3) throw e1 || e2 || e3;
    same(n, text);
  },
  async transaction(key) {
    const [[e1, n], [e2, m]] = await client.multi().incr(key).incr(`${key}-too`).exec();
    if (e1 || e2) throw e1 || e2;
    same(n, m);
  },
  async pubsub(key) {
    const message = await client.incr(key);
    let sent = false;
    for (const deadline = Date.now() + 10000; heard !== message;) {
      if (Date.now() > deadline) throw new Error('a message was lost');
      // The subscriber may be reconnecting.
      sent = sent || await client.publish('ioredis', message) > 0;
      await sleep(1);
    }
  },
  async short(key) {
    const own = connect('short connection');
    try { await own.incr(key); } finally { own.disconnect(); }
  },
};

(async () => {
  const tally = {};
  for (const name of Object.keys(operations)) tally[`ioredis:${name}`] = [0, 0];
  for (;;) {
    while (!steps.length && !ended) await new Promise((resolve) => { wake = resolve; });
    if (!steps.length) break;
    // Wait first: otherwise ioredis would subscribe before its ready check, and then never do that check.
    if (!step) await ready.then(() => subscriber.subscribe('ioredis'));
    step = steps.shift();
    say({ step });
    while (!steps.length && !ended) {
      let clean = true;
      for (const [name, operation] of Object.entries(operations)) {
        if (steps.length || ended) { clean = false; break; }
        const key = `ioredis:${name}`;
        try {
          await operation(key);
          tally[key][0] += 1;
        } catch (error) {
          clean = false;
          tally[key][1] += 1;
          say({ failed: name, step, error: `${error.name}: ${error.message}` });
          await sleep(20);
        }
      }
      if (clean) say({ round: true });
      await sleep(5);
    }
  }
  say({ tally });
  process.exit();
})();
