"""Why a way, or a service, is not as it should be: the end of a packet in the words of the mesh. PURE."""

from ipaddress import IPv4Address, IPv4Network

import msgspec

from routemesh.model import Protocol
from routemesh.reasons.ends import End, LinkDown, root
from routemesh.reasons.unclear import Doubt

# --- how a way ended ----------------------------------------------------------------------------------------------


class Lost(msgspec.Struct, frozen=True):
    """The request gets no further."""

    end: End


class AnswerLost(msgspec.Struct, frozen=True):
    """The request is answered, and the answer is lost."""

    end: End


class LargeLost(msgspec.Struct, frozen=True):
    """Small packets get there and back, large ones are lost."""

    end: End


class Untold(msgspec.Struct, frozen=True):
    """It can't be told what becomes of the request."""

    doubt: Doubt


class AnswerUntold(msgspec.Struct, frozen=True):
    """It can't be told what becomes of the answer."""

    doubt: Doubt


class LargeUntold(msgspec.Struct, frozen=True):
    """It can't be told what becomes of large packets."""

    doubt: Doubt


Failure = Lost | AnswerLost | LargeLost
OfDoubt = Untold | AnswerUntold | LargeUntold


class ByOthers(msgspec.Struct, frozen=True):
    """A way ended by a rule that is not the mesh's: of which tool ("" for none known), in which table; "" for a policy."""

    failure: Failure
    tool: str
    table: str
    rule: str


class WrongTaker(msgspec.Struct, frozen=True):
    """A process that is not a task of the service takes the connection ("": its name is not known)."""

    process: str
    service: str


OfWays = Failure | OfDoubt | ByOthers | WrongTaker

# --- what is missing, so that the way ended so -----------------------------------------------------------------------


class NotLed(msgspec.Struct, frozen=True):
    """No rule of the node leads the published port to the sandbox."""

    port: int
    protocol: Protocol
    then: OfWays


class NoMark(msgspec.Struct, frozen=True):
    """No rule of the sandbox gives the published port a firewall mark, so that nothing balances it."""

    port: int
    protocol: Protocol
    then: OfWays


class NotBalanced(msgspec.Struct, frozen=True):
    """Nothing in the sandbox balances what has the mark."""

    mark: int
    then: OfWays


class NotRedirected(msgspec.Struct, frozen=True):
    """No rule of the task redirects the published port to the one on which it listens."""

    port: int
    protocol: Protocol
    target: int
    then: OfWays


class ClientInRange(msgspec.Struct, frozen=True):
    """The client has an address of a range that the mesh has for itself on every node, where the answer to it is looked for."""

    client: IPv4Address
    network: str
    subnet: IPv4Network
    then: OfWays


OfMissing = NotLed | NoMark | NotBalanced | NotRedirected | ClientInRange

# --- what else may be wrong near the way -----------------------------------------------------------------------------


class UnlikePlanned(msgspec.Struct, frozen=True):
    """The namespace is not as its node's plan wants it."""


class Doubled(msgspec.Struct, frozen=True):
    """The address is that of a task, and somebody else has it too."""

    address: IPv4Address
    task: str


class NotServed(msgspec.Struct, frozen=True):
    """The task serves, but gets no connections."""

    task: str


class KeptAway(msgspec.Struct, frozen=True):
    """The service has no task that this node may use."""

    service: str


class NoTaskHere(msgspec.Struct, frozen=True):
    """The port is published in host mode, which only the nodes of the service's tasks answer, and this one has none."""

    service: str
    nodes: tuple[str, ...]


class NoTasks(msgspec.Struct, frozen=True):
    """The service has no task."""

    service: str


class NoneServes(msgspec.Struct, frozen=True):
    """None of the tasks takes connections: each with its node and what keeps it from that."""

    tasks: tuple[str, ...]


class NotAnswering(msgspec.Struct, frozen=True):
    """The kernel accepts connections for the process, and the process takes none of them: it is stopped (by a signal), or as many
    wait as may (one more than `backlog`)."""

    protocol: Protocol
    port: int
    process: str
    pid: int
    queued: int
    backlog: int
    stopped: bool


OfService = LinkDown | UnlikePlanned | Doubled | NotServed | KeptAway | NoTaskHere | NoTasks | NoneServes | NotAnswering

# --- the gateway's proxies ------------------------------------------------------------------------------------------


class ProxyUnlike(msgspec.Struct, frozen=True):
    """The proxy is not as the cluster wants it."""

    what: str


class ProxyAnswers(msgspec.Struct, frozen=True):
    """The proxy answers itself, with an error."""

    status: int
    why: str


OfProxies = ProxyUnlike | ProxyAnswers

Reason = OfWays | OfMissing | OfService | OfProxies


def untold(reason: Reason) -> bool:
    """Whether it says that something can't be told."""
    return isinstance(reason, Untold | AnswerUntold | LargeUntold)


def end_of(reason: Reason) -> End | None:
    """Why a packet went no further; None where none did."""
    match reason:
        case Lost(end) | AnswerLost(end) | LargeLost(end):
            return root(end)
        case ByOthers(failure):
            return root(failure.end)
        case NotLed(then=then) | NoMark(then=then) | NotBalanced(then=then) | NotRedirected(then=then):
            return end_of(then)
        case ClientInRange(then=then):
            return end_of(then)
        case _:
            return None
