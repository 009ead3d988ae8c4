#!/usr/bin/env python3
"""Measures how many elements a client takes after its end: in 100 tries of "BLPOP, close, and a push some milliseconds later", the number of
elements that are no longer in any list. Needs only Python 3.

    cargo build --release && python3 tests/bench/lost.py [--tries N] [--gaps MS,...] [--round-trips MS,...] [--end close|reset]
    python3 tests/bench/lost.py --server HOST:PORT NAME=HOST:PORT ...

The first form starts a redis-server with TLS and, behind a link with each round-trip time, pontoon in its modes and stunnel, where installed.
The modes are "dedicated" (a new connection for each client), "reused" (a connection that an earlier client has left) and "shared" (one
connection for all). "direct" is a plaintext client behind the same link. A client's end takes half a round trip to reach the server, which
hands out elements that are pushed before: "direct" loses these elements, too.

The second form measures running bridges: elements are pushed and counted at the server, in plaintext.
"""
import argparse, asyncio, multiprocessing, os, shutil, signal, socket, sys, tempfile, time

sys.path.insert(0, os.path.dirname(__file__))
from run import ROOT, certificates, comes_up, eventually, free_port, processes, server, start

MODES = {"pontoon, dedicated": ["--sharing", "dedicated", "--pool-reuse", "false"],
         "pontoon, reused": ["--sharing", "dedicated", "--pool-reuse", "true"],
         "pontoon, shared": ["--sharing", "shared"]}


class Server:
    """A connection directly to the server."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        self.socket.sendall(command(*words))
        line = self.file.readline()
        if line[:1] == b"$":
            return self.file.read(int(line[1:]) + 2)[:-2]
        if line[:1] == b"-":
            sys.exit(line.decode())
        return line[1:-2]

    def blocked(self):
        info = self.ask("INFO", "clients").decode()
        return int(info.split("blocked_clients:")[1].split()[0])


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


def lost(server, address, tries, gap, end):
    """Returns the number of lost elements among those that were pushed `gap` seconds after their client's end."""
    before = server.blocked()
    keys = [f"lost:{os.getpid()}:{n}" for n in range(tries)]
    clients = [socket.create_connection(address, 30) for _ in keys]
    for client, key in zip(clients, keys):
        client.sendall(command("BLPOP", key, "0"))
    eventually("all clients are blocked", lambda: server.blocked() == before + tries)
    steps = [(n * 0.001, 0, n) for n in range(tries)] + [(n * 0.001 + gap, 1, n) for n in range(tries)]
    began = time.monotonic()
    for due, step, n in sorted(steps):
        time.sleep(max(0, began + due - time.monotonic()))
        if step == 1:
            server.ask("RPUSH", keys[n], "job")
            continue
        if end == "reset":
            # struct linger: on, 0 seconds.
            clients[n].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients[n].close()
    eventually("no client is blocked", lambda: server.blocked() <= before)
    kept = sum(int(server.ask("LLEN", key)) for key in keys)
    server.ask("DEL", *keys)
    return tries - kept


async def carry(near_reader, near_writer, port, delay):
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def read(reader, queue):
        while True:
            try:
                read = await reader.read(1 << 16)
            except OSError:
                read = None
            await queue.put((time.monotonic() + delay, read))
            if not read:
                return

    async def write(writer, queue):
        while True:
            due, read = await queue.get()
            await asyncio.sleep(due - time.monotonic())
            if read is None:
                return writer.transport.abort()
            try:
                if not read:
                    return writer.write_eof()
                writer.write(read)
                await writer.drain()
            except OSError:
                return

    there, back = asyncio.Queue(64), asyncio.Queue(64)
    await asyncio.gather(read(near_reader, there), read(far_reader, back), write(far_writer, there), write(near_writer, back))
    near_writer.close()
    far_writer.close()


def link(listener, port, delay):
    async def serve():
        # The event loop keeps only weak references to tasks.
        carrying = set()

        def accept(*near):
            task = asyncio.ensure_future(carry(*near, port, delay))
            carrying.add(task)
            task.add_done_callback(carrying.discard)

        async with await asyncio.start_server(accept, sock=listener, backlog=1024) as server:
            await server.serve_forever()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())


def linked(port, round_trip):
    """Starts a link to a port, and returns the link's port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    multiprocessing.get_context("fork").Process(target=link, args=(listener, port, round_trip / 2), daemon=True).start()
    with listener:
        return listener.getsockname()[1]


def bridges(program, directory, tls):
    """Starts bridges to a port. Returns their ports by name."""
    found = {}
    for name, args in MODES.items():
        found[name] = free_port()
        start(program, "run", "--upstream", f"localhost:{tls}", "--listen", f"127.0.0.1:{found[name]}", "--tls-ca-file",
              f"{directory}/ca.crt", *args, "--admin", "off", "--log-level", "error", "--handshakes", "100", "--connect-timeout", "30s")
    stunnel = shutil.which("stunnel4") or shutil.which("stunnel")
    if stunnel:
        found["stunnel"] = free_port()
        with open(f"{directory}/{tls}.conf", "w") as file:
            file.write(f"foreground=yes\npid=\ndebug=err\nsocket=l:TCP_NODELAY=1\nsocket=r:TCP_NODELAY=1\n[r]\nclient=yes\n"
                       f"accept=127.0.0.1:{found['stunnel']}\nconnect=127.0.0.1:{tls}\nsni=localhost\ncheckHost=localhost\n"
                       f"verifyChain=yes\nCAfile={directory}/ca.crt\n")
        start(stunnel, f"{directory}/{tls}.conf")
    return {name: port for name, port in found.items() if comes_up(name, port)}


def measure(title, server, targets, arguments):
    print(f"\n{title}: lost of {arguments.tries}, by milliseconds between {arguments.end} and push")
    print(f"{'':24}" + "".join(f"{gap:>8}" for gap in arguments.gaps))
    for name, address in targets.items():
        cells = (lost(server, address, arguments.tries, gap / 1000, arguments.end) for gap in arguments.gaps)
        print(f"{name:24}" + "".join(f"{cell:>8}" for cell in cells), flush=True)


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def numbers(text):
    return [float(n) if "." in n else int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--gaps", type=numbers, default=[0, 2, 20, 60, 100, 200])
    parser.add_argument("--round-trips", type=numbers, default=[0, 20, 150])
    parser.add_argument("--end", choices=["close", "reset"], default="close")
    parser.add_argument("--program", default=f"{ROOT}/target/release/pontoon")
    parser.add_argument("--server", type=address)
    parser.add_argument("targets", nargs="*", metavar="NAME=HOST:PORT")
    arguments = parser.parse_args()
    if arguments.server:
        targets = {name: address(text) for name, text in (target.split("=", 1) for target in arguments.targets)}
        return measure("As they are", Server(*arguments.server), {"direct": arguments.server, **targets}, arguments)
    with tempfile.TemporaryDirectory() as directory:
        certificates(directory)
        plain, tls = server(directory)
        try:
            for round_trip in arguments.round_trips:
                ports = {"direct": linked(plain, round_trip / 1000), **bridges(arguments.program, directory, linked(tls, round_trip / 1000))}
                targets = {name: ("127.0.0.1", port) for name, port in ports.items()}
                measure(f"Round trip {round_trip} ms", Server("127.0.0.1", plain), targets, arguments)
        finally:
            for process in processes:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
