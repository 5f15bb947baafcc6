"""What can go wrong; the class says who must act.

    RoutemeshError
    ├── UserError        the request is wrong: change it                  (HTTP 400, exit 1)
    │   ├── Forbidden    is not for whoever asks                          (HTTP 403, exit 1)
    │   ├── NotFound     names something that does not exist              (HTTP 404, exit 1)
    │   └── Conflict     clashes with something that exists               (HTTP 409, exit 1)
    ├── Unavailable      the machine or the cluster can't do it now       (HTTP 503, exit 1)
    └── KernelError      the kernel refused one operation                 (node status)

Every message is one line: what failed, on what, why, what to do. A wrong command line is click's
business (exit 2). Anything else that is raised is a bug and shows its traceback.
"""

from dataclasses import dataclass


class RoutemeshError(Exception):
    """Base of all errors that carry a message for a person."""

    status = 500


class UserError(RoutemeshError):
    """The request can't be carried out as it was put."""

    status = 400


class Forbidden(UserError):
    """The request is not for whoever asks."""

    status = 403


class NotFound(UserError):
    """The request names something that does not exist."""

    status = 404


class Conflict(UserError):
    """The request clashes with something that exists."""

    status = 409


class Unavailable(RoutemeshError):
    """The machine or the cluster can't do this now."""

    status = 503


@dataclass
class KernelError(RoutemeshError):
    """The kernel refused an operation.

    `command` is what a person would type to get the same refusal; `errno` is 0 where the tool gave none.
    """

    command: str
    reason: str
    errno: int = 0

    def __str__(self) -> str:
        return f"{self.command}: {self.reason}"
