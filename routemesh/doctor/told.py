"""What a node would change, in words that say what is wrong now. PURE."""

from typing import assert_never

from routemesh.nodeplan import (
    Address,
    Chain,
    Change,
    Create,
    CtTimeouts,
    Delete,
    Element,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    Op,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
)
from routemesh.values import differing


def told(op: Op) -> str:
    """What is wrong, as long as the operation is not carried out."""
    match op:
        case Create(item=Sysctl(path)):
            return f"{path} can't be read"
        case Create(item=item):
            return f"{called(item)} is missing"
        case Delete(item=item):
            return f"{called(item)} is not planned"
        case Change(old=Sysctl(path, old), new=Sysctl(value=new)):
            return f"{path} is {old} instead of {new}"
        case Change(old=Chain() | XtChain(), new=new):
            return f"the rules of {called(new)} differ from the plan"
        case Change(old=old, new=new):
            return f"{called(new)} has {_differing(old, new)}"
        case _:
            assert_never(op)


def _differing(old: Item, new: Item) -> str:
    found = []
    for name in differing(old, new):
        had, wanted = getattr(old, name), getattr(new, name)
        if not (name == "mac" and wanted is None):
            found.append(f"{name} {_short(had)} instead of {_short(wanted)}")
    return " and ".join(found) or "other properties"


def _short(value: object) -> str:
    return "none" if value is None else "no" if value is False else "yes" if value is True else str(value)


def called(item: Item) -> str:  # noqa: C901, PLR0912  # a line for each kind
    """A kernel object's name for people."""
    match item:
        case Netns(name):
            return f"namespace {name}"
        case Link(name=name):
            return f"device {name}"
        case Sysctl(path):
            return path
        case Address(link, address):
            return f"address {address} on {link}"
        case Route(destination=destination, link=link, table=table):
            to = "the default route" if destination.prefixlen == 0 else f"the route to {destination}"
            return f"{to} by {link} in table {table}"
        case RoutingRule(priority=priority):
            return f"routing rule {priority}"
        case Neighbour(link, ip):
            return f"the permanent neighbour {ip} on {link}"
        case FdbEntry(link, mac, dst):
            return f"the FDB entry of {mac} on {link}" + (f" for {dst}" if dst is not None else "")
        case IpvsTimeouts():
            return "IPVS's time-outs"
        case IpvsService(mark=mark):
            return f"IPVS service FWM {mark}"
        case IpvsDestination(mark=mark, address=address):
            return f"IPVS destination {address} of FWM {mark}"
        case Table(family, name):
            return f"table {family} {name}"
        case CtTimeouts(family, name):
            return f"ct timeout {family} {name}"
        case Map(family, name, value=value):
            return f"{'set' if value is None else 'map'} {family} {name}"
        case Chain(family, name):
            return f"chain {family} {name}"
        case Element(_, of, key, _):
            return f"element {' . '.join(map(str, key))} of {of}"
        case XtChain(table, name):
            return f"iptables chain {table} {name}"
        case XtRule(table, chain):
            return f"our rule in iptables {table} {chain}"
        case _:
            assert_never(item)
