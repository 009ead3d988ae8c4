"""The main loop of a test load, for any library: runs operations in turn until stdin ends.

Each line on stdin names the step that begins, and is confirmed between two operations. Every failure is printed with its step and operation.
At the end of stdin, the load prints how often each operation succeeded, and how often it may have been executed in addition. Each operation
increments its key exactly once, so that the stored number can be checked.

LOAD_NAME distinguishes loads of one library, LOAD_CA_FILE makes the load use TLS, LOAD_PASSWORD makes it authenticate, and LOAD_WITHOUT names
an operation to leave out.
"""

import json
import os
import queue
import sys
import threading
import time

steps = queue.Queue()


def listen():
    for line in sys.stdin:
        steps.put(line.strip())
    steps.put(None)


def say(**what):
    print(json.dumps(what), flush=True)


def run(load, operations):
    threading.Thread(target=listen, daemon=True).start()
    load = os.environ.get("LOAD_NAME", load)
    operations = [operation for operation in operations if operation.__name__ != os.environ.get("LOAD_WITHOUT")]
    tally = {operation.__name__: [0, 0] for operation in operations}
    step = steps.get()
    while step is not None:
        say(step=step)
        while steps.empty():
            clean = True
            for operation in operations:
                if not steps.empty():
                    clean = False
                    break
                name = operation.__name__
                try:
                    operation(f"{load}:{name}")
                    tally[name][0] += 1
                except Exception as error:
                    clean = False
                    tally[name][1] += 1
                    say(failed=name, step=step, error=f"{type(error).__name__}: {error}")
                    time.sleep(0.02)
            if clean:
                say(round=True)
            # Leave processor time to the other loads.
            time.sleep(0.005)
        step = steps.get()
    say(tally={f"{load}:{name}": counts for name, counts in tally.items()})
