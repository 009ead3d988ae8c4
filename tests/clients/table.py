"""Prints the table of clients for the documentation, in Markdown, from the results of the tests `matrix::`.

Argument: the file that PONTOON_TEST_RESULTS named.
"""

import json
import sys

MODES = "DPSC"
COLUMNS = ["Client", "Version", "Engine", "Modes", "Reused (P)", "Pinned (S)", "Moved to TLS", "Inventory", "Recovery"]


def row(client, version, engine, results):
    """The last result of a scenario in a mode counts."""

    def measured(name, scenario, modes=MODES):
        values = [results[mode, scenario]["measured"].get(name) for mode in modes if (mode, scenario) in results]
        return [value for value in values if value is not None]

    modes = {mode for mode, _ in results}
    worked = [mode for mode in MODES if mode in modes and not results[mode, "work"]["problems"]]
    failed = [f"not {mode}" for mode in MODES if mode in modes and mode not in worked]
    reused = [f"{value} of 100" for value in measured("reused", "connect", "P")]
    moved = measured("moved", "moved")
    shown = measured("inventory", "moved") or measured("inventory", "work")
    recovered = sorted({value.replace(" ", " → ") for value in measured("recovery", "recovery")})
    return [
        client,
        version,
        engine,
        " ".join(worked + failed),
        ", ".join(reused),
        ", ".join(map(str, measured("pinned", "plain", "S"))),
        "" if not moved else "yes" if all(moved) else "no",
        ", ".join(sorted({library for libraries in shown for library in libraries})),
        ", ".join(recovered),
    ]


def main(path):
    clients = {}
    with open(path, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            key = line["client"], line["version"], line["engine"]
            clients.setdefault(key, {})[line["mode"], line["scenario"]] = line
    rows = [row(*key, results) for key, results in sorted(clients.items())]
    for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows]:
        print("|", " | ".join(cell or "–" for cell in cells), "|")


if __name__ == "__main__":
    main(sys.argv[1])
