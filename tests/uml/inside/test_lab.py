"""What the lab's tests ask of the nftables engine, they ask of this one. What is Swarm's own way here is in test_ipvs."""

from tests.lab.test_path import (
    test_a_udp_server_that_is_bound_to_no_address_answers_too,
    test_every_node_answers_in_turn_and_shows_the_client,
    test_large_transfers_pass_the_smaller_mtu,
    test_udp_is_balanced_by_flow_and_shows_the_client,
)
from tests.lab.test_strays import test_six_of_six_connections_survive_what_resembles_them
from tests.lab.test_tasks import test_scaling_loses_nothing

__all__ = [
    "test_a_udp_server_that_is_bound_to_no_address_answers_too",
    "test_every_node_answers_in_turn_and_shows_the_client",
    "test_large_transfers_pass_the_smaller_mtu",
    "test_scaling_loses_nothing",
    "test_six_of_six_connections_survive_what_resembles_them",
    "test_udp_is_balanced_by_flow_and_shows_the_client",
]
