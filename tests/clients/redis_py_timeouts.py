"""redis-py workers give up a blocking pop, by a read timeout and by a cancelled task. A job that is pushed afterwards stays in its list.

Argument: a port.
"""

import asyncio
import sys

import redis
import redis.asyncio

PORT = int(sys.argv[1])
# Each takes seconds, because redis-py tries three more times after a timeout.
ROUNDS = 5


def stays(queue):
    """Pushes a job, and pops it again."""
    jobs = redis.Redis(port=PORT)
    jobs.rpush(queue, "job")
    return jobs.lpop(queue) == b"job"


def times_out(queue):
    worker = redis.Redis(port=PORT, socket_timeout=0.02)
    try:
        worker.blpop(queue, 0)
        raise AssertionError("there was no job")
    except redis.TimeoutError:
        pass


async def is_cancelled(queue):
    worker = redis.asyncio.Redis(port=PORT)
    try:
        await asyncio.wait_for(worker.blpop(queue, 0), 0.05)
        raise AssertionError("there was no job")
    except (asyncio.TimeoutError, redis.TimeoutError):
        # redis.TimeoutError: the task was cancelled while it connected.
        pass
    return stays(queue)


lost = {
    "after a read timeout": sum(not (times_out(f"q{n}") or stays(f"q{n}")) for n in range(ROUNDS)),
    "after a cancelled task": sum(not asyncio.run(is_cancelled(f"c{n}")) for n in range(ROUNDS)),
}
# On a busy machine, the bridge may not run between the client's end and the push, so one job may be lost.
assert all(jobs <= 1 for jobs in lost.values()), lost
print("done")
