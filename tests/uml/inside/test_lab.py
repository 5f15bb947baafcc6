"""What the lab's tests ask of the nftables engine, they ask of this one. What is Swarm's own way here is in test_ipvs."""

from tests.lab.test_path import (
    test_a_removed_tasks_udp_client_moves_to_another,
    test_a_task_with_a_udp_port_still_calls_out,
    test_a_udp_server_that_is_bound_to_no_address_answers_too,
    test_every_node_answers_in_turn_and_shows_the_client,
    test_large_datagrams_pass_once_the_client_knows_the_smaller_mtu,
    test_large_transfers_pass_the_smaller_mtu,
    test_one_number_in_tcp_and_udp_and_several_ports,
    test_tasks_of_a_node_do_not_reach_one_another_on_docker_gwbridge,
    test_udp_is_balanced_by_flow_and_shows_the_client,
)
from tests.lab.test_tasks import test_scaling_loses_nothing

__all__ = [
    "test_a_removed_tasks_udp_client_moves_to_another",
    "test_a_task_with_a_udp_port_still_calls_out",
    "test_a_udp_server_that_is_bound_to_no_address_answers_too",
    "test_every_node_answers_in_turn_and_shows_the_client",
    "test_large_datagrams_pass_once_the_client_knows_the_smaller_mtu",
    "test_large_transfers_pass_the_smaller_mtu",
    "test_one_number_in_tcp_and_udp_and_several_ports",
    "test_scaling_loses_nothing",
    "test_tasks_of_a_node_do_not_reach_one_another_on_docker_gwbridge",
    "test_udp_is_balanced_by_flow_and_shows_the_client",
]
