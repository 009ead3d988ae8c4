#!/usr/bin/env python3
"""Measures what applications gain or lose: client libraries at their defaults, with their own TLS and through pontoon and other proxies.

    cargo build --release && python3 tests/bench/applications.py [--rounds N] [--seconds S] [--only LIBRARY,...] [--targets NAME;...]
                                                                 [--scenarios NAME,...] [--views as-is,pinned] [--delay MS,...]

The libraries are those that tests/run.sh installs. The servers and proxies are those of run.py, and pontoon also listens on Unix sockets. Every
round visits every target, in a rotating order. Ratios are taken within a round, to the library's own TLS. Figures are medians with their range.

There are two views. "as-is": all processes share all cores. "pinned": the application has core 0, everything else core 1, and a relay in
front of the server delays all bytes, once for each delay given. "--delay 0" pins without a relay.

Programs in applications/ take a scenario, the seconds to measure after a warm-up of a quarter of them, a port or the path of a socket, and
a CA for TLS or an empty word. They print a JSON line: requests, seconds, own CPU seconds, and latencies of a step in seconds.
"""
import argparse, json, os, subprocess, sys

from run import DIRECT, ROOT, comes_up, free_port, machine, redis, server, spread, start, table, targets, workplace

PROGRAMS = f"{ROOT}/tests/bench/applications"
LIBRARIES = {
    "redis-py 8": [f"{ROOT}/target/venv/bin/python", f"{PROGRAMS}/redis_py.py"],
    "redis-py 4": [f"{ROOT}/target/venv-4/bin/python", f"{PROGRAMS}/redis_py.py"],
    "ioredis": ["node", f"{PROGRAMS}/node.js", "ioredis"],
    "node-redis": ["node", f"{PROGRAMS}/node.js", "redis"],
    "phpredis": [f"{ROOT}/target/php/path/php", f"{PROGRAMS}/phpredis.php"],
    "go-redis": [f"{ROOT}/target/go/go_redis"],
}
SCENARIOS = {"single": "single requests", "pipeline": "pipelines of 50", "large": "64 KiB values", "connect": "a connection per request",
             "tasks": "50 threads or tasks"}
MISSING = {("phpredis", "tasks")}
LATENCIES = "p50", "p99", "p99.9"


def application(library, scenario, seconds, address, authority, core=None):
    """Runs an application, and returns what it printed."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    environment = {**os.environ, "NODE_PATH": f"{ROOT}/target/node/node_modules"}
    command = [*pinned, *LIBRARIES[library], scenario, str(seconds), str(address), authority]
    try:
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment, timeout=30 + 10 * seconds).stdout)
    except subprocess.SubprocessError as error:
        print(f"{library}, {scenario}, left out: {error}", file=sys.stderr)
        return None


def relayed(port, delay):
    """Starts a relay with a delay in milliseconds to a port, and returns the relay's port."""
    program = f"{ROOT}/target/bench/delay"
    os.makedirs(os.path.dirname(program), exist_ok=True)
    subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, f"{ROOT}/tests/bench/delay.rs"], check=True)
    relay = free_port()
    start(program, str(int(delay * 1000)), str(relay), str(port))
    comes_up("the relay", relay) or sys.exit(1)
    return relay


def addresses(d, plain, tls):
    """Starts the targets. Returns, by name, the port or the path, and the CA if the application itself uses TLS."""
    found = {name: (port, f"{d}/ca.crt" if name == DIRECT else "") for name, (port, _, _) in targets(d, plain, tls).items()}
    sockets = {"pontoon": "dedicated", "pontoon, shared": "shared"}
    return found | {f"{name}, Unix socket": (f"{d}/{sharing}.sock", "") for name, sharing in sockets.items() if name in found}


def measure(a, found, core):
    """Returns, by scenario and library, a list of rounds: the results by target."""
    results = {}
    for scenario in a.scenarios:
        for library in a.only:
            if (library, scenario) in MISSING:
                continue
            rounds = results[scenario, library] = []
            names = list(found)
            for n in range(a.rounds):
                order = names[n % len(names):] + names[:n % len(names)]
                rounds.append({name: application(library, scenario, a.seconds, *found[name], core) for name in order})
    return results


def cell(rounds, name, value, base=True):
    """The spread of a value of a target, divided by that of the library's own TLS unless told otherwise."""
    values = [value(r[name]) / (value(r[DIRECT]) if base else 1) for r in rounds if r[name] and r[DIRECT]]
    return spread(values) if values else "–"


def report(a, view, names, results):
    def rate(r):
        return r["requests"] / r["seconds"]

    def cost(r):
        return r["cpu"] / r["requests"] * 1e6

    for scenario in a.scenarios:
        columns = [library for library in a.only if (scenario, library) in results]
        for title, value, unit in (("throughput", rate, "/s"), ("the application's CPU time for each request", cost, " µs")):
            rows = [(name, [cell(results[scenario, library], name, value) for library in columns]) for name in names if name != DIRECT]
            own = [(DIRECT, [cell(results[scenario, library], DIRECT, value, False) + unit for library in columns])]
            table(f"{view}, {SCENARIOS[scenario]}: {title}, own TLS = 1", columns, rows + own)
        if scenario == "single":
            for key in LATENCIES:
                table(f"{view}, {SCENARIOS[scenario]}: latency at {key}, µs", columns, [
                    (name, [cell(results[scenario, library], name, lambda r: r["latencies"][key] * 1e6, False) for library in columns])
                    for name in names])


def words(known):
    def parse(text):
        picked = text.split(",")
        if unknown := set(picked) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return picked
    return parse


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1, help="seconds for each library, target, scenario and round")
    p.add_argument("--only", type=words(LIBRARIES), default=list(LIBRARIES), help="libraries, separated by commas")
    p.add_argument("--targets", type=lambda text: text.split(";"), help="targets besides the library's own TLS, separated by semicolons")
    p.add_argument("--scenarios", type=words(SCENARIOS), default=list(SCENARIOS))
    p.add_argument("--views", type=words(["as-is", "pinned"]), default=["as-is", "pinned"])
    p.add_argument("--delay", type=lambda text: [float(n) for n in text.split(",")], default=[0.25, 1], help="milliseconds in each direction")
    a = p.parse_args()
    cores = os.sched_getaffinity(0)
    views = [("as it is", None)] * ("as-is" in a.views) + [(f"pinned, {n} ms each way", n) for n in a.delay if "pinned" in a.views]
    for view, delay in views:
        # Servers and proxies inherit it.
        os.sched_setaffinity(0, cores if delay is None else {1})
        with workplace() as d:
            plain, tls = server(d)
            found = addresses(d, *((relayed(plain, delay), relayed(tls, delay)) if delay else (plain, tls)))
            found = {name: found[name] for name in found if name == DIRECT or not a.targets or name in a.targets}
            for key, size in (("small", 64), ("large", 1 << 16)):
                redis(plain, "SET", key, "x" * size)
            print(f"\n{view}: {machine(plain)}; {a.rounds} rounds of {a.seconds} s: median (least–most).")
            report(a, view, list(found), measure(a, found, None if delay is None else 0))


if __name__ == "__main__":
    main()
