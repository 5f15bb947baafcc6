"""Modules in the order in which they need one another."""

from tests.uml.modules import in_order

LISTING = """\
kernel/net/ip_vs_rr.ko: kernel/net/ip_vs.ko kernel/net/nf_conntrack.ko kernel/net/nf_defrag_ipv4.ko
kernel/net/ip_vs.ko: kernel/net/nf_conntrack.ko kernel/net/nf_defrag_ipv4.ko
kernel/net/xt-mark.ko.xz:
"""


def test_what_is_needed_comes_first_and_once() -> None:
    files = in_order(("ip_vs_rr", "ip_vs"), LISTING)
    assert [file.removeprefix("kernel/net/") for file in files] == [
        "nf_defrag_ipv4.ko",
        "nf_conntrack.ko",
        "ip_vs.ko",
        "ip_vs_rr.ko",
    ]


def test_names_have_underscores_and_what_is_built_in_has_no_file() -> None:
    assert in_order(("xt_mark", "nf_built_in"), LISTING) == ["kernel/net/xt-mark.ko.xz"]
