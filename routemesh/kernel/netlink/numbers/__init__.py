"""The numbers of netlink's attributes, by the names that the kernel's headers give them; a file for each family.

A module binds those that it reads ten thousand times to names of its own: in Python 3.11 a member is looked up by a function.
"""
