"""The last states that workers were told of."""

from collections import deque

from routemesh.model import State

KEPT_STATES = 64


class Recent:
    """The last states that workers were told of: one that comes back is told what has changed since."""

    def __init__(self) -> None:
        self._states: deque[State] = deque(maxlen=KEPT_STATES)

    def add(self, state: State) -> None:
        """Keep a state."""
        if not self._states or self._states[-1].revision < state.revision:
            self._states.append(state)

    def at(self, revision: int) -> State | None:
        """The state of that revision, if it is known."""
        return next((state for state in self._states if state.revision == revision), None)
