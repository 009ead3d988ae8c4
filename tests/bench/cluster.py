#!/usr/bin/env python3
"""Measures the cost of pontoon in front of a cluster: redis-benchmark --cluster in plaintext through it, compared with direct TLS.

    cargo build --release && python3 tests/bench/cluster.py [--rounds N] [--requests N]

Starts three primaries that accept only TLS, on loopback. Rounds are interleaved, ratios are taken within a round, and figures are medians
with their range. The CPU time is that of pontoon's process, per request of redis-benchmark.
"""
import argparse, os, re, signal, statistics, subprocess, tempfile, time

from run import ROOT, certificates, comes_up, cpu, free_port, processes, spread, start, table

LOADS = {"50 clients": ["-c", "50"], "pipelines of 16": ["-c", "50", "-P", "16"]}


def cluster(d):
    ports = [free_port() for _ in range(3)]
    for port in ports:
        os.mkdir(f"{d}/{port}")
        start("redis-server", "--port", "0", "--tls-port", str(port), "--dir", f"{d}/{port}", "--cluster-enabled", "yes", "--save", "",
              "--cluster-port", str(free_port()), "--tls-cluster", "yes", "--tls-cert-file", f"{d}/server.crt", "--tls-key-file",
              f"{d}/server.key", "--tls-ca-cert-file", f"{d}/ca.crt", "--tls-auth-clients", "no")
        assert comes_up("redis-server", port)
    cli = ["redis-cli", "--tls", "--cacert", f"{d}/ca.crt", "-p", str(ports[0])]
    nodes = [f"127.0.0.1:{port}" for port in ports]
    subprocess.run([*cli, "--cluster", "create", *nodes, "--cluster-yes"], check=True, stdout=subprocess.DEVNULL)
    while "cluster_state:ok" not in subprocess.run([*cli, "CLUSTER", "INFO"], capture_output=True, text=True).stdout:
        time.sleep(0.1)
    return ports[0]


def throughput(port, load, requests, *more):
    command = ["redis-benchmark", "--cluster", "-h", "127.0.0.1", "-p", str(port), "-t", "get", "-n", str(requests), "-r", "100000", *load, *more]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"throughput summary: ([\d.]+)", out)[0])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--requests", type=int, default=200_000)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as d:
        certificates(d)
        node, port = cluster(d), free_port()
        pontoon = start(f"{ROOT}/target/release/pontoon", "run", "--topology", "cluster", "--upstream", f"localhost:{node}", "--listen",
                        f"127.0.0.1:{port}", "--tls-ca-file", f"{d}/ca.crt", "--admin", "off", "--log-level", "error")
        assert comes_up("pontoon", port)
        rows = []
        for title, load in LOADS.items():
            direct, through, used = [], [], []
            for _ in range(options.rounds):
                direct.append(throughput(node, load, options.requests, "--tls", "--cacert", f"{d}/ca.crt", "--sni", "localhost"))
                before = cpu(pontoon)
                through.append(throughput(port, load, options.requests))
                used.append((cpu(pontoon) - before) / options.requests * 1e6)
            ratios = [a / b for a, b in zip(through, direct)]
            rows.append((title, [spread(direct), spread(through), spread(ratios), spread(used)]))
        table("GET over a cluster of three primaries", ["TLS, direct: req/s", "through pontoon: req/s", "ratio", "pontoon's CPU, µs/req"], rows)


if __name__ == "__main__":
    try:
        main()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait()
