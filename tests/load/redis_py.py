import os
import sys
import time

import redis

from load import run

host, port = sys.argv[1], int(sys.argv[2])
channel = os.environ.get("LOAD_NAME", "redis-py")
options = {"password": os.environ.get("LOAD_PASSWORD")}
if "LOAD_CA_FILE" in os.environ:
    options |= {"ssl": True, "ssl_ca_certs": os.environ["LOAD_CA_FILE"]}
client = redis.Redis(host, port, **options)
subscriber = client.pubsub()


def commands(key):
    value = b"%d" % client.incr(key)
    client.set(channel + ":value", value)
    assert client.get(channel + ":value") == value


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
        subscriber.subscribe(channel)
    message, deadline = client.incr(key), time.monotonic() + 10
    sent = False
    while time.monotonic() < deadline:
        # The subscriber may not be connected yet at the first time.
        sent = sent or client.publish(channel, message) > 0
        got = subscriber.get_message(timeout=0.5 if sent else 0.02)
        if got and got["data"] == b"%d" % message:
            return
    raise redis.ConnectionError("a message was lost")


def short(key):
    with redis.Redis(host, port, single_connection_client=True, **options) as own:
        own.incr(key)


run("redis-py", [commands, pipeline, transaction, pubsub, short])
