"""Lines out of a stream of bytes: as long as they may be, and no more of it in memory than one of them and what is under way."""

from collections.abc import AsyncIterator

from aiohttp import StreamReader

from routemesh.errors import UserError


class Lines:
    """The lines of a request or an answer, one by one. `longest_bytes` bounds what is kept while a line's end has not come."""

    def __init__(self, content: StreamReader, longest_bytes: int) -> None:
        self._content, self._longest_bytes = content, longest_bytes
        self._waiting = bytearray()

    async def next(self) -> bytes:
        """The next line with its newline, what is left at the end, then b"". Raises UserError for one that is too long."""
        searched = 0
        while (end := self._waiting.find(b"\n", searched)) < 0:
            searched = len(self._waiting)
            if searched > self._longest_bytes:
                raise UserError(f"a line is longer than {self._longest_bytes} bytes")
            block = await self._content.readany()
            if not block:
                end = searched - 1
                break
            self._waiting += block
        line = bytes(self._waiting[: end + 1])
        del self._waiting[: end + 1]
        return line


async def whole_lines(blocks: AsyncIterator[bytes], longest_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in blocks that end with a newline; in a line that is too long, and behind the last one, one is put in."""
    rest = b""
    async for block in blocks:
        complete, newline, left = block.rpartition(b"\n")
        if newline:
            yield rest + complete + newline
            rest = left
        else:
            rest += block
        if len(rest) > longest_bytes:
            yield rest + b"\n"
            rest = b""
    if rest:
        yield rest + b"\n"
