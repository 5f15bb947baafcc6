"""A loop that is held up says by what, and a loop that waits says nothing."""

import asyncio
import time

import pytest

from routemesh.stalls import watched_loop


async def _holds_everything_up() -> None:
    time.sleep(0.5)  # that is what is tested


async def _waits() -> None:
    await asyncio.sleep(0.5)


def test_what_holds_the_loop_up_is_in_the_log_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with watched_loop() as runner:
        runner.run(_holds_everything_up())
        runner.run(_waits())
    (told, *_) = [message for message in caplog.messages if "_holds_everything_up" in message]
    assert told.startswith("event loop held up for 0.")
    assert f"by _holds_everything_up ({__file__}:" in told
    assert "\n" not in told
    assert not [message for message in caplog.messages if "_waits" in message]
