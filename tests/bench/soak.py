#!/usr/bin/env python3
"""A soak: a real redis-server with TLS, a release build of pontoon, and many clients that check every reply, while pontoon is
reloaded, drained, restarted and replaced, and its upstream is killed, paused and cut off. Ends with what was lost, what was wrong,
and how memory went; exits with 1 if anything was.

    cargo build --release && python3 tests/bench/soak.py --minutes 5

What is checked:
- each reply is the one to its request: echoes of unique words, a client's own values, counters that go on by one;
- no command is executed twice, and none that was acknowledged is undone: each client has a counter, which at the end is what it
  was told, plus at most the increments that it was told may have been executed, or that were unanswered when the upstream was lost;
- a reload, good or bad, ends no session; a replacement side by side refuses no client; a drain leaves nothing in doubt: what was
  not answered was not executed;
- memory does not grow while one process lives through most of it; when all clients have left, so have all sessions.
"""
import argparse, asyncio, collections, os, random, re, signal, socket, statistics, subprocess, sys, tempfile, time
import urllib.request

sys.path.insert(0, os.path.dirname(__file__))
from checked import Client, Fault, Tally
from run import ROOT, certificates, free_port


class Stage:
    """Redis, pontoon, and what is done to them."""

    def __init__(self, program, directory, tally):
        self.program, self.directory, self.tally = program, directory, tally
        self.plain, self.tls, self.port, self.admin, self.other_admin = (free_port() for _ in range(5))
        help = subprocess.run([program, "run", "--help"], capture_output=True, text=True, check=True).stdout
        self.can_hand_over = "--handover" in help
        certificates(directory)
        self.configure()

    def configure(self, broken=False, handshakes=16):
        with open(f"{self.directory}/pontoon.toml", "w") as file:
            file.write(f'''[[route]]
name = "soak"
listen = ["127.0.0.1:{self.port}"]
{"handover = true" if self.can_hand_over else ""}
upstream = "localhost:{self.tls}"
tls.ca_files = ["{self.directory}/ca.crt"]
pool.warm = true
limits.handshakes = {handshakes}
{"limits.handshake = 1" if broken else ""}
[runtime]
drain_timeout = "20s"
''')

    async def start_redis(self):
        self.redis = await asyncio.create_subprocess_exec(
            "redis-server", "--port", str(self.plain), "--tls-port", str(self.tls), "--tls-cert-file", f"{self.directory}/server.crt",
            "--tls-key-file", f"{self.directory}/server.key", "--tls-ca-cert-file", f"{self.directory}/ca.crt", "--tls-auth-clients", "no",
            # What is acknowledged has been written to the file: a kill loses nothing that a client was told.
            "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir", self.directory, stdout=subprocess.DEVNULL)
        await eventually(lambda: answers(self.plain))

    async def start_pontoon(self):
        log = open(f"{self.directory}/pontoon.log", "ab")
        process = await asyncio.create_subprocess_exec(
            self.program, "run", "--config", f"{self.directory}/pontoon.toml",
            "--admin", f"127.0.0.1:{self.admin}", stderr=log)
        self.pontoon = process
        return process

    async def ready(self):
        await eventually(lambda: self.get("/readyz") is not None)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def metric(self, name):
        """Of all labels."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in (self.get("/metrics") or "").splitlines()
                   if re.match(rf"{name}(\{{| )", line))

    def memory(self):
        """KiB."""
        with open(f"/proc/{self.pontoon.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pontoon.pid}/fd"))

    # What happens, by name.

    async def good_reload(self):
        self.configure(handshakes=random.randint(8, 32))
        await self.reloaded("ok")

    async def bad_reload(self):
        self.configure(broken=True)
        await self.reloaded("failed")
        self.configure()

    async def reloaded(self, result):
        name = f'pontoon_config_reloads_total{{result="{result}"}}'
        count = lambda: float((re.search(rf"^{re.escape(name)} (.*)$", self.get("/metrics") or "", re.M) or ["", "0"])[1])
        before = count()
        self.pontoon.send_signal(signal.SIGHUP)
        await eventually(lambda: count() == before + 1)

    async def kill_connections(self):
        out = subprocess.run(["redis-cli", "-p", str(self.plain), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"], capture_output=True)
        assert out.returncode == 0, out

    async def pause(self):
        self.redis.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        self.redis.send_signal(signal.SIGCONT)

    async def upstream_restart(self):
        self.redis.send_signal(random.choice((signal.SIGTERM, signal.SIGKILL)))
        await self.redis.wait()
        await asyncio.sleep(random.uniform(0, 1))
        await self.start_redis()

    async def restart(self):
        await self.end(self.pontoon)
        await self.start_pontoon()
        await self.ready()

    async def replacement(self):
        """Side by side on one port."""
        before = self.pontoon
        self.admin, self.other_admin = self.other_admin, self.admin
        await self.start_pontoon()
        await self.ready()
        await self.end(before)

    async def end(self, process):
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 40)
        if code != 0:
            self.tally.fault(f"pontoon exited with {code}")


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as stream:
            stream.sendall(b"PING\r\n")
            return stream.recv(16).startswith(b"+PONG")
    except OSError:
        return False


async def eventually(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise Fault("it never happened")
        await asyncio.sleep(0.05)


async def happen(stage, name):
    """Lets it happen, and what follows of it."""
    stage.tally.event = name
    await getattr(stage, name.replace(" ", "_"))()
    await asyncio.sleep(2)
    stage.tally.event = "calm"
    await asyncio.sleep(1)


async def soak(options, directory):
    tally, stop = Tally(), asyncio.Event()
    stage = Stage(options.pontoon, directory, tally)
    await stage.start_redis()
    await stage.start_pontoon()
    await stage.ready()
    clients = [Client(number, stage.port, tally, stop) for number in range(options.clients)]
    running = [asyncio.create_task(client.run()) for client in clients]
    counts, samples = collections.Counter(), []
    began = time.monotonic()
    faults = ["good reload", "bad reload", "kill connections", "pause", "upstream restart"]
    # For three quarters one process has to last; then it is replaced, too.
    replaced = ["restart", "replacement"] if stage.can_hand_over else ["restart"]
    for end, names in ((0.75, faults), (1, faults + 2 * replaced)):
        while time.monotonic() - began < options.minutes * 60 * end:
            for name in random.sample(names, len(names)):
                counts[name] += 1
                await happen(stage, name)
                if end < 1:
                    samples.append((time.monotonic() - began, stage.memory(), stage.descriptors()))
                print(f"{time.monotonic() - began:6.0f} s  {name:17} {tally.replies:9,} replies  {stage.memory():6,} KiB  "
                      f"{stage.descriptors():4} descriptors", flush=True)
    elapsed = time.monotonic() - began
    stop.set()
    await asyncio.gather(*running)
    await eventually(lambda: stage.metric("pontoon_sessions_active") == 0)
    for client in clients:
        out = subprocess.run(["redis-cli", "-p", str(stage.plain), "GET", client.key], capture_output=True, text=True, check=True).stdout
        value = int(out.strip() or 0)
        if not client.known <= value <= client.known + client.doubtful:
            tally.fault(f"{client.key}: is {value}, was told {client.known}, with {client.doubtful} in doubt")
    await stage.end(stage.pontoon)
    stage.redis.terminate()
    await stage.redis.wait()
    report(tally, counts, samples, elapsed, clients)
    return not tally.faults


def report(tally, counts, samples, elapsed, clients):
    half = [sample for sample in samples if sample[0] > samples[-1][0] / 3]
    third = len(half) // 3 or 1
    first, last = (statistics.median(memory for _, memory, _ in part) for part in (half[:third], half[-third:]))
    print(f"\n{elapsed / 60:.1f} minutes, {len(clients)} clients, {tally.replies:,} replies, {tally.connections:,} connections.")
    print("What happened: " + ", ".join(f"{count} × {name}" for name, count in counts.items()) + ".")
    print(f"Sessions that ended by it: {', '.join(f'{name} {count:,}' for name, count in tally.by_event.items())}. Error replies: "
          f"{tally.told:,}; sessions that ended without one where the upstream was lost: {tally.cut:,}; connections refused while "
          f"pontoon was away: {tally.refused:,}; increments that may or may not have been executed, as clients know: "
          f"{tally.doubts:,}.")
    print(f"Memory of one process over {samples[-1][0] / 60:.1f} minutes, medians: {first:,.0f} KiB after a third, {last:,.0f} KiB at the end.")
    if last > 1.1 * first + 2048:
        tally.fault("memory grows")
    print(f"Wrong, lost or executed twice: {len(tally.faults)}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--pontoon", default=f"{ROOT}/target/release/pontoon")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"--seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        try:
            sys.exit(0 if asyncio.run(soak(options, directory)) else 1)
        except Exception:
            if os.path.exists(f"{directory}/pontoon.log"):
                with open(f"{directory}/pontoon.log") as log:
                    sys.stderr.writelines(log.readlines()[-30:])
            raise


if __name__ == "__main__":
    main()
