"""What is asked of the cluster and done to it, by whichever front: plain functions over a daemon's Context.

context    what they need of the daemon that they run in      peer         other nodes' daemons; lines: what is said
services   create, change, remove, progress; logs             snapshots    all nodes as they are
predictions  explain; passages: on through the gateway        checkups     doctor, repair
traces     a real packet beside its prediction; onward: what the gateway opens for it; watchers: who looks
proxies    what a node's proxies have
"""
