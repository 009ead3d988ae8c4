"""A TCP relay that injects faults between pontoon and a server."""
import asyncio, random, socket, struct


class Relay:
    def __init__(self):
        self.target = None  # the server's port; open connections keep their server
        self.dribbling = False
        self.clear = asyncio.Event()
        self.clear.set()
        self.links = set()  # writers of both sides
        self.tasks = set()

    async def open(self, port=0):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", port, limit=1 << 16, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        """Holds the client's bytes until the relay is clear, and then connects."""
        self.tasks.add(asyncio.current_task())
        self.links.add(writer)
        far = None
        try:
            await self.clear.wait()
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target, limit=1 << 16)
            self.links.add(far)
            await asyncio.gather(self.carry(reader, far), self.carry(far_reader, writer))
        except OSError:
            pass
        finally:
            for side in filter(None, (writer, far)):
                self.links.discard(side)
                side.transport.abort()
            self.tasks.discard(asyncio.current_task())

    async def carry(self, reader, writer):
        while data := await reader.read(1 << 16):
            await self.clear.wait()
            while self.dribbling and data:
                writer.write(data[:1])
                data = data[1:]
                await asyncio.sleep(0.0005)
            writer.write(data)
            await writer.drain()
        await self.clear.wait()
        writer.write_eof()

    # The faults. Each ends by itself.

    async def blackhole(self):
        """Accepts connections, but passes nothing on. Afterwards the held bytes arrive late, or all connections are reset."""
        self.clear.clear()
        await asyncio.sleep(random.uniform(1, 4))
        if random.random() < 0.5:
            self.cut()
        self.clear.set()

    async def dribble(self):
        """Sends one byte in each segment."""
        self.dribbling = True
        await asyncio.sleep(2)
        self.dribbling = False

    async def reset(self):
        self.cut()

    async def refuse(self):
        """Refuses new connections. Half of the time, resets the open ones, too."""
        self.server.close()
        if random.random() < 0.5:
            self.cut()
        await asyncio.sleep(random.uniform(0.5, 2))
        await self.open(self.port)

    def cut(self):
        for writer in [link for link in self.links if not link.is_closing()]:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def close(self):
        self.server.close()
        self.clear.set()
        self.cut()
        while self.tasks:
            await asyncio.wait(self.tasks)
