"""What the node's kernel is told, as text. PURE.

`command` is for people: what one would type to do the same by hand. `ruleset` and `transaction` are nft's language and load with
`nft -f`; libnftables is given exactly this text. `canonical` is the form in which nft lists a rule, so that what was planned
can be compared with what is read. `xtables.saved` and `xtables.transaction` are the same in iptables' language.

Data never becomes syntax: names, numbers and addresses are checked here, whatever was checked before. What does not pass is a
ValueError.
"""

from routemesh.render.canonical import canonical
from routemesh.render.commands import command
from routemesh.render.nft import ruleset, transaction

__all__ = ["canonical", "command", "ruleset", "transaction"]
