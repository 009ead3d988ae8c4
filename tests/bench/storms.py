#!/usr/bin/env python3
"""Measures storms of clients, and what pontoon costs while idle, beside direct TLS.

    cargo build --release && python3 tests/bench/storms.py [--rounds N] [--scale X] [--targets NAME;...] [SCENARIO ...]

    new        2,500 clients connect at once
    restart    500 active clients are replaced, 50 at a time
    failover   the server of 1,000 active clients is killed and started again
    busy       latency of redis-py 8 while a loop keeps each core busy (needs tests/run.sh's packages)
    idle       memory and wake-ups with 10,000 idle clients, or as many as the limit of file descriptors allows

Storms report the time until the last client is served (in "failover" from the time when the server is back), the errors that clients saw,
and the connections that the server accepted, each of them a TLS handshake. A client that sees an error connects again after 50 ms. Clients
wait up to --deadline seconds, so that the bridge's own deadlines apply first. A bridge has reusable connections from the step before.
Rounds visit the targets in a rotating order; figures are medians with their range. The clients share the machine, and with direct TLS they
pay for their handshakes, too.
"""
import argparse, asyncio, os, re, resource, ssl, subprocess, sys, time

from applications import LATENCIES, application
from run import DIRECT, figure, idle_clients, machine, memory, processes, redis, server, spread, table, targets, tree, workplace

DEFAULT = [DIRECT, "pontoon", "pontoon, shared"]
PAUSE = 0.5  # seconds between two requests of an active client
STORMS = {"new": 2500, "restart": 500, "failover": 1000}
IDLE = 10_000
SETTLES = 20  # seconds after which a bridge has got used to its number of clients


class Client:
    """A client that connects until it succeeds. It sends a request, and if it is active, others after pauses."""

    def __init__(self, a, port, context, active):
        self.a, self.port, self.context, self.active = a, port, context, active
        self.errors, self.served, self.writer = 0, 0, None
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        while True:
            try:
                reader = await asyncio.wait_for(self.connect(), self.a.deadline)
                await self.ask(reader)
                while self.active:
                    await asyncio.sleep(PAUSE)
                    await self.ask(reader)
                return
            except (OSError, EOFError, asyncio.TimeoutError):
                self.errors += 1
                self.close()
                await asyncio.sleep(0.05)

    async def connect(self):
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        return reader

    async def ask(self, reader):
        self.writer.write(b"PING\r\n")
        if await asyncio.wait_for(reader.readline(), self.a.deadline) != b"+PONG\r\n":
            raise EOFError
        self.served = time.monotonic()

    def close(self):
        if self.writer:
            self.writer.transport.abort()

    def stop(self):
        self.task.cancel()
        self.close()


async def served(clients, since=0):
    """Waits until all clients have been served since a time."""
    give_up = time.monotonic() + 120
    while left := sum(client.served <= since for client in clients):
        if time.monotonic() > give_up:
            sys.exit(f"{left} clients were not served in 120 s")
        await asyncio.sleep(0.01)


def info(plain, key):
    return int(re.search(rf"^{key}:(\d+)", redis(plain, "INFO"), re.M)[1])


async def storm(a, scenario, port, context, plain, again):
    """Returns the seconds until the last client was served, the number of errors, and that of the connections at the server."""
    count, clients = max(1, int(STORMS[scenario] * a.scale)), []

    async def create(number, active=True):
        """Creates clients, and waits until they are served."""
        clients.extend(Client(a, port, context, active) for _ in range(number))
        await served(clients[-number:])

    def batches():
        return (min(50, count - n) for n in range(0, count, 50))

    try:
        if scenario != "new":
            for number in batches():
                await create(number)
        before, began = info(plain, "total_connections_received"), time.monotonic()
        if scenario == "new":
            await create(count, active=False)
        elif scenario == "restart":
            for n, number in enumerate(batches()):
                for client in clients[50 * n:50 * n + number]:
                    client.stop()
                await create(number)
        else:
            # The new server has counted the connection that tried whether it is up.
            before, began = 1, await asyncio.to_thread(again)
            await served(clients, began)
        seconds = time.monotonic() - began
        # INFO's own connection is counted, too.
        return seconds, sum(client.errors for client in clients), info(plain, "total_connections_received") - before - 1
    finally:
        for client in clients:
            client.stop()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


def storms(a, d, found):
    """Measures the storms."""
    context = ssl.create_default_context(cafile=f"{d}/ca.crt")

    def again():
        processes[a.server].kill()
        processes[a.server].wait()
        server(d, a.plain, a.tls)
        processes[a.server] = processes.pop()
        return time.monotonic()

    for scenario in (key for key in STORMS if key in a.scenarios):
        rows = {name: [] for name in found}
        for n in range(a.rounds):
            names = list(found)
            for name in names[n % len(names):] + names[:n % len(names)]:
                rows[name].append(asyncio.run(storm(a, scenario, found[name][0], context if name == DIRECT else None, a.plain, again)))
                # The bridges keep some connections, but those of the clients end.
                give_up = time.monotonic() + 30
                while info(a.plain, "connected_clients") > 64 * len(found) and time.monotonic() < give_up:
                    time.sleep(0.1)
        table(f"{scenario}: {int(STORMS[scenario] * a.scale):,} clients", ["seconds until the last is served", "errors", "connections at the server"],
              [(name, [spread(column) for column in zip(*rows[name])]) for name in found])


def busy(a, d, found):
    """The latency of an application, alone and beside a loop on each core."""
    redis(a.plain, "SET", "small", "x" * 64)
    found = {name: (port, f"{d}/ca.crt" if name == DIRECT else "") for name, (port, _, _) in found.items()}
    for title in "alone", "with a busy loop on each core":
        loops = [subprocess.Popen(["taskset", "-c", str(core), "python3", "-c", "while True: pass"])
                 for core in os.sched_getaffinity(0) if title != "alone"]
        try:
            rounds = [{name: application("redis-py 8", "single", a.seconds, *found[name]) for name in found} for _ in range(a.rounds)]
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        table(f"latency of single requests {title}, µs", LATENCIES,
              [(name, [spread([r[name]["latencies"][key] * 1e6 for r in rounds if r[name]]) for key in LATENCIES]) for name in found])


def wakeups(pid, seconds):
    """Returns how often a second the threads of a process tree wake up. Threads that end meanwhile do not count."""
    def counts():
        found = {}
        for p in tree(pid):
            for thread in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{thread}/status") as f:
                    found[thread] = int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M)[1])
        return found
    before = counts()
    time.sleep(seconds)
    after = counts()
    return sum(after[thread] - before[thread] for thread in before.keys() & after.keys()) / seconds


def idle(a, found):
    # A bridge needs two descriptors for each client.
    count, rows = min(int(IDLE * a.scale), resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 200), []
    for name, (port, pid, _) in found.items():
        if pid is None:
            continue
        time.sleep(SETTLES)
        quiet, empty = wakeups(pid, a.idle_seconds), memory(pid)
        with idle_clients(port, count):
            full = memory(pid)
            time.sleep(SETTLES)
            rows.append((name, [figure(x) for x in (empty / 1024, full / 1024, (full - empty) / count, quiet, wakeups(pid, a.idle_seconds))]))
    table(f"idle: {count:,} clients", ["MiB without clients", "MiB with them", "KiB for each", "wake-ups/s without", "wake-ups/s with them"], rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*STORMS, "busy", "idle"]
    p.add_argument("scenarios", nargs="*", help="any of " + ", ".join(known) + " (default: all)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--scale", type=float, default=1, help="factor for the numbers of clients")
    p.add_argument("--seconds", type=float, default=10, help='seconds of each measurement in "busy"')
    p.add_argument("--idle-seconds", type=float, default=60, help='seconds of each measurement in "idle"')
    p.add_argument("--deadline", type=float, default=30)
    p.add_argument("--targets", type=lambda text: text.split(";"), default=DEFAULT, help="targets of run.py, separated by semicolons")
    a = p.parse_args()
    a.scenarios = a.scenarios or known
    if unknown := set(a.scenarios) - set(known):
        p.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(known)}")
    with workplace() as d:
        a.server = len(processes)
        a.plain, a.tls = server(d)
        found = {name: target for name, target in targets(d, a.plain, a.tls).items() if name in a.targets}
        print(f"{machine(a.plain)}; {a.rounds} rounds: median (least–most).")
        # Memory first, while the processes are fresh.
        if "idle" in a.scenarios:
            idle(a, found)
        storms(a, d, found)
        if "busy" in a.scenarios:
            busy(a, d, found)


if __name__ == "__main__":
    main()
