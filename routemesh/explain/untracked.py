"""Rules of others that keep connection tracking from a packet: where it ends for want of NAT, they are why. PURE.

Source: nft(8) (notrack), iptables-extensions(8) (CT --notrack).
"""

from routemesh.explain import theirs
from routemesh.explain.blame import Blame
from routemesh.explain.faults import Fault
from routemesh.explain.shown import in_namespace, rule_text
from routemesh.explain.way import Places
from routemesh.nodeplan import Chain, XtChain
from routemesh.reasons.causes import AnswerLost, ByOthers, Lost
from routemesh.reasons.ends import Astray, End, NotTracked
from routemesh.reasons.events import Untracked
from routemesh.walk import Branch, Hop, Place


def met(places: Places, branch: Branch, place: Place, end: End | None) -> Hop | None:
    """Where a rule of others did so: in the namespace where the packet ended, or anywhere, if its ends were wrong then."""
    every = [hop for hop in (*branch.hops, *branch.reply_hops) if isinstance(hop.event, Untracked)]
    near = [hop for hop in every if hop.place == place or isinstance(end, Astray)]
    return next((hop for hop in near if theirs.foreign(places, hop)), None)


def fault(places: Places, branch: Branch, hop: Hop, number: int, blame: Blame) -> Fault:
    """What is wrong is that rule."""
    every = (*branch.hops, *branch.reply_hops)
    step = next(at for at, each in enumerate(every) if each is hop)
    answer, node = step >= len(branch.hops), places.cluster.nodes.get(hop.place.node)
    item = hop.item
    assert isinstance(item, Chain | XtChain)
    end = NotTracked(item.hook.type if isinstance(item, Chain) and item.hook is not None else item.table, item.name)
    table, by = theirs.table_of(item), theirs.foreign(places, hop)
    lost = AnswerLost(end) if answer else Lost(end)
    look, mend = theirs.looking_at(node, item, end), theirs.exception(node, hop, answer=answer)
    return Fault(
        at=hop.place,
        called=places.called(hop.place),
        reason=ByOthers(lost, "" if by == table else by, table, rule_text(item, hop.rule)),
        mend=tuple(in_namespace(node, hop.place.netns, each) for each in (mend,) if each),
        look=tuple(in_namespace(node, hop.place.netns, each) for each in (look,) if each),
        way=number,
        step=step,
        by=by,
        planned=False,
        remains=blame.remains(branch),
        goes=False,
    )
