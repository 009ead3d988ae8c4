// Prints what an application with a Node.js client sees during an outage, as outage.py does. Arguments: a module, a scenario, a port.
const { setTimeout: later } = require("node:timers/promises");

const [moduleName, scenario, port] = process.argv.slice(2);
const told = new Set();

// An error reply is an error of the command. Errors of the connection have another class. node-redis 6 rejects a command that waits for a
// connection with the reply to its HELLO: LOADING means that the command was not executed, and may be tried again.
function tell(error) {
  console.error(`${error.constructor.name}: ${error.message}`);
  const isReply = /ReplyError|SimpleError|ErrorReply/.test(error.constructor.name);
  const kind = isReply && !error.message.startsWith("LOADING ") ? `other error: ${error.message}` : "connection error";
  if (!told.has(kind)) console.log(kind);
  told.add(kind);
}

async function repeat(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      tell(error);
      await later(50);
    }
  }
}

async function main() {
  let client;
  let pop;
  if (moduleName.startsWith("ioredis")) {
    client = new (require(moduleName))({ port: Number(port) });
    client.on("error", (error) => console.error(`${error}`));
    pop = () => client.blpop("queue", 0);
  } else {
    client = require(moduleName).createClient({ socket: { port: Number(port) } });
    client.on("error", (error) => console.error(`${error}`));
    pop = () => client.blPop("queue", 0);
    await client.connect();
  }
  await repeat(() => client.set("k", "v"));
  console.log("up");
  if (scenario === "wait") {
    await repeat(pop);
    console.log("popped");
  }
  await client.quit();
}

main();
