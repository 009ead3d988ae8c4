"""Records every TCP port that this process dials, with any library."""

import sys

ports = set()


def _note(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        ports.add(arguments[1][1])


sys.addaudithook(_note)
