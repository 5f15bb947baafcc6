"""The languages of kernels and people, a writer and a reader of each side by side. PURE.

Writers: `command` is for people: what one would type to do the same by hand. `ruleset` and `transaction` are nft's language
and load with `nft -f`; libnftables is given exactly this text. `canonical` is the form in which nft lists a rule, so that what
was planned can be compared with what is read. `xtables.saved` and `xtables.transaction` are the same in iptables' language.

Readers: `nftjson` (libnftables), `xtsave` and, of one rule of it, `xtparse` (iptables-save).

Data never becomes syntax: names, numbers and addresses are checked here, whatever was checked before. What does not pass is a
ValueError.
"""

from routemesh.language.canonical import canonical
from routemesh.language.commands import command
from routemesh.language.nft import ruleset, transaction

__all__ = ["canonical", "command", "ruleset", "transaction"]
