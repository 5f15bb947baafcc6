"""Looks at everything that is in a kernel, ours or not, and watches packets; changes nothing that stays."""
