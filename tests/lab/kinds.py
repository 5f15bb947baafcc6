"""Every kind of reason that explain and doctor have, and the fault by which what they print for it is proved."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from routemesh.explain.nouns import Explanation
from routemesh.reasons import causes
from routemesh.reasons.ends import End
from routemesh.reasons.named import Named

KINDS = frozenset(each.__name__ for each in (*get_args(End), *get_args(causes.Reason)))

PROVED: Mapping[str, str] = {
    "NotLed": "a port that is not published",
    "NoMark": "a port without a mark",
    "NotBalanced": "a mark without a chain",
    "NotServed": "a backend missing",
    "NotRedirected": "no redirection",
    "Lost": "an FDB entry missing",
    "AnswerLost": "the sandbox without a default route",
    "LargeLost": "a tunnel with a small MTU",
    "ByOthers": "a drop in the node's forward",
    "UnlikePlanned": "an FDB entry of another node",
    "RuleDrops": "VXLAN dropped",
    "RuleRejects": "a rejection in the task",
    "PolicyDrops": "a policy that drops",
    "NotTracked": "connections that are not tracked",
    "NotForwarding": "a node that does not forward",
    "ReversePath": "a strict reverse path filter",
    "NoFdbEntry": "a neighbour with a wrong MAC",
    "NobodysAddress": "an FDB entry of another node",
    "LinkDown": "a bridge that is down",
    "NoRoute": "the node without the route to its bridge",
    "NoPort": "a port that is in no bridge",
    "NoNeighbour": "a bridge without its port",
    "WrongMac": "a wrong MAC",
    "TooLarge": "an overlay port with a small MTU",
    "BlackHole": "a black hole for one client",
    "RouteRefuses": "a client that is unreachable",
    "WrongNeighbour": "a wrong MAC of the other node",
    "LeadsAway": "a route of others to the sandbox",
    "IpsecBlocks": "an IPsec policy against the other node",
    "Isolated": "two ports that may not reach one another",
    "RedirectedNowhere": "an address missing",
    "NobodyListens": "no redirection",
    "Unheard": "the sandbox's overlay link down",
    "Astray": "the sandbox's overlay link down",
}
"""By which fault of test_mends."""

NOT_MADE: Mapping[str, str] = {
    "Untold": "a doubt: nothing is mended",
    "AnswerUntold": "a doubt: nothing is mended",
    "LargeUntold": "a doubt: nothing is mended",
    "WrongTaker": "test_doctor of tests/uml/inside and tests/unit: another process has the port, and only its owner can stop it",
    "Doubled": "test_explain: an address that two tasks have",
    "KeptAway": "labels of the service: nothing of a kernel",
    "NoTaskHere": "a service's own state: nothing of a kernel",
    "NoTasks": "a service's own state: nothing of a kernel",
    "NoneServes": "a service's own state: nothing of a kernel",
    "NotAnswering": "tests/lab/test_asked.py: a stopped server is continued by what is printed",
    "EitherWay": "two ends, each with its own kind",
    "ProxyUnlike": "tests/lab/test_gateway.py: the gateway's, no command mends it",
    "ProxyAnswers": "tests/lab/test_gateway.py: the gateway's, no command mends it",
    "ClientInRange": "tests/lab/test_ranges.py: no command mends it, the client needs another address",
    "NoCarrier": "the kernel of a lab has no cable that can be pulled without its link being set down",
    "BridgeDown": "told as LinkDown of the bridge",
    "FarEndGone": "told as LinkDown of the other end",
    "BehindSamePort": "bridges of the mesh reflect nothing; tests/unit/test_walk*",
    "TunnelFromElsewhere": "no command: the daemon makes the tunnel anew with the node's address",
    "NoTunnel": "test_explain: a tunnel of another VNI",
    "LoopbackOnWire": "only for a client at 127.0.0.1; test_explain, what breaks no way",
    "LoopbackLeaves": "only for a client at 127.0.0.1; test_explain, what breaks no way",
    "OwnSource": "no command mends it",
    "NotOwnAddress": "no command mends it: the question has that source",
    "GoesInCircles": "a guard of the walker",
    "NothingToMasquerade": "every namespace of a lab that masquerades has an address",
    "TableFull": "tests/uml/inside: the limit is the machine's",
    "AnswersClash": "no command mends it: the connection that is in the way is somebody's",
    "NoServer": "tests/uml/inside: IPVS",
    "ServerGone": "tests/uml/inside: IPVS",
    "LoopbackToServer": "tests/uml/inside: IPVS; no command mends it",
    "LargeAstray": "no command mends it",
    "EverSmaller": "a guard of the walker",
}
"""Why no fault of that matrix makes it."""


def kinds(found: Explanation) -> frozenset[str]:
    """The kinds of reasons in an explanation, those within others too."""
    return frozenset(name for cause in found.causes for name in _names(cause.reason))


def _names(reason: Any) -> Iterator[str]:
    match reason:
        case Named(name=str(name), fields=fields):
            yield name
            yield from _names(dict(fields))
        case {"name": str(name), "fields": fields}:
            yield name
            yield from _names(fields)
        case dict():
            for each in reason.values():
                yield from _names(each)
        case _:
            pass
