"""What the kernel takes away or keeps silent about, and how connections end, with the ipvs engine."""

from tests.lab.test_along import (
    test_a_setting_of_which_the_kernel_tells_nobody_is_back_within_two_seconds,
    test_routes_rules_and_lo_come_back_by_themselves,
)
from tests.lab.test_hangup import test_downloads_end_when_their_service_is_scaled_to_none

__all__ = [
    "test_a_setting_of_which_the_kernel_tells_nobody_is_back_within_two_seconds",
    "test_downloads_end_when_their_service_is_scaled_to_none",
    "test_routes_rules_and_lo_come_back_by_themselves",
]
