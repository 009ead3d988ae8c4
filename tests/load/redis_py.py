import sys
import time

import redis

from load import run

host, port = sys.argv[1], int(sys.argv[2])
client = redis.Redis(host, port)
subscriber = client.pubsub()


def commands(key):
    value = b"%d" % client.incr(key)
    client.set("redis-py:value", value)
    assert client.get("redis-py:value") == value


def pipeline(key):
    with client.pipeline(transaction=False) as p:
        replies = p.incr(key).get(key).ping().execute()
    assert replies == [replies[0], b"%d" % replies[0], True], replies


def transaction(key):
    with client.pipeline(transaction=True) as p:
        replies = p.incr(key).incr(key + "-too").execute()
    assert replies[0] == replies[1], replies


def pubsub(key):
    if not subscriber.subscribed:
        subscriber.subscribe("redis-py")
    message, deadline = client.incr(key), time.monotonic() + 2
    sent = False
    while time.monotonic() < deadline:
        # The first time nobody listens yet.
        sent = sent or client.publish("redis-py", message) > 0
        got = subscriber.get_message(timeout=0.5 if sent else 0.02)
        if got and got["data"] == b"%d" % message:
            return
    raise redis.ConnectionError("a message was lost")


def short(key):
    with redis.Redis(host, port, single_connection_client=True) as own:
        own.incr(key)


run("redis-py", [commands, pipeline, transaction, pubsub, short])
