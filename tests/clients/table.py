"""Prints docs/clients.md: the clients that the tests `matrix::` tried, and the results of each.

Argument: the file with results (TEST_RESULTS). The last result of a scenario counts.
"""

import json
import re
import sys

HEAD = """# Clients that are tested with pontoon

Each line is one version of a library, or of an application that is built on one, with its default settings. The tests `matrix::` ran it
through pontoon against a real server, and checked each reply: commands, pipelines, transactions, Pub/Sub, blocking commands, scripts and
SCAN. Applications did their own work instead: jobs, tasks or messages.

- **Modes** in which all of this worked: D, a connection dialled for each client (`pool.reuse = false`); P, the default, in which a
  connection serves one client after another; S, shared connections (`sharing = "shared"`); C, the default in front of a cluster.
- **Reused** (P): how many of 100 clients, one after another, got a connection that had served another client before.
- **Pinned** (S): how often the client got a dedicated connection in 2,000 rounds of commands, pipelines, scripts and transactions. A
  library that waits for the reply to MULTI before it sends the next command needs one for each transaction.
- **Moved**: the client began in plaintext, and pontoon moved it to TLS without an error that the client noticed.
- **Inventory**: what `/clients` shows for it. "unknown": the library does not send its name.
- **Recovery**: what the client noticed while its server, or the primary in a cluster, was killed and came back or was replaced. "One gap":
  commands failed for a while, and then succeeded again without help. A client that does not recover in a cluster does not recover without
  pontoon either.

"–": not measured. Applications were only tried in their own work.
"""
COLUMNS = ["Client", "Version", "Server", "Modes", "Reused", "Pinned", "Moved", "Inventory", "Recovery"]
MODES = "DPSC"
GAPS = {"up": "no gap", "up down up": "one gap"}


def row(client, version, engine, results):
    """Returns the table row of a client. `results` has the client's lines by mode and scenario."""

    def measured(name, scenario):
        """Returns a measurement's values by mode. Leaves out modes without a value."""
        found = {mode: results[mode, scenario]["measured"].get(name) for mode in MODES if (mode, scenario) in results}
        return {mode: value for mode, value in found.items() if value is not None}

    def count(name, scenario, mode):
        result = results.get((mode, scenario))
        if result is None:
            return ""
        # The client or its program gave up.
        failed = any(problem.startswith("did not end") for problem in result["problems"])
        return "failed" if failed else str(result["measured"].get(name, ""))

    tried = [mode for mode in MODES if any(of == mode for of, _ in results)]
    works = {mode: (mode, "work") in results and not results[mode, "work"]["problems"] for mode in tried}
    moved = measured("moved", "moved").values()
    libraries = [*measured("inventory", "moved").values()] or [*measured("inventory", "work").values()]
    recovered = {}
    for mode, said in measured("recovery", "recovery").items():
        words = GAPS.get(said, said.replace(" ", ", "))
        recovered.setdefault(words if said.endswith("up") else "does not come back", []).append(mode)
    return [
        client,
        version,
        engine,
        " ".join(mode if works[mode] else f"not {mode}" for mode in tried),
        count("reused", "connect", "P"),
        count("pinned", "plain", "S"),
        "" if not moved else "yes" if all(moved) else "no",
        ", ".join(sorted({library for each in libraries for library in each})),
        "; ".join(words if len(recovered) == 1 else f"{' '.join(modes)}: {words}" for words, modes in recovered.items()),
    ]


def order(key):
    """Sorts versions number by number."""
    client, version, engine = key
    return client.lower(), [int(number) for number in re.findall(r"\d+", version)], engine


def main(path):
    clients = {}
    with open(path, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            key = line["client"], line["version"], line["engine"]
            clients.setdefault(key, {})[line["mode"], line["scenario"]] = line
    print(HEAD)
    rows = [row(*key, clients[key]) for key in sorted(clients, key=order)]
    for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows]:
        print("|", " | ".join(cell or "–" for cell in cells), "|")


if __name__ == "__main__":
    main(sys.argv[1])
