"""Uses Python clients as applications do, with their default settings.

Arguments: a library, a scenario, a port, and `cluster` for a cluster. The last line that it prints is "ok", the library and its version.

`work`: everything that applications do. `plain`: only what needs no dedicated connection. `connect`: a hundred clients, one after another.
`stay`: one client, which prints "down" and "up" when its commands begin to fail and to succeed, until standard input is closed.
`leftover`: one client with a password that the server does not have.
"""

import asyncio
import functools
import importlib.util
import os
import random
import subprocess
import sys
import threading
import time

HOST = "127.0.0.1"


class RedisPy:
    """redis-py, or a library with the same names. Uses the cluster client for a cluster."""

    def __init__(self, port, cluster, module="redis"):
        self.redis, self.port, self.cluster = importlib.import_module(module), port, cluster
        self.version = self.redis.__version__

    def client(self, **options):
        make = self.redis.RedisCluster if self.cluster else self.redis.Redis
        return make(host=HOST, port=self.port, **options)

    def work(self):
        client = self.client()
        # Keys with a tag are in one slot of a cluster.
        name, tagged = f"{os.getpid()}:", f"{{{os.getpid()}}}:"

        assert client.set(name + "string", "text") and client.get(name + "string") == b"text"
        assert client.incrby(name + "number", 41) == 41 and client.incr(name + "number") == 42
        assert client.hset(name + "hash", mapping={"a": 1, "b": "\r\n"}) == 2
        assert client.hgetall(name + "hash") == {b"a": b"1", b"b": b"\r\n"}
        assert client.rpush(name + "list", "x", "y", "z") == 3
        assert client.lrange(name + "list", 0, -1) == [b"x", b"y", b"z"] and client.lpop(name + "list") == b"x"

        values = [os.urandom(random.randint(1024, 20 * 1024)) for _ in range(500)]
        with client.pipeline(transaction=False) as pipeline:
            for n, value in enumerate(values):
                pipeline.set(f"{name}pipeline-{n}", value).get(f"{name}pipeline-{n}")
            assert pipeline.execute() == [reply for value in values for reply in (True, value)]

        self.transactions(client, tagged)
        self.messages(client, name)
        self.blocking(client, name + "queue")

        assert client.eval("return redis.call('GET', KEYS[1])", 1, name + "string") == b"text"
        self.scripts(client, name)

        for start in range(0, 1000, 100):
            with client.pipeline(transaction=False) as pipeline:
                for n in range(start, start + 100):
                    pipeline.set(f"{name}scan-{n}", n)
                pipeline.execute()
        assert len(set(client.scan_iter(match=f"{name}scan-*", count=100))) == 1000
        client.close()

    def transactions(self, client, tagged):
        with self.transactional(client, tagged).pipeline(transaction=True) as pipeline:
            pipeline.set(tagged + "x", 1).incr(tagged + "x").get(tagged + "x")
            assert self.ok(pipeline.execute()) == [True, 2, b"2"]
            for writes in (False, True):
                pipeline.watch(tagged + "x")
                before = int(pipeline.get(tagged + "x"))
                if writes:
                    with self.client() as other:
                        other.set(tagged + "x", 10)
                pipeline.multi()
                pipeline.set(tagged + "x", before + 1)
                try:
                    assert self.ok(pipeline.execute()) == [True] and not writes
                except self.redis.WatchError:
                    assert writes
        assert client.get(tagged + "x") == b"10"

    def transactional(self, client, key):
        """Returns the client for transactions. Before redis-py 6 the cluster client had none, so this is the client of the key's node."""
        if self.cluster and not hasattr(self.redis.cluster, "TransactionStrategy"):
            connection_to = getattr(client, "get_valkey_connection", None) or client.get_redis_connection
            return self.redis.Redis(connection_pool=connection_to(client.get_node_from_key(key)).connection_pool)
        return client

    def ok(self, replies):
        """Normalizes replies. The first is that of SET, which a cluster's transaction returns in the server's form."""
        return [replies[0] in (True, b"OK"), *replies[1:]]

    def messages(self, client, name):
        def heard():
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                message = pubsub.get_message(timeout=1)
                if message:
                    return message["type"], message["channel"], message["data"]
            raise AssertionError("no message came")

        channel, pattern = name + "channel", name + "pattern-*"
        with client.pubsub() as pubsub:
            pubsub.subscribe(channel)
            assert heard() == ("subscribe", channel.encode(), 1)
            pubsub.psubscribe(pattern)
            assert heard() == ("psubscribe", pattern.encode(), 2)
            with self.client() as other:
                other.publish(channel, "to the channel")
                assert heard() == ("message", channel.encode(), b"to the channel")
                other.publish(name + "pattern-1", "to the pattern")
                assert heard() == ("pmessage", (name + "pattern-1").encode(), b"to the pattern")
            pubsub.unsubscribe(channel)
            assert heard() == ("unsubscribe", channel.encode(), 1)
            pubsub.punsubscribe(pattern)
            assert heard() == ("punsubscribe", pattern.encode(), 0)

    def blocking(self, client, queue):
        popped = []
        with self.client() as blocked:
            popper = threading.Thread(target=lambda: popped.append(blocked.blpop(queue, timeout=10)))
            popper.start()
            client.rpush(queue, "element")
            popper.join()
        assert [tuple(each) for each in popped] == [(queue.encode(), b"element")]
        # Before redis-py 4.2, asyncio needed another library.
        if importlib.util.find_spec(self.redis.__name__ + ".asyncio"):
            asyncio.run(self.impatient(queue))

    async def impatient(self, queue):
        module = importlib.import_module(self.redis.__name__ + ".asyncio")
        make = module.RedisCluster if self.cluster else module.Redis
        async with make(host=HOST, port=self.port) as impatient:
            await impatient.set(queue + "-after", "before")
            try:
                await asyncio.wait_for(impatient.blpop(queue, timeout=0), 0.2)
                raise AssertionError("there was no element")
            except asyncio.TimeoutError:
                pass
            assert await impatient.get(queue + "-after") == b"before"

    def scripts(self, client, name):
        # The object sends EVALSHA, and loads the script if the server does not have it.
        twice = client.register_script("return ARGV[1] * 2")
        assert twice(keys=[name + "script"], args=[21]) == 42
        sha = client.script_load("return ARGV[1] .. '!'")
        assert client.evalsha(sha, 1, name + "script", "loaded") == b"loaded!"

    def plain(self):
        client = self.client()
        name, tagged = f"{os.getpid()}:", f"{{{os.getpid()}}}:"
        sha = client.script_load("return ARGV[1]")
        executor = self.transactional(client, tagged)
        for n in range(ROUNDS):
            value = b"%d" % n
            assert client.set(name + "string", value) and client.get(name + "string") == value
            client.hset(name + "hash", "field", value)
            client.lpush(name + "list", value)
            with client.pipeline(transaction=False) as pipeline:
                for i in range(10):
                    pipeline.set(f"{tagged}{i}", value)
                assert pipeline.execute() == [True] * 10
            assert client.evalsha(sha, 1, name + "script", value) == value
            with executor.pipeline(transaction=True) as pipeline:
                pipeline.set(tagged + "x", value).get(tagged + "x")
                assert self.ok(pipeline.execute()) == [True, value]
        client.close()

    def connect(self):
        for n in range(100):
            with self.client() as client:
                assert client.set(f"{os.getpid()}:connect", n) and client.get(f"{os.getpid()}:connect") == b"%d" % n

    def stay(self):
        stopped = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
        client, said = None, None
        n = 0
        while not stopped.wait(0.02):
            n += 1
            try:
                # A cluster client connects when it is created.
                client = client or self.client()
                client.set(f"{os.getpid()}:stay", n)
                assert client.get(f"{os.getpid()}:stay") == b"%d" % n
                now = "up"
            except self.redis.RedisError as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                now = "down"
            if now != said and (said or now == "up"):
                print(now, flush=True)
                said = now

    def leftover(self):
        with self.client(password="left over") as client:
            assert client.set(f"{os.getpid()}:leftover", "v") and client.get(f"{os.getpid()}:leftover") == b"v"


def double(n):
    return n * 2


class Celery:
    """A worker with its processes, and tasks whose results it stores."""

    def __init__(self, port, cluster):
        import celery

        self.port = port
        self.version = celery.__version__
        url = f"redis://{HOST}:{port}/0"
        self.app = celery.Celery("matrix", broker=url, backend=url)
        self.double = self.app.task(double, name="double")

    def work(self):
        worker = subprocess.Popen([sys.executable, "-B", __file__, "celery", "worker", str(self.port)])
        try:
            tasks = [self.double.delay(n) for n in range(20)]
            assert [task.get(timeout=60) for task in tasks] == [double(n) for n in range(20)]
            assert self.app.control.ping(timeout=10, limit=1), "the worker hears what is sent to all workers"
            self.app.control.shutdown()
            assert worker.wait(60) == 0, worker.returncode
        finally:
            worker.kill()
            worker.wait()

    def worker(self):
        self.app.worker_main(["--quiet", "worker", "--concurrency", "2", "--loglevel", "ERROR"])
        sys.exit()


class Rq:
    """A worker that runs each job in its own process."""

    def __init__(self, port, cluster):
        import redis
        import rq

        self.rq, self.version = rq, rq.VERSION
        self.connection = redis.Redis(host=HOST, port=port)

    def work(self):
        queue = self.rq.Queue(f"matrix-{os.getpid()}", connection=self.connection)
        jobs = [queue.enqueue("operator.mul", n, 2) for n in range(20)]
        self.rq.Worker([queue], connection=self.connection).work(burst=True, logging_level="WARNING")
        assert [job.return_value() for job in jobs] == [double(n) for n in range(20)]


class Dramatiq:
    """A worker with its threads, and messages whose results it stores."""

    def __init__(self, port, cluster):
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.results import Results
        from dramatiq.results.backends import RedisBackend

        self.dramatiq, self.version = dramatiq, dramatiq.__version__
        self.broker = RedisBroker(host=HOST, port=port, namespace=f"matrix-{os.getpid()}")
        dramatiq.set_broker(self.broker)
        self.broker.add_middleware(Results(backend=RedisBackend(host=HOST, port=port, namespace=f"results-{os.getpid()}")))

    def work(self):
        actor = self.dramatiq.actor(double, store_results=True)
        worker = self.dramatiq.Worker(self.broker, worker_threads=2)
        worker.start()
        try:
            messages = [actor.send(n) for n in range(20)]
            assert [message.get_result(block=True, timeout=30_000) for message in messages] == [double(n) for n in range(20)]
        finally:
            worker.stop()
        self.broker.close()


class ChannelsRedis:
    """Both layers of channels_redis: one stores messages in sorted sets and pops them, the other subscribes."""

    def __init__(self, port, cluster):
        import importlib.metadata

        self.hosts = [f"redis://{HOST}:{port}"]
        self.version = importlib.metadata.version("channels_redis")

    def work(self):
        from channels_redis.core import RedisChannelLayer
        from channels_redis.pubsub import RedisPubSubChannelLayer

        for layer in (RedisChannelLayer, RedisPubSubChannelLayer):
            asyncio.run(self.talk(layer(hosts=self.hosts, prefix=str(os.getpid()))))

    async def talk(self, layer):
        async def received(channel):
            return await asyncio.wait_for(layer.receive(channel), 10)

        one, other = [await layer.new_channel() for _ in range(2)]
        for channel in (one, other):
            await layer.group_add("group", channel)
        for n in range(20):
            await layer.send(one, {"type": "message", "n": n})
            assert (await received(one))["n"] == n
        waiting = asyncio.ensure_future(received(other))
        await asyncio.sleep(0)
        await layer.send(other, {"type": "message", "n": 20})
        assert (await waiting)["n"] == 20
        # Cancelled while the receive is in progress. The layer that subscribes then unsubscribes from the channel.
        for _ in range(3):
            try:
                await asyncio.wait_for(layer.receive(await layer.new_channel()), 0.1)
                raise AssertionError("there was no message")
            except asyncio.TimeoutError:
                pass
        await layer.group_send("group", {"type": "message", "n": 21})
        assert [(await received(channel))["n"] for channel in (one, other)] == [21, 21]
        await layer.group_discard("group", other)
        await layer.group_send("group", {"type": "message", "n": 22})
        assert (await received(one))["n"] == 22
        await layer.flush()
        if hasattr(layer, "close_pools"):
            await layer.close_pools()


ROUNDS = 2000
LIBRARIES = {
    "redis-py": RedisPy,
    "valkey-py": functools.partial(RedisPy, module="valkey"),
    "celery": Celery,
    "channels_redis": ChannelsRedis,
    "rq": Rq,
    "dramatiq": Dramatiq,
}

if __name__ == "__main__":
    library, scenario, port = sys.argv[1:4]
    program = LIBRARIES[library](int(port), sys.argv[4:] == ["cluster"])
    getattr(program, scenario)()
    print("ok", library, program.version)
