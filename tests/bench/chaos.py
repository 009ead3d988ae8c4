#!/usr/bin/env python3
"""Chaos: real servers with TLS, a release build of pontoon, and clients that check every reply, under faults of the servers, of the
network and of pontoon itself. Prints what was wrong, lost or duplicated, and exits with 1 if anything was.

    cargo build --release && python3 tests/bench/chaos.py --minutes 5 [--engine DIR] [--mode dedicated|shared|cluster|cluster-shared]

Servers: a primary and a replica behind one address, or a cluster of three primaries with a replica each. Each address is that of a relay,
which can hold data, send single bytes, reset and refuse. Servers are killed, stopped for seconds, paused and fail over. pontoon is reloaded,
drained, replaced by a second process, and killed.

What is checked:
- Each reply belongs to its request: echoes of unique words, a client's own values from 1 B to 200 KB, its name, its database.
- Each increment is accounted for. At the end, a counter has at least the acknowledged increments, and at most these and the unknown ones
  (without a reply, or with an error that says "may or may not"). Increments that an error calls not executed do not count, nor do those
  that a drain left without a reply.
- An element of a list is popped at most once. Elements that no client received and that the list no longer has are lost. There may be at
  most as many as pops whose reply no client has seen, because each of these may have popped an element.
- A message is received at most once over a connection. Messages that come again over a later connection, usually to another node, are only
  counted, and so are messages that the server reports as delivered and no subscriber received.
- A reload, good or bad, ends no session. A handover to a second process refuses no client. All clients recover after each fault.

Failovers are graceful (FAILOVER, CLUSTER FAILOVER), and the cluster never fails over by itself: replication is asynchronous, so a forced
failover loses acknowledged writes with any proxy and without one. With appendfsync "no", a server writes to the file before it replies, and
leaves the fsync to the kernel: a killed process loses no acknowledged write, but a power failure can.
"""
import argparse, asyncio, collections, logging, os, random, re, signal, statistics, subprocess, sys, tempfile, time
import urllib.request

sys.path.insert(0, os.path.dirname(__file__))
from checked import Consumer, Fault, Producer, Publisher, Queue, Subscriber, Tally, Topic, Worker, command, read
from relay import Relay
from run import ROOT, certificates, free_port

# By mode: topology and sharing.
MODES = {"dedicated": ("standalone", "dedicated"), "shared": ("standalone", "shared"),
         "cluster": ("cluster", "dedicated"), "cluster-shared": ("cluster", "shared")}
UPSTREAM_FAULTS = ["blackhole", "dribble", "reset", "refuse", "kill", "pause", "failover", "kill connections"]
RELOADS = ["good reload", "bad reload"]
# These replace the process, so its memory is measured before.
REPLACEMENTS = ["restart", "handover", "crash"]


class Server:
    """A process, its ports, and what to start it with."""

    def __init__(self, directory, relay):
        self.plain, self.tls, self.bus = (free_port() for _ in range(3))
        self.relay, self.directory = relay, f"{directory}/{self.tls}"
        os.mkdir(self.directory)
        self.command = [
            "redis-server", "--port", str(self.plain), "--tls-port", str(self.tls), "--tls-cert-file", f"{directory}/server.crt",
            "--tls-key-file", f"{directory}/server.key", "--tls-ca-cert-file", f"{directory}/ca.crt", "--tls-auth-clients", "no",
            "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--repl-diskless-sync-delay", "0", "--dir", self.directory]
        if relay:
            self.command += [
                "--cluster-enabled", "yes", "--cluster-port", str(self.bus), "--tls-cluster", "yes", "--tls-replication", "yes",
                "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-tls-port", str(relay.port), "--cluster-node-timeout", "15000",
                "--cluster-replica-no-failover", "yes", "--cluster-allow-replica-migration", "no"]
            relay.target = self.tls

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=subprocess.DEVNULL)

        async def answers():
            try:
                return await self.ask("PING") == b"PONG"
            except OSError:
                return False
        await eventually("the server answers", answers)

    async def ask(self, *words, database=0):
        """Sends a command in plaintext directly to the server, not through pontoon."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plain, limit=1 << 24)
        try:
            writer.write(command(("SELECT", database)) + command(words) if database else command(words))
            if database:
                await read(reader)
            return await read(reader)
        except EOFError as error:
            raise ConnectionError("the server closed the connection") from error
        finally:
            writer.close()

    async def info(self, section, field):
        return re.search(rf"{field}:(\S*)", (await self.ask("INFO", section)).decode())[1]

    async def is_primary(self):
        return (await self.ask("ROLE"))[0] == b"master"

    async def in_step(self):
        """Whether a replica has all of its primary's data, also in its file."""
        return await self.info("replication", "master_link_status") == "up" and await self.saved()

    async def saved(self):
        """Whether the file is complete. After a full synchronisation it is complete only once it was rewritten."""
        return await self.info("persistence", "aof_rewrite_in_progress") == await self.info("persistence", "aof_rewrite_scheduled") == "0"


class Standalone:
    databases = True

    async def start(self, directory):
        self.relays = [Relay()]
        await self.relays[0].open()
        self.servers = [Server(directory, None), Server(directory, None)]
        for server in self.servers:
            await server.start()
        self.primary, self.replica = self.servers
        await self.replica.ask("REPLICAOF", "127.0.0.1", self.primary.plain)
        self.relays[0].target = self.primary.tls
        for database in range(4):
            await self.primary.ask("SET", "database", database, database=database)

    async def failover(self):
        """Fails over. Open connections keep their server, which is now a replica. As with a changed name, new ones reach the new primary."""
        await eventually("the replica is in step", self.replica.in_step)
        reply = await self.primary.ask("FAILOVER")
        assert reply == b"OK", reply
        await eventually("the replica is the primary", self.replica.is_primary)
        self.primary, self.replica = self.replica, self.primary
        self.relays[0].target = self.primary.tls

    async def any_primary(self):
        return self.primary

    async def primary_of(self, key):
        return self.primary


class Cluster:
    databases = False

    async def start(self, directory):
        self.relays = [Relay() for _ in range(6)]
        for relay in self.relays:
            await relay.open()
        self.servers = [Server(directory, relay) for relay in self.relays]
        for epoch, server in enumerate(self.servers):
            await server.start()
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
        for server, (first, last) in zip(self.servers, ((0, 5460), (5461, 10922), (10923, 16383))):
            await server.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in self.servers[1:]:
            await self.servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.tls, server.bus)
        await eventually("the nodes know each other", lambda: self.all("cluster_known_nodes:6"))
        for primary, replica in zip(self.servers, self.servers[3:]):
            reply = await replica.ask("CLUSTER", "REPLICATE", (await primary.ask("CLUSTER", "MYID")).decode())
            assert reply == b"OK", reply
        await eventually("the cluster is up", lambda: self.all("cluster_state:ok"))

    async def all(self, words):
        return all([words.encode() in await server.ask("CLUSTER", "INFO") for server in self.servers])

    async def primaries(self):
        return [server for server in self.servers if await server.is_primary()]

    async def any_primary(self):
        return random.choice(await self.primaries())

    async def failover(self):
        replica = random.choice([server for server in self.servers if not await server.is_primary()])
        await eventually("the replica is in step", replica.in_step)
        deadline = time.monotonic() + 60
        while not await replica.is_primary():
            # A failover that takes more than 5 s, as on a slow machine, is aborted.
            reply = await replica.ask("CLUSTER", "FAILOVER")
            try:
                await eventually("the replica is the primary", replica.is_primary, 8)
            except Fault:
                if time.monotonic() > deadline:
                    raise Fault(f"no failover: {reply}")

    async def primary_of(self, key):
        """Returns the primary that has the key's slot. Other nodes answer MOVED, and all of them an error for a moment after a kill."""
        found = []

        async def look():
            found[:] = [server for server in await self.primaries() if not isinstance(await server.ask("EXISTS", key), Exception)]
            return found

        await eventually("a primary answers for the key", look)
        return found[0]


class Stage:
    """The servers, pontoon, and the faults of both."""

    def __init__(self, options, mode, directory):
        topology, self.sharing = MODES[mode]
        self.topology, self.directory, self.program = topology, directory, options.pontoon
        self.upstream = Cluster() if topology == "cluster" else Standalone()
        self.databases = self.upstream.databases
        self.tally, self.stop = Tally(), asyncio.Event()
        self.port, self.admin, self.other_admin = (free_port() for _ in range(3))

    def hidden(self):
        """Returns the ports that no reply may name."""
        return {port for server in self.upstream.servers for port in (server.plain, server.tls)} | {relay.port for relay in self.upstream.relays}

    async def start(self):
        certificates(self.directory)
        await self.upstream.start(self.directory)
        self.configure()
        await self.start_pontoon()

    def configure(self, broken=False, handshakes=16, errors="auto"):
        with open(f"{self.directory}/pontoon.toml", "w") as file:
            file.write(f'''[[route]]
name = "chaos"
listen = ["127.0.0.1:{self.port}"]
handover = true
topology = "{self.topology}"
sharing = "{self.sharing}"
errors = "{errors}"
upstream = [{", ".join(f'"localhost:{relay.port}"' for relay in self.upstream.relays)}]
tls.ca_files = ["{self.directory}/ca.crt"]
pool.warm = true
limits.handshakes = {handshakes}
{"limits.handshake = 1" if broken else ""}
[runtime]
drain_timeout = "20s"
''')

    async def start_pontoon(self):
        with open(f"{self.directory}/pontoon.log", "ab") as log:
            self.pontoon = await asyncio.create_subprocess_exec(
                self.program, "run", "--config", f"{self.directory}/pontoon.toml", "--admin", f"127.0.0.1:{self.admin}", stderr=log)
        await eventually("pontoon is serving", lambda: self.get("/readyz"))

    async def get(self, path):
        def get():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=2) as answer:
                    return answer.read().decode()
            except OSError:
                return ""
        return await asyncio.to_thread(get)

    async def metric(self, name):
        """Returns the sum of a metric over all its labels."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in (await self.get("/metrics")).splitlines() if re.match(rf"{name}[{{ ]", line))

    def memory(self):
        """Returns the process' memory in KiB."""
        with open(f"/proc/{self.pontoon.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])

    # The events. Each function returns when its event is over and clients can recover.

    async def inject(self, name):
        if hasattr(Relay, name):
            relays = self.upstream.relays
            await asyncio.gather(*(getattr(relay, name)() for relay in random.sample(relays, random.randint(1, len(relays)))))
        else:
            await getattr(self, name.replace(" ", "_"))()

    async def failover(self):
        await self.upstream.failover()

    async def kill(self):
        """Kills a primary, and restarts it from its file."""
        server = await self.upstream.any_primary()
        await eventually("the file is complete", server.saved)
        server.process.send_signal(random.choice((signal.SIGTERM, signal.SIGKILL)))
        await server.process.wait()
        await asyncio.sleep(random.uniform(0, 1))
        await server.start()

    async def pause(self):
        server = await self.upstream.any_primary()
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.5, 3))
        server.process.send_signal(signal.SIGCONT)

    async def kill_connections(self):
        await (await self.upstream.any_primary()).ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def good_reload(self):
        self.configure(handshakes=random.randint(8, 32), errors=random.choice(("auto", "reply", "close")))
        await self.reload("ok")

    async def bad_reload(self):
        self.configure(broken=True)
        await self.reload("failed")
        self.configure()

    async def reload(self, result):
        name = f'pontoon_config_reloads_total{{result="{result}"}}'

        async def count():
            return float((re.search(rf"^{re.escape(name)} (.*)$", await self.get("/metrics"), re.M) or ["", "0"])[1])
        before = await count()
        self.pontoon.send_signal(signal.SIGHUP)

        async def counted():
            return await count() == before + 1
        await eventually("the reload is counted", counted)

    async def restart(self):
        await self.end(self.pontoon)
        await self.start_pontoon()

    async def handover(self):
        """Runs a second pontoon on the same port, and ends the first."""
        before = self.pontoon
        self.admin, self.other_admin = self.other_admin, self.admin
        await self.start_pontoon()
        await self.end(before)

    async def crash(self):
        self.pontoon.kill()
        await self.pontoon.wait()
        await self.start_pontoon()

    async def end(self, process):
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 40)
        if code != 0:
            self.tally.fault("wrong", f"pontoon exited with {code}")

    async def close(self):
        """Ends all processes, also after a failure."""
        for relay in self.upstream.relays:
            await relay.close()
        for process in (getattr(owner, "pontoon", None) or getattr(owner, "process", None) for owner in (self, *self.upstream.servers)):
            if process and process.returncode is None:
                process.kill()
                await process.wait()


async def eventually(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise Fault(f"did not happen in time: {what}")
        await asyncio.sleep(0.05)


class Cast:
    """The clients of one mode."""

    def __init__(self, count, stage, seed):
        groups = max(1, count // 15)
        self.queues = [Queue(number, stage.tally) for number in range(groups)]
        self.topics = [Topic(number) for number in range(groups)]
        numbers = iter(range(max(count, 6 * groups)))
        self.subscribers = [Subscriber(next(numbers), stage, seed, topic) for topic in self.topics]
        self.others = [Publisher(next(numbers), stage, seed, topic) for topic in self.topics]
        for queue in self.queues:
            self.others += [part(next(numbers), stage, seed, queue) for part in (Producer, Consumer, Consumer)]
        self.workers = [Worker(number, stage, seed) for number in numbers]
        self.all = self.subscribers + self.others + self.workers
        self.tasks = [asyncio.create_task(client.run()) for client in self.all]

    async def recovered(self):
        """Waits until every client has received a reply. Returns the seconds that this took."""
        began = time.monotonic()
        for client in self.all:
            client.recovered = None

        async def every():
            for task in self.tasks:
                if task.done():
                    task.result()  # raises what ended it
            return all(client.recovered for client in self.all)
        try:
            await eventually("all clients go on", every)
        except Fault:
            raise Fault(f"these clients did not recover: {', '.join(client.name for client in self.all if not client.recovered)}")
        last = max(self.all, key=lambda client: client.recovered)
        return last.recovered - began, f"{type(last).__name__} {last.name}"

    async def leave(self, stage):
        stage.stop.set()
        for client, task in zip(self.all, self.tasks):
            if client in self.subscribers:
                task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def chaos(options, mode, minutes, directory):
    stage = Stage(options, mode, directory)
    try:
        await stage.start()
        cast = Cast(options.clients, stage, options.seed)
        await cast.recovered()
        counts, recovery, memory = collections.Counter(), collections.Counter(), [stage.memory()]
        began = time.monotonic()
        for end, names in ((0.75, UPSTREAM_FAULTS + RELOADS), (1, UPSTREAM_FAULTS + RELOADS + 2 * REPLACEMENTS)):
            # Even a short run has each replacement at least once.
            must = random.sample(REPLACEMENTS, len(REPLACEMENTS)) if end == 1 else []
            queue = []
            while must or time.monotonic() - began < minutes * 60 * end:
                queue = must or queue or random.sample(names, len(names))
                name = queue.pop()
                stage.tally.event = name
                await stage.inject(name)
                took, last = await cast.recovered()
                counts[name] += 1
                recovery[name] = max(recovery[name], took)
                stage.tally.event = "calm"
                await asyncio.sleep(0.5)
                if end < 1:
                    memory.append(stage.memory())
                if options.verbose:
                    print(f"{time.monotonic() - began:6.0f} s  {name:17} {took:6.2f} s  {stage.tally.replies:9,} replies  "
                          f"{stage.memory():6,} KiB  {last}", flush=True)
        elapsed = time.monotonic() - began
        await cast.leave(stage)
        await eventually("all sessions end", lambda: no_sessions(stage))
        lost, executed = await account(stage, cast)
        await stage.end(stage.pontoon)
        report(mode, stage.tally, cast, counts, recovery, memory, elapsed, lost, executed)
        return not stage.tally.faults
    except BaseException:
        if os.path.exists(f"{directory}/pontoon.log"):
            with open(f"{directory}/pontoon.log") as log:
                sys.stderr.writelines(log.readlines()[-30:])
        raise
    finally:
        await stage.close()


async def no_sessions(stage):
    return await stage.metric("pontoon_sessions_active") == 0


async def account(stage, cast):
    """Returns the number of lost elements, and of increments that the servers have executed."""
    executed = 0
    for worker in cast.workers:
        server = await stage.upstream.primary_of(worker.key)
        value = int(await server.ask("GET", worker.key, database=worker.database) or 0)
        executed += value
        if not worker.known <= value <= worker.known + worker.doubtful:
            stage.tally.fault("unaccounted", f"{worker.key}: is {value}, after {worker.known} and {worker.doubtful} unknown")
    lost = 0
    for queue in cast.queues:
        server = await stage.upstream.primary_of(queue.key)
        lost += queue.lost(await server.ask("LRANGE", queue.key, "0", "-1", database=queue.database))
    return lost, executed


def report(mode, tally, cast, counts, recovery, memory, elapsed, lost, executed):
    faults = collections.Counter(tally.faults)
    third = max(1, len(memory) // 3)
    topics, queues = cast.topics, cast.queues
    print(f"""
**{mode}**: {elapsed / 60:.1f} minutes, {len(cast.all)} clients, {tally.connections:,} connections
- replies checked {tally.replies:,}: wrong {faults["wrong"]}, duplicated {faults["duplicated"]}, unaccounted increments {faults["unaccounted"]}
- increments: acknowledged {tally.acknowledged:,}, unknown {tally.unknown:,}, failed {tally.failed:,}; executed {executed:,}
- elements popped {sum(len(queue.popped) for queue in queues):,}; lost {lost}, with {sum(queue.excused for queue in queues)} pops whose reply no client has seen; lost without a cause {faults["lost"]}
- messages received {sum(len(topic.received) for topic in topics):,}; not received {sum(len(topic.heard - topic.received) for topic in topics)}, received again over a later connection {sum(topic.again for topic in topics)}
- disconnects {sum(tally.ends.values()):,} ({", ".join(f"{name} {count:,}" for name, count in tally.ends.items())}), error replies {tally.errors:,}, refused connections {tally.refused:,}
- faults and longest recovery: {", ".join(f"{count} × {name} {recovery[name]:.2f} s" for name, count in sorted(counts.items()))}
- memory of the process that lived through the first three quarters: {memory[0]:,} KiB at the start, {statistics.median(memory[:third]):,.0f} KiB (median of the first third of samples), {statistics.median(memory[-third:]):,.0f} KiB (of the last), {memory[-1]:,} KiB at the end""", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="for all modes together")
    parser.add_argument("--mode", choices=[*MODES, "all"], default="all")
    parser.add_argument("--engine", default="", help="folder of redis-server (default: the one on PATH)")
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--pontoon", default=f"{ROOT}/target/release/pontoon")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--verbose", action="store_true", help="print a line for each fault")
    options = parser.parse_args()
    if options.engine:
        os.environ["PATH"] = f"{options.engine}:{os.environ['PATH']}"
    random.seed(options.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # asyncio logs a warning for each write to a closed connection.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print(f"--seed {options.seed}; {subprocess.check_output(['redis-server', '--version'], text=True).strip()}", flush=True)
    modes = list(MODES) if options.mode == "all" else [options.mode]
    right = True
    for mode in modes:
        with tempfile.TemporaryDirectory() as directory:
            right &= asyncio.run(chaos(options, mode, options.minutes / len(modes), directory))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
