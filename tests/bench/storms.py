#!/usr/bin/env python3
"""Measures storms of clients, and what pontoon costs while idle, beside direct TLS.

    cargo build --release && python3 tests/bench/storms.py [--rounds N] [--scale X] [--targets NAME;...] [SCENARIO ...]

    new        2,500 clients connect at once
    restart    500 active clients are replaced, 50 at a time
    kill       the server of 1,000 active clients is killed and started again
    failover   the primary of 1,000 active clients is killed, and its replica promoted
    planned    the primary of 1,000 active clients becomes a replica, and its replica the primary; both keep their connections
    busy       latency of redis-py 8 while a loop keeps each core busy (needs tests/run.sh's packages)
    idle       memory and wake-ups with 10,000 idle clients, or as many as the limit of file descriptors allows

Storms report the time until the last client is served (after "kill", "failover" and "planned" from the time when the endpoint leads to a
primary again), the errors that clients saw, the connections that the server accepted, and the TLS handshakes as far as they are known. Active
clients write, so an error is also a reply of a server that takes no writes. A client that sees an error connects again after 50 ms. Clients
wait up to --deadline seconds, so that the bridge's own deadlines apply first. A bridge has reusable connections from the step before. In a
failover the new primary takes over the ports of the old one: to clients, that is the same as a name that leads to another address.
Rounds visit the targets in a rotating order; figures are medians with their range. The clients share the machine, and with direct TLS they
pay for their handshakes, too.
"""
import argparse, asyncio, os, re, resource, ssl, subprocess, sys, time, urllib.request

from applications import LATENCIES, application
from run import DIRECT, eventually, figure, free_port, idle_clients, machine, memory, processes, redis, server, spread, table, targets, tree, workplace

DEFAULT = [DIRECT, "pontoon", "pontoon, shared"]
PAUSE = 0.5  # seconds between two requests of an active client
STORMS = {"new": 2500, "restart": 500, "kill": 1000, "failover": 1000, "planned": 1000}
IDLE = 10_000
SETTLES = 20  # seconds after which a bridge has got used to its number of clients


class Client:
    """A client that connects until it succeeds. It sends a request, and if it is active, others after pauses."""

    def __init__(self, a, port, context, active):
        self.a, self.port, self.context, self.active = a, port, context, active
        self.errors, self.served, self.writer, self.stopped = 0, 0, None, False
        self.handshakes = {False: 0, True: 0}  # by whether the session was resumed
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        # Before Python 3.12, wait_for() loses a cancellation that comes together with a result.
        while not self.stopped:
            try:
                reader = await asyncio.wait_for(self.connect(), self.a.deadline)
                await self.ask(reader)
                while self.active and not self.stopped:
                    await asyncio.sleep(PAUSE)
                    await self.ask(reader)
                return
            except (OSError, EOFError, asyncio.TimeoutError):
                self.errors += 1
                self.close()
                await asyncio.sleep(0.05)

    async def connect(self):
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        if self.context:
            self.handshakes[self.writer.get_extra_info("ssl_object").session_reused] += 1
        return reader

    async def ask(self, reader):
        self.writer.write(b"SET storm 1\r\n")
        if await asyncio.wait_for(reader.readline(), self.a.deadline) != b"+OK\r\n":
            raise EOFError
        self.served = time.monotonic()

    def close(self):
        if self.writer:
            self.writer.transport.abort()

    def stop(self):
        self.stopped = True
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
    return re.search(rf"^{key}:(\S*)", redis(plain, "INFO"), re.M)[1]


def accepted(plain):
    return int(info(plain, "total_connections_received"))


class Primary:
    """The server behind the endpoint, and its replica. The primary's ports stay the same."""

    def __init__(self, d):
        self.d = d
        self.plain, self.tls = server(d)
        self.process, self.replica = processes[-1], None

    def replicate(self):
        """Starts a replica, unless there is one."""
        if not self.replica:
            self.replica, _ = server(self.d)
            self.replica_process = processes[-1]
            redis(self.replica, "REPLICAOF", "127.0.0.1", str(self.plain))
        eventually("the replica is in step", lambda: info(self.replica, "master_link_status") == "up")

    # The steps. Each returns the time when the endpoint leads to a primary again, and how many connections that had accepted before.

    def kill(self):
        self.end()
        server(self.d, self.plain, self.tls)
        self.process = processes[-1]
        return time.monotonic(), 1  # the connection that tried whether it is up

    def failover(self):
        self.end()
        redis(self.replica, "REPLICAOF", "NO", "ONE")
        done = self.promoted()
        self.replica = None
        return done

    def planned(self):
        redis(self.plain, "FAILOVER")
        eventually("the replica is the primary", lambda: info(self.replica, "role") == "master")
        elsewhere = free_port()
        redis(self.plain, "CONFIG", "SET", "tls-port", str(free_port()), "port", str(elsewhere))
        done = self.promoted()
        # It replicates from the port that the new primary had before.
        redis(elsewhere, "REPLICAOF", "127.0.0.1", str(self.plain))
        self.replica = elsewhere
        return done

    def promoted(self):
        """Gives the endpoint's ports to the new primary."""
        before = accepted(self.replica)
        redis(self.replica, "CONFIG", "SET", "tls-port", str(self.tls), "port", str(self.plain))
        self.process, self.replica_process = self.replica_process, self.process
        return time.monotonic(), before + 1

    def end(self):
        self.process.kill()
        self.process.wait()


def bridge_handshakes(admin):
    """Returns how many full and how many resumed handshakes a pontoon has made."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as answer:
        text = answer.read().decode()
    return [sum(map(float, re.findall(rf'^pontoon_tls_handshakes_total{{.*resumed="{resumed}".*}} (.*)$', text, re.M)))
            for resumed in ("false", "true")]


async def storm(a, scenario, port, context, primary, admin):
    """Returns the seconds until the last client was served, and the numbers of errors, of connections at the server, and of full and resumed
    handshakes (`None`: not known)."""
    count, clients = max(1, int(STORMS[scenario] * a.scale)), []

    async def create(number, active=True):
        """Creates clients, and waits until they are served."""
        clients.extend(Client(a, port, context, active) for _ in range(number))
        await served(clients[-number:])

    def batches():
        return (min(50, count - n) for n in range(0, count, 50))

    async def handshakes():
        if admin:
            return await asyncio.to_thread(bridge_handshakes, admin)
        return [sum(client.handshakes[resumed] for client in clients) for resumed in (False, True)]

    try:
        if scenario != "new":
            for number in batches():
                await create(number)
        if scenario in ("failover", "planned"):
            await asyncio.to_thread(primary.replicate)
        made = await handshakes()
        before, began = accepted(primary.plain), time.monotonic()
        if scenario == "new":
            await create(count, active=False)
        elif scenario == "restart":
            for n, number in enumerate(batches()):
                for client in clients[50 * n:50 * n + number]:
                    client.stop()
                await create(number)
        else:
            began, before = await asyncio.to_thread(getattr(primary, scenario))
            await served(clients, began)
        seconds = time.monotonic() - began
        made = [now - then for now, then in zip(await handshakes(), made)] if context or admin else [None, None]
        # INFO's own connection is counted, too.
        return seconds, sum(client.errors for client in clients), accepted(primary.plain) - before - 1, *made
    finally:
        for client in clients:
            client.stop()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


def storms(a, d, primary, found, admins):
    """Measures the storms."""
    context = ssl.create_default_context(cafile=f"{d}/ca.crt")
    for scenario in (key for key in STORMS if key in a.scenarios):
        rows = {name: [] for name in found}
        for n in range(a.rounds):
            names = list(found)
            for name in names[n % len(names):] + names[:n % len(names)]:
                own = context if name == DIRECT else None
                rows[name].append(asyncio.run(storm(a, scenario, found[name][0], own, primary, admins.get(name))))
                # The bridges keep some connections, but those of the clients end.
                give_up = time.monotonic() + 30
                while int(info(primary.plain, "connected_clients")) > 64 * len(found) and time.monotonic() < give_up:
                    time.sleep(0.1)
        heads = ["seconds until the last is served", "errors", "connections at the server", "full handshakes", "resumed handshakes"]
        table(f"{scenario}: {int(STORMS[scenario] * a.scale):,} clients", heads,
              [(name, ["–" if None in column else spread(column) for column in zip(*rows[name])]) for name in found])


def busy(a, d, found):
    """The latency of an application, alone and beside a loop on each core."""
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

    def chosen(d, primary, admins=None):
        return {name: target for name, target in targets(d, primary.plain, primary.tls, admins).items() if name in a.targets}

    if "idle" in a.scenarios:
        with workplace() as d:
            idle(a, chosen(d, Primary(d)))
    if set(a.scenarios) == {"idle"}:
        return
    with workplace() as d:
        primary, admins = Primary(d), {}
        found = chosen(d, primary, admins)
        print(f"{machine(primary.plain)}; {a.rounds} rounds: median (least–most).")
        storms(a, d, primary, found, admins)
        if "busy" in a.scenarios:
            redis(primary.plain, "SET", "small", "x" * 64)
            busy(a, d, found)


if __name__ == "__main__":
    main()
