"""Writes to the primary and reads from a replica, with redis-py's Sentinel at its defaults, until a line arrives on stdin.

Arguments: `sync` or `asyncio`, and JSON:

  sentinels, name                   the host and port of each sentinel, and the name of the primary
  key                               the key that it increments
  ca, server_tls, sentinel_tls      without the bridge: the authority's certificate, and what is reached over TLS
  server_password, sentinel_password

Prints "up" once a write and a read have succeeded. After the line on stdin, waits until both succeed again, and prints JSON:

  acknowledged, failed              number of writes with and without a reply of the primary
  read                              number of reads by the role of the server, as ROLE reports it
  errors                            each error, and how often it occurred
"""

import asyncio
import inspect
import json
import sys
import threading
import time
from collections import Counter

import redis
import redis.asyncio.sentinel
import redis.sentinel

FLAVOUR, GIVEN = sys.argv[1], json.loads(sys.argv[2])
acknowledged, failed, read, errors = 0, 0, Counter(), Counter()
stopped = threading.Event()


def options(side):
    found = {"ssl": True, "ssl_ca_certs": GIVEN["ca"]} if GIVEN[f"{side}_tls"] else {}
    return found | ({"password": GIVEN[f"{side}_password"]} if GIVEN[f"{side}_password"] else {})


async def attempt(call):
    """The result; None after an error."""
    try:
        result = call()
        return await result if inspect.isawaitable(result) else result
    except redis.RedisError as error:
        errors[f"{type(error).__name__}: {error}"[:160]] += 1


async def run(module):
    global acknowledged, failed
    sentinel = module.Sentinel(GIVEN["sentinels"], sentinel_kwargs=options("sentinel"), **options("server"))
    primary, replica = sentinel.master_for(GIVEN["name"]), sentinel.slave_for(GIVEN["name"])
    up = False
    while True:
        stopping = stopped.is_set()
        wrote = await attempt(lambda: primary.incr(GIVEN["key"])) is not None
        role = await attempt(replica.role)
        acknowledged, failed = acknowledged + wrote, failed + (not wrote)
        if role:
            read[role[0].decode()] += 1
        if wrote and role:
            if not up:
                print("up", flush=True)
            up = True
            if stopping:
                return
        time.sleep(0.005)


def wait_for_the_end():
    sys.stdin.readline()
    stopped.set()


threading.Thread(target=wait_for_the_end, daemon=True).start()
asyncio.run(run(redis.sentinel if FLAVOUR == "sync" else redis.asyncio.sentinel))
print(json.dumps({"acknowledged": acknowledged, "failed": failed, "read": read, "errors": errors}))
