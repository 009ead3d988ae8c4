"""Captures replies about a Redis cluster: starts a TLS-only cluster on loopback, asks its nodes, and writes the raw replies.

    python3 tests/data/cluster/capture.py tests/data/cluster/redis-7.0

Needs redis-server and openssl. Starts three primaries and two replicas, each in its own directory under /tmp.
"""
import contextlib, pathlib, shutil, socket, ssl, subprocess, sys, tempfile, time

target = pathlib.Path(sys.argv[1])
work = pathlib.Path(tempfile.mkdtemp())
COMMANDS = {"slots": "CLUSTER SLOTS", "shards": "CLUSTER SHARDS", "nodes": "CLUSTER NODES",
            "replicas": "CLUSTER REPLICAS {0}"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        return port if port < 55000 else free_port()


def openssl(*words):
    subprocess.run(["openssl", *words], cwd=work, check=True, capture_output=True)


class Connection:
    def __init__(self, port, protocol=2):
        context = ssl.create_default_context(cafile=work / "cert.pem")
        context.check_hostname = False
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
        self.file = self.socket.makefile("rb")
        if protocol == 3:
            self.ask("HELLO 3")

    def ask(self, command):
        self.socket.sendall(command.encode() + b"\r\n")
        return self.frame()

    def frame(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in b"$!=" and rest != b"-1":
            return line + self.file.read(int(rest) + 2)
        if kind in b"*%~>" and rest != b"-1":
            count = int(rest) * (2 if kind == b"%" else 1)
            return line + b"".join(self.frame() for _ in range(count))
        return line


def until(what, condition):
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            if condition():
                return
        time.sleep(0.1)
    sys.exit(f"never: {what}")


def write(name, reply):
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(reply)


openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
        "-out", "cert.pem", "-subj", "/CN=localhost", "-days", "1")
ports, servers = [free_port() for _ in range(5)], []
for number, port in enumerate(ports, 1):
    home = work / str(number)
    home.mkdir()
    servers.append(subprocess.Popen(
        ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-cert-file", work / "cert.pem", "--tls-key-file",
         work / "key.pem", "--tls-ca-cert-file", work / "cert.pem", "--tls-auth-clients", "no", "--tls-cluster", "yes",
         "--tls-replication", "yes", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--bind", "127.0.0.1",
         "--cluster-announce-hostname", f"node-{number}.example", "--dir", home, "--save", "", "--daemonize", "no"],
        stdout=subprocess.DEVNULL))
try:
    for port in ports:
        until("a server", lambda: Connection(port).ask("PING") == b"+PONG\r\n")
    nodes = [Connection(port) for port in ports]
    ids = [node.ask("CLUSTER MYID").split(b"\r\n")[1].decode() for node in nodes]
    write("alone/nodes", nodes[3].ask("CLUSTER NODES"))
    for node, (first, last) in zip(nodes, [(0, 5460), (5461, 10922), (10923, 16383)]):
        node.ask(f"CLUSTER ADDSLOTSRANGE {first} {last}")
    for port in ports[1:]:
        nodes[0].ask(f"CLUSTER MEET 127.0.0.1 {port}")
    write("handshake/nodes", nodes[0].ask("CLUSTER NODES"))
    until("five nodes", lambda: all(node.ask("CLUSTER NODES").count(b"connected") >= 5 for node in nodes))
    for replica, primary in [(3, 0), (4, 1)]:
        until("a known primary", lambda: nodes[replica].ask(f"CLUSTER REPLICATE {ids[primary]}") == b"+OK\r\n")
    until("agreement", lambda: all(b"cluster_state:ok" in n.ask("CLUSTER INFO") and n.ask("CLUSTER NODES").count(b"slave") == 2
                                   and n.ask("CLUSTER NODES").count(b".example") == 5 for n in nodes))
    nodes[0].ask("SET {a}x 1")
    until("replicas in SLOTS", lambda: all(n.ask("CLUSTER SLOTS").count(b"node-") >= 5 for n in nodes))
    for endpoint in ["ip", "hostname", "unknown-endpoint"]:
        for node in nodes:
            node.ask(f"CONFIG SET cluster-preferred-endpoint-type {endpoint}")
        for protocol in [2, 3]:
            asked = Connection(ports[0], protocol)
            for name, command in COMMANDS.items():
                write(f"{endpoint}.resp{protocol}/{name}", asked.ask(command.format(ids[0])))
            # The slot of `foo` is 12182, the third primary's.
            write(f"{endpoint}.resp{protocol}/moved", asked.ask("GET foo"))
    for node in nodes:
        node.ask("CONFIG SET cluster-preferred-endpoint-type hostname")
    # A node without a host name is shown as `?` if names are preferred.
    nodes[2].ask("CONFIG SET cluster-announce-hostname ''")
    until("a name gone", lambda: all(n.ask("CLUSTER NODES").count(b".example") == 4 for n in nodes))
    for protocol in [2, 3]:
        asked = Connection(ports[0], protocol)
        for name, command in COMMANDS.items():
            write(f"nameless.resp{protocol}/{name}", asked.ask(command.format(ids[0])))
        write(f"nameless.resp{protocol}/moved", asked.ask("GET foo"))
    for node in nodes:
        node.ask("CONFIG SET cluster-preferred-endpoint-type ip")
    # Slot 93 migrates from the first primary, and slot 6000 to it.
    nodes[0].ask(f"CLUSTER SETSLOT 93 MIGRATING {ids[1]}")
    nodes[0].ask(f"CLUSTER SETSLOT 6000 IMPORTING {ids[1]}")
    # A slot without a node: the cluster is down until it has one.
    nodes[0].ask("CLUSTER DELSLOTS 94")
    key = next(f"k{n}" for n in range(10**6) if nodes[0].ask(f"CLUSTER KEYSLOT k{n}") == b":93\r\n")
    for protocol in [2, 3]:
        asked = Connection(ports[0], protocol)
        write(f"migrating.resp{protocol}/nodes", asked.ask("CLUSTER NODES"))
        write(f"migrating.resp{protocol}/slots", asked.ask("CLUSTER SLOTS"))
    nodes[0].ask("CLUSTER ADDSLOTS 94")
    until("ok", lambda: b"cluster_state:ok" in nodes[0].ask("CLUSTER INFO"))
    write("migrating.resp2/ask", nodes[0].ask(f"GET {key}"))
    for gone in [2, 3]:
        servers[gone].kill()
    until("two failures", lambda: nodes[0].ask("CLUSTER NODES").count(b",fail ") == 2)
    for protocol in [2, 3]:
        asked = Connection(ports[0], protocol)
        for name, command in COMMANDS.items():
            write(f"failed.resp{protocol}/{name}", asked.ask(command.format(ids[0])))
finally:
    for server in servers:
        server.kill()
        server.wait()
    shutil.rmtree(work)
