"""Uses redis-py-cluster, the cluster client from before redis-py had one. Argument: port. Prints the ports that it dialled."""

import json
import sys

import dialled
from rediscluster import RedisCluster

port = int(sys.argv[1])
p = "redis-py-cluster-"
keys = [f"{p}{n}" for n in range(2000)]
nodes = [{"host": "127.0.0.1", "port": port}]
r = RedisCluster(startup_nodes=nodes, decode_responses=True)
assert len(list(r.connection_pool.nodes.all_nodes())) >= 6

for n, key in enumerate(keys):
    assert r.set(key, n)
for n, key in enumerate(keys):
    assert r.get(key) == str(n)

with r.pipeline() as pipeline:
    for key in keys:
        pipeline.incr(key)
    assert pipeline.execute() == [n + 1 for n in range(2000)]

tagged = {f"{{{p}tag}}{n}": str(n) for n in range(10)}
assert r.mset(tagged) and r.mget(list(tagged)) == list(tagged.values())
assert r.delete(*tagged) == 10
assert r.eval("return redis.call('GET', KEYS[1])", 1, keys[0]) == "1"

subscriber = r.pubsub()
subscriber.subscribe(f"{p}news")
assert subscriber.get_message(timeout=10)["type"] == "subscribe"
r.publish(f"{p}news", "hello")
assert subscriber.get_message(timeout=10)["data"] == "hello"
subscriber.close()

reader = RedisCluster(startup_nodes=nodes, decode_responses=True, read_from_replicas=True)
for n, key in enumerate(keys):
    # Reads alternate between the replica and the primary.
    assert reader.get(key) in (str(n), str(n + 1))
print(json.dumps(sorted(dialled.ports)))
