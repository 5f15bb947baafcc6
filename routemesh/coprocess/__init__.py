"""Processes of their own for what must not share the daemon's descriptors (docs/adr): what they do, and how they are asked.

A coprocess imports the standard library only and, for `nft`, libnftables' binding: it starts in some 20 ms.
"""
