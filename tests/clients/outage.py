"""Prints what an application with redis-py sees during an outage, with the library's default settings. One client is used throughout.

Arguments: `sync` or `asyncio`, a scenario, a port.

  begin   writes until a write is accepted
  wait    writes, and waits for the element of a list

Prints each kind of error once ("connection error" if the library treats it as one of the connection), then the result.
"""

import asyncio
import sys
import time

import redis
import redis.asyncio

FLAVOUR, SCENARIO, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
told = set()


def tell(error):
    connection = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    if connection not in told:
        told.add(connection)
        print("connection error" if connection else f"other error: {type(error).__name__}: {error}", flush=True)


def repeat(call):
    while True:
        try:
            return call()
        except redis.RedisError as error:
            tell(error)
            time.sleep(0.05)


async def repeat_async(call):
    while True:
        try:
            return await call()
        except redis.RedisError as error:
            tell(error)
            await asyncio.sleep(0.05)


def run():
    client = redis.Redis(port=PORT)
    repeat(lambda: client.set("k", "v"))
    print("up", flush=True)
    if SCENARIO == "wait":
        repeat(lambda: client.blpop("queue", timeout=0))
        print("popped", flush=True)


async def run_async():
    client = redis.asyncio.Redis(port=PORT)
    await repeat_async(lambda: client.set("k", "v"))
    print("up", flush=True)
    if SCENARIO == "wait":
        await repeat_async(lambda: client.blpop("queue", timeout=0))
        print("popped", flush=True)
    await client.close()


if FLAVOUR == "sync":
    run()
else:
    asyncio.run(run_async())
