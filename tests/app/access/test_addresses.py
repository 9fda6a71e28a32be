"""The client's address, whatever a client writes into X-Forwarded-For."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polymodal.app.access.addresses import client_address, group_of, is_loopback, parse_address, parse_networks

PROXIES = parse_networks("10.0.0.0/8, 2001:db8:ffff::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param("198.51.100.7", [], "198.51.100.7", id="nothing-forwarded"),
        pytest.param("198.51.100.7", [b"192.0.2.1"], "198.51.100.7", id="not-a-proxy"),
        pytest.param("10.0.0.1", [b"192.0.2.1"], "192.0.2.1", id="from-a-proxy"),
        pytest.param("10.0.0.1", [b"203.0.113.9, 192.0.2.1"], "192.0.2.1", id="forged-first-entry"),
        pytest.param("10.0.0.1", [b"192.0.2.1, 10.0.0.2"], "192.0.2.1", id="two-proxies"),
        pytest.param("10.0.0.1", [b"203.0.113.9", b"192.0.2.1"], "192.0.2.1", id="two-fields"),
        pytest.param("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3", id="only-proxies"),
        pytest.param("10.0.0.1", [b"192.0.2.1, nonsense"], "10.0.0.1", id="nonsense"),
        pytest.param("10.0.0.1", [b"192.0.2.1,"], "10.0.0.1", id="empty"),
        pytest.param("10.0.0.1", [b"192.0.2.1:4711"], "192.0.2.1", id="with-a-port"),
        pytest.param("10.0.0.1", [b"[2001:db8::7]:4711"], "2001:db8::7", id="ipv6-with-a-port"),
        pytest.param("::ffff:10.0.0.1", [b"::ffff:192.0.2.1"], "192.0.2.1", id="ipv4-in-ipv6"),
        pytest.param("2001:db8:ffff::1", [b"2001:db8::7"], "2001:db8::7", id="ipv6-proxy"),
    ],
)
def test_the_last_address_that_is_not_a_proxys_is_the_clients(peer, forwarded, client):
    assert client_address(peer, forwarded, PROXIES) == ip_address(client)


def test_without_trusted_proxies_forwarded_addresses_are_ignored():
    assert client_address("10.0.0.1", [b"192.0.2.1"], ()) == ip_address("10.0.0.1")


def test_a_connection_without_an_address_has_none():
    assert client_address(None, [b"192.0.2.1"], PROXIES) is None


@given(st.ip_addresses(), st.lists(st.binary(max_size=40), max_size=4))
def test_a_client_that_is_not_a_proxy_cannot_choose_its_address(peer, forwarded):
    trusted = parse_networks("192.0.2.1")
    if str(peer) != "192.0.2.1":
        assert client_address(str(peer), forwarded, trusted) == parse_address(str(peer))


@given(st.binary(max_size=60).filter(lambda sent: b"," not in sent), st.ip_addresses(v=4))
def test_entries_before_the_one_of_a_proxy_are_ignored(sent, client):
    if client not in PROXIES[0]:
        assert client_address("10.0.0.1", [sent + b", " + str(client).encode()], PROXIES) == client


@given(st.text(max_size=60))
def test_any_text_is_parsed_to_an_address_or_none(text):
    assert isinstance(parse_address(text), IPv4Address | IPv6Address | None)


@given(st.ip_addresses())
def test_a_written_address_is_parsed_back(address):
    expected = (address.ipv4_mapped or address) if address.version == 6 else address
    assert parse_address(str(address)) == parse_address(f" {address} ") == expected


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_64_share_a_group(address, other):
    neighbour = IPv6Address(int(address) >> 64 << 64 | other)
    assert group_of(address) == group_of(neighbour)
    assert group_of(IPv6Address(int(address) ^ 1 << 64)) != group_of(address)


def test_an_ipv4_address_is_its_own_group_and_no_address_has_one_too():
    assert group_of(ip_address("192.0.2.1")) == "192.0.2.1"
    assert group_of(None) == "unknown"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("service.example", False),
    ],
)
def test_loopback_addresses_are_recognised(host, loopback):
    assert is_loopback(host) is loopback
