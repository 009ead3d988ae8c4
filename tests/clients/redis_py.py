"""Uses redis-py as applications do: pool, pipeline, transaction, Pub/Sub, blocking pop, script, in both protocols.

Argument: a port.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import redis

for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol)
    r.flushall()
    assert r.set("k", b"\r\n\x00") and r.get("k") == b"\r\n\x00"
    with r.pipeline(transaction=True) as p:
        p.incr("n").incr("n").get("n")
        assert p.execute() == [1, 2, b"2"]
    with r.pipeline() as p:
        p.watch("k")
        r.set("k", "other")
        p.multi()
        p.set("k", "own")
        try:
            p.execute()
            raise AssertionError("a watched key was written by another client")
        except redis.WatchError:
            pass
    r.hset("h", mapping={"a": 1, "b": 2})
    assert r.hgetall("h") == {b"a": b"1", b"b": b"2"}
    with r.pipeline(transaction=False) as p:
        for i in range(500):
            p.set(f"p{i}", i).get(f"p{i}")
        assert p.execute() == [x for i in range(500) for x in (True, b"%d" % i)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda i: r.get(f"p{i}"), range(500))) == [b"%d" % i for i in range(500)]
    r.delete(*(f"p{i}" for i in range(500)))
    s = r.pubsub()
    s.subscribe("c")
    assert s.get_message(timeout=5)["type"] == "subscribe"
    r.publish("c", "m")
    assert s.get_message(timeout=5)["data"] == b"m"
    s.close()
    t = threading.Timer(0.2, lambda: redis.Redis(port=int(sys.argv[1])).rpush("q", "job"))
    t.start()
    assert list(r.blpop("q", timeout=10)) == [b"q", b"job"]
    t.join()
    assert r.register_script("return ARGV[1]")(args=["x"]) == b"x"
    assert sum(1 for _ in r.scan_iter()) == 3
    with r.lock("lock", timeout=5):
        pass
    r.close()
print("done")
