"""A kernel in memory, which fulfils the same contract (tests/kernel/test_contract.py)."""
