import subprocess
import sys

from load import run

cli = ["redis-cli", "-h", sys.argv[1], "-p", sys.argv[2]]
session = None


class RedisError(Exception):
    pass


def once(*lines):
    done = subprocess.run(cli, input="\n".join(lines), capture_output=True, text=True, timeout=30)
    replies = done.stdout.split("\n")
    if done.returncode != 0 or len(replies) <= len(lines) or any("pontoon:" in reply for reply in replies):
        raise RedisError(done.stdout + done.stderr)
    return replies


def short(key):
    replies = once(f"INCR {key}", f"GET {key}")
    assert replies[0] == replies[1], replies


def multi(key):
    replies = once("MULTI", f"INCR {key}", "EXEC")
    if replies[2].startswith("ERR EXEC without MULTI"):
        raise RedisError("redis-cli reconnected in a transaction")
    assert replies[:2] == ["OK", "QUEUED"] and replies[2].isdigit(), replies


def long(key):
    """A long session, in which redis-cli itself reconnects."""
    global session
    if session is None:
        session = subprocess.Popen(
            cli, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
    try:
        session.stdin.write(f"INCR {key}\n")
        reply = session.stdout.readline()
    except BrokenPipeError:
        reply = ""
    if not reply.strip().isdigit():
        session.kill()
        session.wait()
        session = None
        raise RedisError(reply)


run("redis-cli", [short, multi, long])
if session:
    session.kill()
