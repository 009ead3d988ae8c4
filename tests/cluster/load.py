"""Writes and reads with redis-py until stdin ends, and checks each value.

Arguments: port, prefix, protocol, and for a client with its own TLS the CA's certificate. A line on stdin requests a check: once every key
has been written and read since, it prints a line of JSON with the results so far.
"""

import json
import sys
import threading
from collections import Counter

import dialled
import redis.exceptions
from redis.cluster import RedisCluster

WORKERS, KEYS = 3, 50
# The last one: redis-py 8.1 raises it at an ASK to a node that it does not know yet, with and without a bridge.
FAILURES = redis.exceptions.RedisError, redis.exceptions.RedisClusterException, AttributeError
port, prefix, protocol, ca = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
tls = {"ssl": True, "ssl_ca_certs": ca[0], "ssl_check_hostname": False} if ca else {}
client = RedisCluster(
    host="localhost" if ca else "127.0.0.1", port=port, protocol=protocol, decode_responses=True, **tls
)
redirects, errors, wrong = Counter(), Counter(), []


def count(error, name):
    init = error.__init__

    def counted(self, *words, **named):
        redirects[name] += 1
        init(self, *words, **named)

    error.__init__ = counted


count(redis.exceptions.MovedError, "moved")
count(redis.exceptions.AskError, "asked")


class Worker(threading.Thread):
    def __init__(self, number):
        super().__init__(daemon=True)
        self.keys = [f"{prefix}{number}-{n}" for n in range(KEYS)]
        self.acknowledged = {}
        self.unsure = {key: set() for key in self.keys}
        self.writes = 0
        self.passes = 0
        self.passed = threading.Condition()

    def run(self):
        while True:
            # Failed commands are repeated until every key has been written and read.
            for key in self.keys:
                while not (self.write(key) and self.read(key)):
                    pass
            with self.passed:
                self.passes += 1
                self.passed.notify()

    def write(self, key):
        self.writes += 1
        value = f"{key}={self.writes}"
        try:
            assert client.set(key, value) is True
        except FAILURES as error:
            # The command may have been executed.
            self.unsure[key].add(value)
            return self.failed(error)
        self.acknowledged[key] = value
        self.unsure[key] = set()
        return True

    def read(self, key):
        try:
            value = client.get(key)
        except FAILURES as error:
            return self.failed(error)
        if value != self.acknowledged[key] and value not in self.unsure[key]:
            wrong.append(f"{key} is {value}, was {self.acknowledged[key]}")
        return True

    def failed(self, error):
        errors[f"{type(error).__name__}: {error}"[:160]] += 1
        return False


workers = [Worker(number) for number in range(WORKERS)]
for worker in workers:
    worker.start()
for _ in sys.stdin:
    for worker in workers:
        with worker.passed:
            # The current pass began before the request.
            target = worker.passes + 2
            if not worker.passed.wait_for(lambda: worker.passes >= target, timeout=30):
                errors["no pass in 30 s"] += 1
    report = {"dialled": sorted(dialled.ports), "errors": errors, "wrong": wrong, "moved": redirects["moved"]}
    report |= {"asked": redirects["asked"], "writes": sum(worker.writes for worker in workers)}
    print(json.dumps(report), flush=True)
