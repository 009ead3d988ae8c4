"""The benchmark's application with redis-py. ../applications.py describes the arguments and the output."""
import json, sys, threading, time

import redis

scenario, seconds, address, authority = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]


def connect():
    if address.startswith("/"):
        return redis.Redis(unix_socket_path=address)
    port = int(address)
    return redis.Redis(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=authority) if authority else redis.Redis(host="127.0.0.1", port=port)


def pipeline(client):
    pipe = client.pipeline(transaction=False)
    for _ in range(50):
        pipe.get("small")
    assert len(pipe.execute()[49]) == 64


def reconnect(_):
    with connect() as client:
        assert len(client.get("small")) == 64


# The number of requests of a step, and the step.
STEPS = {
    "single": (1, lambda client: client.get("small")),
    "pipeline": (50, pipeline),
    "large": (1, lambda client: client.get("large")),
    "connect": (1, reconnect),
    "tasks": (1, lambda client: client.get("small")),
}


def repeat(client, until):
    """Repeats the step, and returns the time of each in seconds. Takes at least one, so that after the warm-up most threads have a connection."""
    step, times, now = STEPS[scenario][1], [], time.perf_counter()
    while True:
        step(client)
        before, now = now, time.perf_counter()
        times.append(now - before)
        if now >= until:
            return times


def run(client, duration):
    """Returns the times of all steps, by one thread or by 50."""
    until, times = time.perf_counter() + duration, []
    threads = [threading.Thread(target=lambda: times.extend(repeat(client, until))) for _ in range(50 if scenario == "tasks" else 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


client = connect()
run(client, seconds / 4)
wall, cpu = time.perf_counter(), time.process_time()
times = run(client, seconds)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
times.sort()
print(json.dumps({"requests": len(times) * STEPS[scenario][0], "seconds": wall, "cpu": cpu,
                  "latencies": {name: times[int(len(times) * part)] for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}}))
