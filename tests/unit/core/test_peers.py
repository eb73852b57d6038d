"""Whom a limit counts as one peer."""

from __future__ import annotations

import pytest

from gateway.core.peers import peer_network


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
        ("", ""),
    ],
)
def test_a_host_with_many_addresses_is_one_peer(peer: str, network: str) -> None:
    assert peer_network(peer) == network
