"""Clients of the chaos run. Each checks every reply, and records which commands were executed, were not, or may have been."""
import asyncio, collections, random, sys, time

# Maximum time until a reply, in seconds.
PATIENCE = 30
# Events that must not end sessions, must not refuse clients, or must not leave the outcome of a command unknown.
SEAMLESS = {"good reload", "bad reload"}
CERTAIN = SEAMLESS | {"restart", "handover"}
# Codes of errors which mean that a command was not executed.
REFUSALS = {"LOADING", "READONLY", "MOVED", "CLUSTERDOWN", "MASTERDOWN", "UNBLOCKED", "EXECABORT"}


class Fault(Exception):
    """Something that must never happen."""


class Ended(Exception):
    """The connection ended, or the client closes it after an error."""


class Tally:
    def __init__(self):
        self.replies = self.connections = self.refused = self.errors = 0
        self.acknowledged = self.unknown = self.failed = 0  # increments
        self.faults = []
        self.event = "calm"
        self.ends = collections.Counter()  # by event

    def fault(self, kind, words):
        """`kind` is "wrong", "duplicated", "lost" or "unaccounted"."""
        self.faults.append(kind)
        print(f"FAULT {kind}, during {self.event}: {words}", file=sys.stderr, flush=True)


def nothing():
    pass


class Request:
    """A command with three possible outcomes: `executed` receives the reply, `failed` means not executed, `unknown` means possibly executed."""

    def __init__(self, words, executed, failed=nothing, unknown=nothing):
        self.words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.executed, self.failed, self.unknown = executed, failed, unknown


class Client:
    """A client that opens one connection after another, and runs a session over each."""

    def __init__(self, number, stage, seed):
        self.number, self.stage, self.tally = number, stage, stage.tally
        self.key = f"{{n:{number}}}"
        self.name = f"client-{number}"
        self.database = number % 4 if stage.databases else 0
        self.random = random.Random(f"{seed} {number}")
        self.port = stage.port
        self.recovered = None

    async def run(self):
        while not self.stage.stop.is_set():
            try:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            except OSError as error:
                self.tally.refused += 1
                # After a handover, the new pontoon has other ports for the cluster's nodes.
                if self.port == self.stage.port and self.tally.event in SEAMLESS | {"handover"}:
                    self.tally.fault("wrong", f"{self.name}: connection refused: {error}")
                self.port = self.stage.port
                await self.rest()
                continue
            self.tally.connections += 1
            try:
                await self.exchange(*self.greeting())
                await self.session()
            except Ended:
                await self.rest()
            except Fault as fault:
                self.tally.fault("wrong", f"{self.name}: {fault}")
            finally:
                self.writer.close()

    async def rest(self):
        await asyncio.sleep(self.random.uniform(0.02, 0.2))

    def greeting(self):
        if self.number % 3 == 0:
            yield Request(("HELLO", "3", "SETNAME", self.name), anything)
        else:
            yield Request(("CLIENT", "SETNAME", self.name), expects(b"OK"))
        if self.database:
            yield Request(("SELECT", self.database), expects(b"OK"))

    async def exchange(self, *requests):
        """Sends requests together, and reads all replies."""
        # No `drain` here: the server may stop reading until this client has read replies.
        self.writer.write(b"".join(command(request.words) for request in requests))
        at, left = 0, None
        try:
            async with asyncio.timeout(PATIENCE):
                while at < len(requests):
                    reply = await read(self.reader)
                    request, at = requests[at], at + 1
                    self.tally.replies += 1
                    if isinstance(reply, Exception):
                        left = self.error(request, str(reply)) or left
                    else:
                        request.executed(reply)
                        self.good()
        except TimeoutError:  # an OSError, too
            unknown(requests[at:])
            raise Fault(f"no reply to {requests[at].words[:1]} within {PATIENCE} s")
        except (OSError, EOFError):
            self.ended(requests[at:])
            raise Ended()
        except Fault:
            unknown(requests[at:])
            raise
        if left:
            goes_on = "may or may not" in left and self.stage.sharing == "shared"
            # pontoon's CLUSTERDOWN, for a redirect to a node that it does not know yet, leaves the connection open, as a node's own does.
            if " pontoon: " in left and not goes_on and not left.startswith("CLUSTERDOWN "):
                await self.closed()
            raise Ended()

    def good(self):
        if self.recovered is None:
            self.recovered = time.monotonic()

    def error(self, request, error):
        """Returns the error if the client closes its connection after it."""
        self.tally.errors += 1
        code = error.split(" ", 1)[0]
        if "may or may not have been executed" in error:
            if self.tally.event in CERTAIN:
                self.tally.fault("wrong", f"{self.name}: {error}")
            request.unknown()
            if self.stage.sharing == "shared":
                # The session goes on over another shared connection, or ends if it had a dedicated one. The commands that set it up may not
                # have been executed, so such a client starts again.
                return error if request.words[0] in (b"CLIENT", b"HELLO", b"SELECT") else None
        elif code in REFUSALS or error.startswith("ERR pontoon: "):
            request.failed()
        else:
            request.unknown()
            raise Fault(f"{request.words[:1]}: {error}")
        if code == "MOVED":
            self.port = int(error.rpartition(":")[2])
            if self.port in self.stage.hidden():
                raise Fault(f"the address of a server: {error}")
        else:
            self.port = self.stage.port
        return error

    async def closed(self):
        """Checks that pontoon closes the connection after its own error."""
        self.tally.ends[self.tally.event] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                rest = await self.reader.read()
        except TimeoutError:
            raise Fault("connection not closed after an error")
        except OSError:
            return
        if rest:
            raise Fault(f"more data after an error: {rest!r:.80}")

    def ended(self, unanswered):
        self.tally.ends[self.tally.event] += 1
        self.port = self.stage.port
        if self.tally.event in SEAMLESS:
            self.tally.fault("wrong", f"{self.name}: the session ended, with {len(unanswered)} unanswered")
        if self.tally.event in CERTAIN:
            # A drain waits for the replies to all requests that were sent upstream, so a request without a reply was not executed.
            for request in unanswered:
                request.failed()
        else:
            unknown(unanswered)


class Worker(Client):
    """A client that uses counters, echoes, values and transactions, and checks its name and its database."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.known = 0  # the counter's value by the replies
        self.doubtful = 0  # increments that may be executed in addition, now or later
        self.version = None  # of the value
        self.versions = set()  # versions that may have been written, or will be
        self.unique = 0

    async def session(self):
        for _ in range(self.random.randint(10, 500)):
            if self.stage.stop.is_set():
                return
            await self.exchange(*(r for _ in range(self.random.choice((1, 1, 1, 2, 16))) for r in self.requests()))
            await asyncio.sleep(self.random.uniform(0, 0.02))

    def requests(self):
        kind = self.random.random()
        self.unique += 1
        if kind < 0.5:
            yield self.increments(("INCR", self.key), 1, lambda reply: [reply])
        elif kind < 0.6:
            yield Request(["MULTI"], expects(b"OK"))
            for _ in range(2):
                yield Request(("INCR", self.key), expects(b"QUEUED"))
            yield self.increments(["EXEC"], 2, lambda reply: reply)
        elif kind < 0.75:
            word = self.content(self.unique, int(200_000 ** self.random.random()))
            yield Request(("ECHO", word), expects(word))
        elif kind < 0.85:
            yield from self.value(self.unique, int(200_000 ** self.random.random()))
        elif kind < 0.9:
            yield Request(("CLIENT", "GETNAME"), expects(self.name.encode()))
        elif kind < 0.95 and self.stage.databases:
            yield Request(("GET", "database"), expects(b"%d" % self.database))
        else:
            word = f"{self.key}/{self.unique}".encode()
            yield Request(("EVAL", "return {KEYS[1], ARGV[1]}", "1", self.key, word), expects([self.key.encode(), word]))

    def increments(self, words, count, values):
        def executed(reply):
            found = values(reply)
            if len(found) != count or any(b != a + 1 for a, b in zip(found, found[1:])):
                self.doubtful += count
                self.tally.unknown += count
                raise Fault(f"{words[0]}: {reply!r:.80}")
            extra = found[-1] - self.known - count
            if not 0 <= extra <= self.doubtful:
                self.tally.fault("unaccounted", f"{self.key}: went from {self.known} to {found[-1]}, with {self.doubtful} unknown")
                extra = min(max(extra, 0), self.doubtful)
            self.tally.acknowledged += count
            self.known, self.doubtful = found[-1], self.doubtful - extra

        def failed():
            self.tally.failed += count

        def unknown():
            self.doubtful += count
            self.tally.unknown += count
        return Request(words, executed, failed, unknown)

    def content(self, version, size):
        """Returns bytes that only this version of this client's value has. A short value holds only a part of the name."""
        head = f"{version}/{size}/{self.key};".encode()
        return (head * (size // len(head) + 1))[:size]

    def value(self, version, size):
        def written(reply):
            self.versions.discard((version, size))
            self.version = version, size

        def read(reply):
            if all(reply != self.content(*it) for it in {self.version} | self.versions if it) and (reply is not None or self.version):
                raise Fault(f"not a value of {self.key}, of version {self.version} or {self.versions}: {reply!r:.80}")
        # Values written earlier must still be there.
        yield Request(("GET", f"v:{self.key}"), read)
        self.versions.add((version, size))
        yield Request(("SET", f"v:{self.key}", self.content(version, size)), written, lambda: self.versions.discard((version, size)))
        yield Request(("GET", f"v:{self.key}"), read)


class Queue:
    """A list, with the outcome of each element."""

    def __init__(self, number, tally):
        self.key, self.tally = f"{{q:{number}}}", tally
        self.database = 0
        self.acknowledged, self.possible, self.popped = set(), set(), set()
        self.excused = 0  # pops whose reply no client has seen

    def pop(self, element):
        if element in self.popped:
            self.tally.fault("duplicated", f"{self.key}: {element} came twice")
        if element not in self.acknowledged and element not in self.possible:
            self.tally.fault("wrong", f"{self.key}: {element!r:.80} was never pushed, or refused")
        self.popped.add(element)

    def lost(self, remaining):
        """Returns the number of elements that no client received and that the list no longer has."""
        for element in set(remaining) & self.popped:
            self.tally.fault("duplicated", f"{self.key}: {element} came, and is still there")
        lost = len(self.acknowledged - self.popped - set(remaining))
        if lost > self.excused:
            self.tally.fault("lost", f"{self.key}: {lost} elements, and only {self.excused} pops without a reply")
        return lost


class Producer(Client):
    def __init__(self, number, stage, seed, queue):
        super().__init__(number, stage, seed)
        self.queue, self.database, self.unique = queue, queue.database, 0

    async def session(self):
        while not self.stage.stop.is_set():
            self.unique += 1
            element = f"{self.queue.key}/{self.unique}".encode()
            self.queue.possible.add(element)

            def pushed(reply):
                self.queue.possible.discard(element)
                self.queue.acknowledged.add(element)
            await self.exchange(Request(("RPUSH", self.queue.key, element), pushed, lambda: self.queue.possible.discard(element)))
            await asyncio.sleep(self.random.uniform(0, 0.05))


class Consumer(Client):
    """A client that pops, and sometimes disconnects while it is blocked."""

    def __init__(self, number, stage, seed, queue):
        super().__init__(number, stage, seed)
        self.queue, self.database = queue, queue.database

    async def session(self):
        def popped(reply):
            if reply is not None:
                if reply[0] != self.queue.key.encode():
                    raise Fault(f"BLPOP {self.queue.key}: {reply!r:.80}")
                self.queue.pop(reply[1])

        def unknown():
            self.queue.excused += 1
        while not self.stage.stop.is_set():
            request = Request(("BLPOP", self.queue.key, f"{self.random.uniform(0.1, 1):.2f}"), popped, unknown=unknown)
            if self.random.random() < 0.02:
                self.writer.write(command(request.words))
                await asyncio.sleep(self.random.uniform(0, 0.05))
                self.queue.excused += 1
                self.writer.transport.abort() if self.random.random() < 0.5 else self.writer.close()
                raise Ended()
            await self.exchange(request)


class Topic:
    def __init__(self, number):
        self.channel = f"topic:{number}"
        self.sent, self.heard, self.received = set(), set(), set()  # `heard`: delivered, by the server's count
        self.again = 0  # received over an earlier connection, too


class Publisher(Client):
    def __init__(self, number, stage, seed, topic):
        super().__init__(number, stage, seed)
        self.topic, self.unique = topic, 0

    async def session(self):
        while not self.stage.stop.is_set():
            self.unique += 1
            message = f"{self.topic.channel}/{self.unique}".encode()
            self.topic.sent.add(message)

            def heard(count):
                if count:
                    self.topic.heard.add(message)
            # A replica accepts PUBLISH but does not pass the message on. It refuses this write, which leads the client to the primary.
            await self.exchange(Request(("SET", self.key, message), expects(b"OK")), Request(("PUBLISH", self.topic.channel, message), heard))
            await asyncio.sleep(self.random.uniform(0, 0.05))


class Subscriber(Client):
    def __init__(self, number, stage, seed, topic):
        super().__init__(number, stage, seed)
        self.topic = topic

    async def session(self):
        channel = self.topic.channel.encode()
        await self.exchange(Request(("SUBSCRIBE", channel), expects([b"subscribe", channel, 1])))
        here = set()
        for _ in range(self.random.randint(10, 2000)):
            await self.exchange_message(channel, here)

    async def exchange_message(self, channel, here):
        def received(reply):
            if reply[:2] != [b"message", channel] or reply[2] not in self.topic.sent:
                raise Fault(f"SUBSCRIBE {channel}: {reply!r:.80}")
            if reply[2] in here:
                self.tally.fault("duplicated", f"message {reply[2]}")
            # The nodes of a cluster forward messages to each other, with different delays. A subscriber that has moved to a slower node can
            # receive a message again.
            self.topic.again += reply[2] in self.topic.received
            here.add(reply[2])
            self.topic.received.add(reply[2])
        await self.exchange(Request((), received))


def expects(wanted):
    def check(reply):
        if reply != wanted:
            raise Fault(f"expected {wanted!r:.80}, got {reply!r:.80}")
    return check


def anything(_):
    pass


def unknown(requests):
    for request in requests:
        request.unknown()


def command(words):
    """Sends a command, and reads its reply. Without words, only reads a reply."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    head = b"*%d\r\n" % len(words) if words else b""
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def read(reader):
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    if kind in b"*>%":
        return None if rest == b"-1" else [await read(reader) for _ in range(int(rest) * (2 if kind == b"%" else 1))]
    if kind == b"-":
        return Exception(rest.decode())
    if kind == b"_":
        return None
    if kind in b":+":
        return int(rest) if kind == b":" else rest
    raise Fault(f"no reply: {line!r:.80}")
