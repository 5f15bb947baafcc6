"""What the kernel refuses to tell, told with the command that asks the same."""

from collections.abc import Iterator
from contextlib import contextmanager

from routemesh.errors import KernelError


@contextmanager
def told_as(command: str) -> Iterator[None]:
    """An OSError in the block becomes a KernelError of this `command`, with the cause that it had.

    One that passes an inner block of this kind has been told already, by the command that is nearer to it.
    """
    try:
        yield
    except OSError as refusal:
        reason = refusal.strerror or str(refusal) or type(refusal).__name__
        raise KernelError(command, reason, refusal.errno or 0) from refusal
