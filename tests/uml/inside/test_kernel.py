"""What needs no nftables works on this kernel too, which is older than the others and has but one processor."""

from tests.kernel.test_contract import KernelContract, OnLinux


class TestLinuxKernel(OnLinux, KernelContract):
    """Links and what hangs on them."""

    WITH_TABLES = False
