"""Captures what sentinels reply and publish: starts a primary, two replicas and three sentinels on loopback, in plaintext, asks the first
sentinel, kills the primary, and writes the raw replies and messages.

    python3 tests/data/sentinel/capture.py tests/data/sentinel/redis-7.0

Needs redis-server. Each process has its own directory under /tmp. README.md lists the files.
"""
import contextlib, pathlib, re, shutil, socket, subprocess, sys, tempfile, threading, time

target = pathlib.Path(sys.argv[1])
COMMANDS = {
    "masters": "SENTINEL MASTERS",
    "master": "SENTINEL MASTER mymaster",
    "master-unknown": "SENTINEL MASTER unknown",
    "replicas": "SENTINEL REPLICAS mymaster",
    "sentinels": "SENTINEL SENTINELS mymaster",
    "get-master-addr-by-name": "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster",
    "get-master-addr-by-name-unknown": "SENTINEL GET-MASTER-ADDR-BY-NAME unknown",
    "info": "INFO",
    "info-sentinel": "INFO sentinel",
    "info-cache": "SENTINEL INFO-CACHE mymaster",
    "config-get": "CONFIG GET *",
    "sentinel-config-get": "SENTINEL CONFIG GET *",
    "role": "ROLE",
}
# What differs after a failover, and if everything has a name.
ADDRESSES = ["masters", "replicas", "sentinels", "get-master-addr-by-name", "info-sentinel"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Connection:
    def __init__(self, port, protocol=2):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        self.hello = self.ask("HELLO 3") if protocol == 3 else b""

    def ask(self, command):
        self.socket.sendall(command.encode() + b"\r\n")
        return self.frame()

    def frame(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in (b"$", b"!", b"=") and rest != b"-1":
            return line + self.file.read(int(rest) + 2)
        if kind in (b"*", b"%", b"~", b">") and rest != b"-1":
            count = int(rest) * (2 if kind == b"%" else 1)
            return line + b"".join(self.frame() for _ in range(count))
        return line


class Subscriber(threading.Thread):
    """Collects all messages of a sentinel until its process ends."""

    def __init__(self, port, protocol):
        super().__init__(daemon=True)
        self.connection = Connection(port, protocol)
        self.messages = self.connection.ask("PSUBSCRIBE *")
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while frame := self.connection.frame():
                self.messages += frame


def without_paths(reply):
    """Hides what INFO says of the machine, without a change of lengths."""
    return re.sub(rb"\b(os|executable|config_file):([^\r]*)", lambda m: m[1] + b":" + b"x" * len(m[2]), reply)


def until(what, condition):
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            if condition():
                return
        time.sleep(0.1)
    sys.exit(f"never: {what}")


class Group:
    def __init__(self, work, named):
        self.work, self.host, self.processes = work, "localhost" if named else "127.0.0.1", []
        self.servers = [free_port() for _ in range(3)]
        self.sentinels = [free_port() for _ in range(3)]

    def begin(self):
        named = self.host == "localhost"
        for port in self.servers:
            lines = ["save ''", "repl-diskless-sync-delay 0", f"replica-announce-ip {self.host}"]
            if port != self.servers[0]:
                lines.append(f"replicaof {self.host} {self.servers[0]}")
            self.start(port, lines)
        until("replicas", lambda: Connection(self.servers[0]).ask("INFO replication").count(b"state=online") == 2)
        for port in self.sentinels:
            names = ["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"] if named else []
            self.start(port, [*names, f"sentinel monitor mymaster {self.host} {self.servers[0]} 2",
                              f"sentinel announce-ip {self.host}",
                              "sentinel down-after-milliseconds mymaster 1000",
                              "sentinel failover-timeout mymaster 5000"], "--sentinel")
        until("agreement", lambda: all(self.agrees(port) for port in self.sentinels))

    def start(self, port, lines, *more):
        home = self.work / str(port)
        home.mkdir()
        (home / "redis.conf").write_text("\n".join([f"port {port}", "bind 127.0.0.1 -::1", f"dir {home}", *lines, ""]))
        self.run(port, *more)

    def run(self, port, *more):
        self.processes.append(subprocess.Popen(["redis-server", self.work / str(port) / "redis.conf", *more],
                                               stdout=subprocess.DEVNULL))
        until("a server", lambda: Connection(port).ask("PING") == b"+PONG\r\n")

    def agrees(self, port):
        sentinel = Connection(port)
        replicas, sentinels = sentinel.ask(COMMANDS["replicas"]), sentinel.ask(COMMANDS["sentinels"])
        # After a failover, Valkey 9.1 keeps the flag master_down of other sentinels.
        return (sentinels.count(b"\r\nflags\r\n") == 2 and b"s_down" not in replicas + sentinels
                and replicas.count(b"\r\nmaster-link-status\r\n$2\r\nok\r\n") == 2)

    def write(self, folder, names):
        folder.mkdir(parents=True, exist_ok=True)
        for protocol in (2, 3):
            asked = Connection(self.sentinels[0], protocol)
            for name in names:
                (folder / f"{name}.resp{protocol}").write_bytes(without_paths(asked.ask(COMMANDS[name])))
            if protocol == 3:
                (folder / "hello.resp3").write_bytes(asked.hello)

    def fail_over(self, folder):
        subscribers = {p: [Subscriber(port, p) for port in self.sentinels] for p in (2, 3)}
        self.processes[0].kill()
        self.processes[0].wait()
        said = lambda text: all(text in s.messages for all_ in subscribers.values() for s in all_)
        until("a new primary", lambda: said(b"+switch-master"))
        leads = [b"+elected-leader" in s.messages for s in subscribers[2]]
        until("the old primary is a replica that is down",
              lambda: b"s_down" in Connection(self.sentinels[0]).ask(COMMANDS["replicas"]))
        self.write(folder / "failed-over", ADDRESSES)
        self.run(self.servers[0])
        until("the old primary follows", lambda: all(self.agrees(port) for port in self.sentinels))
        Connection(self.sentinels[0]).ask("SENTINEL RESET mymaster")
        until("rediscovery", lambda: all(self.agrees(port) for port in self.sentinels))
        for protocol, all_ in subscribers.items():
            # The one that performs the failover publishes each step; the others publish the result.
            (folder / f"failover.resp{protocol}").write_bytes(all_[leads.index(True)].messages)
            (folder / f"failover-seen.resp{protocol}").write_bytes(all_[leads.index(False)].messages)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


for named in (False, True):
    work = pathlib.Path(tempfile.mkdtemp())
    folder = target / "named" if named else target
    group = Group(work, named)
    try:
        group.begin()
        group.write(folder, ADDRESSES if named else COMMANDS)
        group.fail_over(folder)
    finally:
        group.end()
        shutil.rmtree(work)
