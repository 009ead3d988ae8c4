"""Clients of the soak: each checks every reply, and knows what was executed, and what may have been."""
import asyncio, collections, random, sys

# Nobody waits longer for a reply.
PATIENCE = 30
# Events that must end no session, refuse no client, or leave nothing in doubt.
SEAMLESS = {"good reload", "bad reload"}
CERTAIN = SEAMLESS | {"restart", "replacement"}


class Fault(Exception):
    """What must never happen."""


class Tally:
    def __init__(self):
        self.replies = self.connections = self.refused = self.told = self.cut = self.doubts = 0
        self.faults = []
        self.event = "calm"
        self.by_event = collections.Counter()

    def fault(self, words):
        self.faults.append(f"during {self.event}: {words}")
        print("FAULT", self.faults[-1], file=sys.stderr)


class Client:
    """One after another it opens connections, and sends on each some hundred pipelines."""

    def __init__(self, number, port, tally, stop):
        self.key, self.port, self.tally, self.stop = f"n:{number}", port, tally, stop
        self.random = random.Random(number)
        self.known = 0  # the counter, as far as it was told
        self.doubtful = 0  # increments that may come on top, now or later
        self.unique = 0

    async def run(self):
        while not self.stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            except OSError as error:
                self.tally.refused += 1
                if self.tally.event in SEAMLESS | {"replacement"}:
                    self.tally.fault(f"{self.key}: refused: {error}")
                await asyncio.sleep(self.random.uniform(0.02, 0.2))
                continue
            self.tally.connections += 1
            try:
                await self.session(reader, writer)
            except Fault as fault:
                self.tally.fault(f"{self.key}: {fault}")
                return
            finally:
                writer.close()

    async def session(self, reader, writer):
        for _ in range(self.random.randint(20, 2000)):
            if self.stop.is_set():
                return
            requests = [self.request() for _ in range(self.random.choice((1, 1, 1, 2, 16)))]
            over = False
            try:
                writer.write(b"".join(command(words) for words, _ in requests))
                await writer.drain()
            except OSError:
                pass  # what was answered may still be read
            for at, (words, check) in enumerate(requests):
                try:
                    reply = await asyncio.wait_for(read(reader), PATIENCE)
                except (OSError, EOFError):
                    return self.ended([words for words, _ in requests[at:]])
                except asyncio.TimeoutError:
                    raise Fault(f"no reply to {words[0]} within {PATIENCE} s")
                self.tally.replies += 1
                if isinstance(reply, Exception):
                    over |= self.told_of(words, str(reply))
                else:
                    check(reply)
            if over:
                await self.closed(reader)
                return

    def request(self):
        kind = self.random.random()
        if kind < 0.6:
            return (b"INCR", self.key.encode()), self.counted
        self.unique += 1
        if kind < 0.8:
            word = f"{self.key}/{self.unique}".encode()
            return (b"ECHO", word), self.expects(word)
        if kind < 0.9:
            size = self.random.choice((10, 100, 1000, 1000, 40_000))
            self.value = (f"{self.key}/{self.unique};".encode() * size)[:size]
            return (b"GETSET", b"v:" + self.key.encode(), self.value), self.any_of_ours
        return (b"EVAL", b"return {KEYS[1], ARGV[1]}", b"1", b"v:" + self.key.encode(), str(self.unique).encode()), self.expects(
            [b"v:" + self.key.encode(), str(self.unique).encode()])

    def counted(self, value):
        extra = value - self.known - 1
        if not 0 <= extra <= self.doubtful:
            raise Fault(f"counter went from {self.known} to {value}, with {self.doubtful} in doubt")
        self.known, self.doubtful = value, self.doubtful - extra

    def expects(self, wanted):
        def check(reply):
            if reply != wanted:
                raise Fault(f"wanted {wanted!r:.80}, got {reply!r:.80}")
        return check

    def any_of_ours(self, reply):
        if reply is not None and not reply.startswith(f"{self.key}/".encode()[:len(reply)]):
            raise Fault(f"the value of another: {reply!r:.80}")

    def told_of(self, words, error):
        """An error reply: of pontoon's, and then the session is over, or of a server that is not ready."""
        if not error.startswith(("ERR pontoon: ", "LOADING ")):
            raise Fault(f"{words[0]}: {error}")
        self.tally.told += 1
        if "may or may not have been executed" in error:
            if self.tally.event in CERTAIN:
                self.tally.fault(f"{self.key}: {error}")
            self.doubt([words])
        return error.startswith("ERR pontoon: ")

    async def closed(self, reader):
        """After its last words pontoon closes; nothing more was sent, so nothing is in doubt."""
        self.tally.by_event[self.tally.event] += 1
        try:
            rest = await asyncio.wait_for(reader.read(), PATIENCE)
        except OSError:
            return
        except asyncio.TimeoutError:
            raise Fault("not closed after an error")
        if rest:
            raise Fault(f"more after an error: {rest!r:.80}")

    def ended(self, unanswered):
        self.tally.by_event[self.tally.event] += 1
        if self.tally.event in SEAMLESS:
            self.tally.fault(f"{self.key}: the session ended, with {len(unanswered)} unanswered")
        if self.tally.event not in CERTAIN:
            self.tally.cut += 1
            self.doubt(unanswered)

    def doubt(self, requests):
        increments = sum(words[0] == b"INCR" for words in requests)
        self.doubtful += increments
        self.tally.doubts += increments


def command(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def read(reader):
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    if kind == b"*":
        return [await read(reader) for _ in range(int(rest))]
    if kind == b"-":
        return Exception(rest.decode())
    return int(rest) if kind == b":" else rest
