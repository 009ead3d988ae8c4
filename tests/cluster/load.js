// As load.py, with ioredis. Arguments: module, port, prefix.
const { ports } = require("./dialled.js");
const { once, EventEmitter } = require("events");
const readline = require("readline");
const Redis = require("ioredis");

const WORKERS = 3;
const KEYS = 50;
const prefix = process.argv[3];
const client = new Redis.Cluster([{ host: "127.0.0.1", port: Number(process.argv[2]) }]);
const redirects = { MOVED: 0, ASK: 0 };
const errors = {};
const wrong = [];

client.on("error", () => {});
const handleError = client.handleError;
client.handleError = function (error, ...more) {
  const [code] = error.message.split(" ");
  if (code in redirects) redirects[code] += 1;
  return handleError.call(this, error, ...more);
};

const failed = (error) => {
  const words = `${error.name}: ${error.message}`.slice(0, 160);
  errors[words] = (errors[words] || 0) + 1;
  return false;
};

class Worker extends EventEmitter {
  constructor(number) {
    super();
    this.keys = Array.from({ length: KEYS }, (_, n) => `${prefix}${number}-${n}`);
    this.acknowledged = {};
    this.unsure = {};
    this.writes = 0;
    this.passes = 0;
  }

  async run() {
    for (;;) {
      for (const key of this.keys) {
        while (!((await this.write(key)) && (await this.read(key))));
      }
      this.passes += 1;
      this.emit("passed");
    }
  }

  async write(key) {
    this.writes += 1;
    const value = `${key}=${this.writes}`;
    try {
      await client.set(key, value);
    } catch (error) {
      // The command may have been executed.
      (this.unsure[key] ||= new Set()).add(value);
      return failed(error);
    }
    this.acknowledged[key] = value;
    delete this.unsure[key];
    return true;
  }

  async read(key) {
    let value;
    try {
      value = await client.get(key);
    } catch (error) {
      return failed(error);
    }
    if (value !== this.acknowledged[key] && !this.unsure[key]?.has(value)) {
      wrong.push(`${key} is ${value}, was ${this.acknowledged[key]}`);
    }
    return true;
  }

  async twoMore() {
    const target = this.passes + 2;
    while (this.passes < target) {
      const late = AbortSignal.timeout(30000);
      await once(this, "passed", { signal: late }).catch(() => (errors["no pass in 30 s"] = 1));
      if (late.aborted) return;
    }
  }
}

const workers = Array.from({ length: WORKERS }, (_, number) => new Worker(number));
workers.forEach((worker) => worker.run());
const lines = readline.createInterface({ input: process.stdin });
lines.on("close", () => process.exit(0));
lines.on("line", async () => {
  await Promise.all(workers.map((worker) => worker.twoMore()));
  const writes = workers.map((worker) => worker.writes).reduce((a, b) => a + b);
  const report = { dialled: [...ports], errors, wrong, moved: redirects.MOVED, asked: redirects.ASK, writes };
  console.log(JSON.stringify(report));
});
