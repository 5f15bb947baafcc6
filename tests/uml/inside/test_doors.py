"""What nobody is to reach with the nftables engine, nobody reaches with this one."""

from tests.lab.test_doors import (
    test_a_neighbour_with_a_route_reaches_what_is_published_and_nothing_else,
    test_a_task_does_not_take_the_sandboxs_place,
    test_a_task_speaks_for_itself_alone,
    test_a_task_that_takes_anothers_address_is_not_heard_outside,
    test_tasks_do_not_reach_one_another_through_the_nodes_gateway,
    test_the_nodes_loopback_is_nobody_elses,
    test_the_overlay_takes_packets_from_nodes_alone,
)

__all__ = [
    "test_a_neighbour_with_a_route_reaches_what_is_published_and_nothing_else",
    "test_a_task_does_not_take_the_sandboxs_place",
    "test_a_task_speaks_for_itself_alone",
    "test_a_task_that_takes_anothers_address_is_not_heard_outside",
    "test_tasks_do_not_reach_one_another_through_the_nodes_gateway",
    "test_the_nodes_loopback_is_nobody_elses",
    "test_the_overlay_takes_packets_from_nodes_alone",
]
