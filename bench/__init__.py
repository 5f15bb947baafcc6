"""Benchmarks: a file per question; `./run bench [NAME…]` runs them."""
