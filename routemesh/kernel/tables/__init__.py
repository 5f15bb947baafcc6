"""The kernel's rules, read and written: nftables by libnftables, iptables by its tools."""
