"""Looks at everything that is in a kernel, whoever put it there, and watches packets; changes nothing that stays."""
