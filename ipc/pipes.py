"""The parent's ends of a child's pipes, as anyio byte streams on both backends.

On POSIX the event loop waits for the descriptor itself; on Windows, where it cannot wait for an anonymous pipe, a
thread does. What the bytes mean, and what a pipe's end means (never that the child has exited), is for others to say.
"""

from __future__ import annotations

import os
import sys
import threading

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

if sys.platform == "win32":
    import msvcrt

CHUNK = 65536


class PipeReader(anyio.abc.ByteReceiveStream):
    """Reads a pipe by readiness; POSIX. Owns the descriptor and makes it non-blocking."""

    def __init__(self, descriptor: int) -> None:
        if sys.platform != "win32":
            os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """At least one byte. EndOfStream when all writers are gone, ClosedResourceError after `close`."""
        await anyio.lowlevel.checkpoint()
        while (data := self.receive_nowait(max_bytes)) is None:
            await anyio.wait_readable(self._descriptor)
        if not data:
            raise anyio.EndOfStream
        return data

    def receive_nowait(self, max_bytes: int = CHUNK) -> bytes | None:
        """What lies in the pipe now: None when nothing does, `b""` at its end."""
        if self._descriptor < 0:
            raise anyio.ClosedResourceError
        try:
            return os.read(self._descriptor, max_bytes)
        except BlockingIOError:
            return None

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            anyio.notify_closing(descriptor)
            os.close(descriptor)

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()


class ThreadedPipeReader(anyio.abc.ByteReceiveStream):
    """Reads a pipe in a thread of its own, a chunk when asked; for Windows. A cancelled `receive` loses nothing."""

    def __init__(self, descriptor: int) -> None:
        if sys.platform == "win32":
            msvcrt.setmode(descriptor, os.O_BINARY)
        self._descriptor = descriptor
        self._token = anyio.lowlevel.current_token()
        self._wanted = threading.Semaphore(0)
        self._arrived = anyio.Event()
        self._asked = False
        self._closed = False
        self._ended = False
        self._chunk: bytes | None = None
        threading.Thread(target=self._read, name=f"pipe-{descriptor}", daemon=True).start()

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """At least one byte. EndOfStream when all writers are gone, ClosedResourceError after `close`."""
        await anyio.lowlevel.checkpoint()
        while (data := self.receive_nowait(max_bytes)) is None:
            await self._arrived.wait()
        if not data:
            raise anyio.EndOfStream
        return data

    def receive_nowait(self, max_bytes: int = CHUNK) -> bytes | None:
        """What has arrived: None when nothing has (and the thread goes to look), `b""` at the pipe's end."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._ended:
            return b""
        chunk = self._chunk
        if chunk is None:
            if not self._asked:
                self._asked = True
                self._arrived = anyio.Event()
                self._wanted.release()
            return None
        if not chunk:
            self._ended = True
            return b""
        data, rest = chunk[:max_bytes], chunk[max_bytes:]
        self._chunk = rest or None
        return data

    def close(self) -> None:
        """The thread closes the descriptor: closing one that a thread reads from may hang on Windows."""
        self._closed = True
        self._arrived.set()
        self._wanted.release()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()

    def _read(self) -> None:
        try:
            data = b"-"
            while data:
                self._wanted.acquire()
                if self._closed:
                    return
                try:
                    data = os.read(self._descriptor, CHUNK)
                except OSError:  # a broken pipe is how Windows says that the writers are gone
                    data = b""
                try:
                    anyio.from_thread.run_sync(self._deliver, data, token=self._token)
                except anyio.RunFinishedError:
                    return  # nobody is left who could want it
        finally:
            os.close(self._descriptor)

    def _deliver(self, data: bytes) -> None:
        self._chunk = data
        self._asked = False
        self._arrived.set()


class PipeWriter(anyio.abc.ByteSendStream):
    """Writes a pipe without ever blocking the loop. Owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        if sys.platform == "win32":
            msvcrt.setmode(descriptor, os.O_BINARY)
        else:
            os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def send(self, item: bytes) -> None:
        """Returns when all of it is in the pipe. BrokenResourceError when nobody can read it any more."""
        await anyio.lowlevel.checkpoint_if_cancelled()  # others have their turn when it is written
        view = memoryview(item)
        while view:
            if self._descriptor < 0:
                raise anyio.ClosedResourceError
            try:
                if sys.platform == "win32":
                    written = await anyio.to_thread.run_sync(os.write, self._descriptor, view, abandon_on_cancel=True)
                else:
                    written = os.write(self._descriptor, view)
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                view = view[written:]
        await anyio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """The reader gets its end of file."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            if sys.platform != "win32":
                anyio.notify_closing(descriptor)
            os.close(descriptor)

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()


AnyPipeReader = PipeReader | ThreadedPipeReader


def reader(descriptor: int) -> AnyPipeReader:
    """The kind of reader that this system needs; call it inside a running event loop."""
    return ThreadedPipeReader(descriptor) if sys.platform == "win32" else PipeReader(descriptor)
