"""Uses a cluster with redis-py as applications do. Arguments: port, protocol. Prints the ports that it dialled."""

import json
import sys

import dialled
from redis.cluster import LoadBalancingStrategy, RedisCluster
from redis.exceptions import WatchError

port, protocol = int(sys.argv[1]), int(sys.argv[2])
p = f"redis-py-{protocol}-"
keys = [f"{p}{n}" for n in range(2000)]
r = RedisCluster(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True)
assert len(r.get_primaries()) == 3 and len(r.get_replicas()) == 3, r.get_nodes()

for n, key in enumerate(keys):
    assert r.set(key, n)
for n, key in enumerate(keys):
    assert r.get(key) == str(n)

with r.pipeline() as pipeline:
    for key in keys:
        pipeline.incr(key)
    assert pipeline.execute() == [n + 1 for n in range(2000)]
assert r.mget_nonatomic(keys) == [str(n + 1) for n in range(2000)]

tagged = {f"{{{p}tag}}{n}": str(n) for n in range(10)}
assert r.mset(tagged) and r.mget(list(tagged)) == list(tagged.values())
assert r.delete(*tagged) == 10

with r.pipeline(transaction=True) as pipeline:
    pipeline.set(f"{{{p}tx}}a", 1)
    pipeline.incr(f"{{{p}tx}}a")
    pipeline.get(f"{{{p}tx}}a")
    assert pipeline.execute() == ["OK", 2, "2"]
with r.pipeline(transaction=True) as pipeline:
    pipeline.watch(f"{{{p}tx}}a")
    r.incr(f"{{{p}tx}}a")
    pipeline.multi()
    pipeline.incr(f"{{{p}tx}}a")
    try:
        pipeline.execute()
        raise AssertionError("what it watched had changed")
    except WatchError:
        pass
assert r.eval("return redis.call('GET', KEYS[1])", 1, f"{{{p}tx}}a") == "3"


def message(get, kind):
    for _ in range(100):
        got = get(timeout=0.1)
        if got is not None:
            assert got["type"] == kind, got
            return got
    raise AssertionError(f"no {kind} came")


subscriber = r.pubsub()
subscriber.subscribe(f"{p}news")
message(subscriber.get_message, "subscribe")
r.publish(f"{p}news", "hello")
assert message(subscriber.get_message, "message")["data"] == "hello"
subscriber.close()

# Redis 7.0 or later has these commands, and CLUSTER SHARDS.
has_sharded = "ssubscribe" in r.command()
if has_sharded:
    subscriber = r.pubsub()
    for n in range(8):
        subscriber.ssubscribe(f"{p}{n}")
    for n in range(8):
        message(subscriber.get_sharded_message, "ssubscribe")
    for n in range(8):
        assert r.spublish(f"{p}{n}", str(n)) == 1
    assert {message(subscriber.get_sharded_message, "smessage")["data"] for n in range(8)} == set("01234567")
    subscriber.close()


def hits():
    stats = r.info("stats", target_nodes=RedisCluster.REPLICAS)
    return sum(node["keyspace_hits"] for node in stats.values())


for node in r.get_primaries():
    assert r.execute_command("WAIT", 1, 10000, target_nodes=node) == 1
before = hits()
reader = RedisCluster(
    host="127.0.0.1", port=port, protocol=protocol, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN_REPLICAS
)
for n, key in enumerate(keys):
    assert reader.get(key) == str(n + 1).encode()
assert hits() - before >= 2000, "replicas were asked"
if has_sharded:
    shards = r.cluster_shards()
    assert len(shards) == 3, shards
print(json.dumps(sorted(dialled.ports)))
