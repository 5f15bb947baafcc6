"""The daemon's API: HTTP and JSON over a unix socket, below /routemesh/v1/. Docker's own paths stay free.

wire      the JSON shapes, used by both ends
server    the application and its socket; routes_*: the handlers
client    what the command line uses: the standard library's HTTP, since start-up time counts
"""
