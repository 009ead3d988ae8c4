"""Uses an RQ queue: immediate, dependent and retried jobs, and a worker that waits for jobs and for commands.

Argument: a port.
"""

import math
import multiprocessing
import operator
import sys

import redis
from rq import Queue, Retry, SimpleWorker, Worker
from rq.command import send_shutdown_command


def connect():
    return redis.Redis(port=int(sys.argv[1]))


def listen():
    connection = connect()
    SimpleWorker(["orders"], connection=connection, name="listener").work(logging_level="WARNING")


connection = connect()
queue = Queue("orders", connection=connection)

# The worker starts a process for each job, until no job is left.
jobs = [queue.enqueue(operator.mul, n, 2) for n in range(5)]
after = queue.enqueue(operator.add, 40, 2, depends_on=jobs)
stubborn = queue.enqueue(math.sqrt, -1, retry=Retry(max=2))
assert Worker([queue], connection=connection).work(burst=True, logging_level="WARNING")
assert [job.latest_result().return_value for job in jobs] == [0, 2, 4, 6, 8]
assert after.latest_result().return_value == 42
stubborn.refresh()
assert stubborn.get_status() == "failed" and stubborn.retries_left == 0, (stubborn.get_status(), stubborn.retries_left)

# The worker blocks on the queue, and subscribes to a channel that carries the command to shut down.
listener = multiprocessing.Process(target=listen, daemon=True)
listener.start()
many = [queue.enqueue(operator.mul, n, n) for n in range(100)]
for n, job in enumerate(many):
    # Blocks on the job's stream of results.
    result = job.latest_result(timeout=30)
    assert result and result.return_value == n * n, (n, result)
send_shutdown_command(connection, "listener")
listener.join(30)
assert listener.exitcode == 0, listener.exitcode
assert len(queue) == 0
print("done")
