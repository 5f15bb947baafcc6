"""routemesh: Docker Swarm's ingress routing mesh as a program of its own."""

__version__ = "0.1.0"
