"""Runs a worker with its library's default settings, which an outage must not end. Its job appends to a list.

Arguments: `celery` or `rq`; `worker` or `job`; a port. `worker` runs the worker, `job` enqueues a job.
"""

import os
import sys

import redis


def mark(port):
    redis.Redis(port=port).rpush("done", "job")


def run_celery(step, port):
    import celery

    url = f"redis://127.0.0.1:{port}/0"
    app = celery.Celery("outage", broker=url)
    task = app.task(mark, name="mark")
    if step == "job":
        task.delay(port)
    else:
        app.worker_main(["worker", "--concurrency", "1", "--loglevel", "INFO"])


def run_rq(step, port):
    import rq

    connection = redis.Redis(port=port)
    queue = rq.Queue("outage", connection=connection)
    if step == "job":
        queue.enqueue("outage_worker.mark", port)
    else:
        rq.Worker([queue], connection=connection).work()


if __name__ == "__main__":
    # RQ's processes import the job by its module's name.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    {"celery": run_celery, "rq": run_rq}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
