#!/usr/bin/env python3
"""What TLS costs through pontoon and through its peers. Python 3 and redis-benchmark; nothing else.

    cargo build --release && python3 tests/bench/run.py [--rounds N] [--seconds S]

Starts a redis-server (plaintext and TLS) and, where installed, stunnel, HAProxy and nginx with its stream module, each
with verification on, all on loopback. Every round visits every target, in a rotating order, so that slow drift of a
noisy machine cancels; figures are medians over rounds, ratios are taken within a round. The CPU of a proxy is that of its
process tree, per request that redis counted: the fairest figure on a shared machine.
"""
import argparse, os, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SCENARIOS = {  # name: clients, pipeline, keep-alive
    "GET, 50 clients": (50, 1, 1),
    "GET, 50 clients, pipelines of 16": (50, 16, 1),
    "GET, 1,000 clients": (1000, 1, 1),
    "connection per GET": (50, 1, 0),
}
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
    print(f"{name} did not come up; left out", file=sys.stderr)
    return False


def certificates(d):
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, stderr=subprocess.DEVNULL, cwd=d)
    with open(f"{d}/san", "w") as f:
        f.write("subjectAltName=DNS:localhost\n")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server.crt")


def targets(d, plain, tls):
    """name: (port, pid of the proxy, extra redis-benchmark flags)"""
    found = {"plaintext, direct": (plain, None, []),
             "TLS, direct": (tls, None, ["--tls", "--cacert", f"{d}/ca.crt", "--sni", "localhost"])}
    port = free_port()
    found["pontoon"] = (port, start(f"{ROOT}/target/release/pontoon", "run", "--upstream", f"localhost:{tls}", "--listen",
                                    f"127.0.0.1:{port}", "--tls-ca-file", f"{d}/ca.crt", "--admin", "off", "--log-level", "error"), [])
    def conf(name, text):
        with open(f"{d}/{name}", "w") as f:
            f.write(text)
        return f"{d}/{name}"
    if shutil.which("stunnel"):
        port = free_port()
        found["stunnel"] = (port, start("stunnel", conf("stunnel", f"foreground=yes\npid=\ndebug=err\nsocket=l:TCP_NODELAY=1\nsocket=r:TCP_NODELAY=1\n[r]\nclient=yes\naccept=127.0.0.1:{port}\n"
                            f"connect=127.0.0.1:{tls}\nsni=localhost\ncheckHost=localhost\nverifyChain=yes\nCAfile={d}/ca.crt\n")), [])
    if shutil.which("haproxy"):
        port = free_port()
        found["HAProxy"] = (port, start("haproxy", "-f", conf("haproxy", f"global\n maxconn 8000\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
                            f"listen r\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{tls} ssl verify required ca-file {d}/ca.crt sni str(localhost) verifyhost localhost\n")), [])
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if shutil.which("nginx") and os.path.exists(module):
        port = free_port()
        found["nginx"] = (port, start("nginx", "-p", d, "-c", conf("nginx", f"load_module {module};\nuser root;\ndaemon off;\npid {d}/nginx.pid;\nerror_log stderr error;\nworker_processes 2;\nevents {{ worker_connections 12000; }}\n"
                          f"stream {{ server {{ listen 127.0.0.1:{port} reuseport; proxy_pass 127.0.0.1:{tls}; proxy_timeout 1h; proxy_ssl on; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n"
                          f"proxy_ssl_trusted_certificate {d}/ca.crt; proxy_ssl_name localhost; proxy_ssl_server_name on; }} }}\n")), [])
    return {name: target for name, target in found.items() if comes_up(name, target[0])}


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
    """Seconds of CPU that a process tree has used, by its clocks."""
    return sum(time.clock_gettime((~p << 3) | 2) for p in tree(pid)) if pid else 0.0


def calls(plain):
    out = subprocess.run(["redis-cli", "-p", str(plain), "INFO", "commandstats"], capture_output=True, text=True, check=True).stdout
    line = next((l for l in out.splitlines() if l.startswith("cmdstat_get:")), "calls=0")
    return int(line.split("calls=")[1].split(",")[0])


def measure(plain, target, scenario, seconds):
    port, pid, flags = target
    clients, pipeline, keepalive = scenario
    load = subprocess.Popen(["redis-benchmark", "-p", str(port), "-t", "get", "-c", str(clients), "-P", str(pipeline), "-k", str(keepalive), "-n", "1000000000", "-q", *flags],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        before, give_up = calls(plain), time.monotonic() + 30
        while calls(plain) < before + 2 * clients and time.monotonic() < give_up:
            time.sleep(0.1)
        time.sleep(0.3)
        n, c, t = calls(plain), cpu(pid), time.monotonic()
        time.sleep(seconds)
        n, c, t = calls(plain) - n, cpu(pid) - c, time.monotonic() - t
    finally:
        load.kill()
        load.wait()
    return n / t, c / max(n, 1) * 1e6


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1.5, help="per target, scenario and round")
    a = p.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not os.path.exists(f"{ROOT}/target/release/pontoon"):
        sys.exit("build it first: cargo build --release")
    with tempfile.TemporaryDirectory() as d:
        try:
            certificates(d)
            plain, tls = free_port(), free_port()
            start("redis-server", "--port", str(plain), "--tls-port", str(tls), "--tls-cert-file", f"{d}/server.crt", "--tls-key-file", f"{d}/server.key",
                  "--tls-ca-cert-file", f"{d}/ca.crt", "--tls-auth-clients", "no", "--save", "", "--appendonly", "no", "--maxclients", "12000", "--dir", d)
            comes_up("redis-server", plain) or sys.exit(1)
            subprocess.run(["redis-cli", "-p", str(plain), "SET", "key:__rand_int__", "x" * 64], check=True, stdout=subprocess.DEVNULL)
            found = targets(d, plain, tls)
            names = list(found)
            for title, scenario in SCENARIOS.items():
                rounds = []
                for r in range(a.rounds):
                    order = names[r % len(names):] + names[:r % len(names)]
                    rounds.append({name: measure(plain, found[name], scenario, a.seconds) for name in order})
                print(f"\n**{title}**\n\n| | requests/s | CPU µs/request | CPU, pontoon's = 1 |\n| --- | ---: | ---: | ---: |")
                for name in names:
                    rate = statistics.median(x[name][0] for x in rounds)
                    row = [f"{rate:,.0f}", "", ""]
                    if found[name][1]:
                        row[1] = f"{statistics.median(x[name][1] for x in rounds):.2f}"
                        row[2] = f"{statistics.median(x[name][1] / x['pontoon'][1] for x in rounds):.2f}"
                    print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


if __name__ == "__main__":
    main()
