"""The client's address: what a trusted proxy says is believed, what anybody can send is not."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.serve.guard import addresses

PROXIES = ("10.0.0.0/8", "fd00::/8", "192.0.2.7")


def request(peer: str | None, *forwarded: str, proto: str | None = None, scheme: str = "http"):
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode()))
    client = None if peer is None else (peer, 1234)
    return {"type": "http", "client": client, "headers": headers, "scheme": scheme}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", (), "203.0.113.5"),
        ("203.0.113.5", ("1.1.1.1",), "203.0.113.5"),  # anybody can send it
        ("10.0.0.1", ("203.0.113.5",), "203.0.113.5"),
        ("10.0.0.1", ("1.1.1.1, 203.0.113.5",), "203.0.113.5"),  # the left one is the client's word
        ("10.0.0.1", ("1.1.1.1", "203.0.113.5"), "203.0.113.5"),  # in two headers
        ("10.0.0.1", ("203.0.113.5, 10.0.0.2, 192.0.2.7",), "203.0.113.5"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),  # a call from inside
        ("10.0.0.1", ("203.0.113.5, garbage",), "10.0.0.1"),
        ("10.0.0.1", ("garbage, 203.0.113.5",), "203.0.113.5"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.5:4711",), "203.0.113.5"),
        ("10.0.0.1", ("[2001:db8::1]:80",), "2001:db8::1"),
        ("fd00::1", ("2001:DB8:0::1",), "2001:db8::1"),
        ("::ffff:10.0.0.1", ("203.0.113.5",), "203.0.113.5"),  # IPv4 on an IPv6 socket
        ("::ffff:203.0.113.5", (), "203.0.113.5"),
        ("fe80::1%eth0", (), "fe80::1"),
        (None, ("1.1.1.1",), "unknown"),
        ("testclient", ("1.1.1.1",), "unknown"),
    ],
)
def test_the_client_is_the_last_address_no_trusted_proxy_has(peer, forwarded, expected):
    assert addresses.client_of(request(peer, *forwarded), PROXIES) == expected


def test_without_trusted_proxies_nothing_is_believed():
    assert addresses.client_of(request("10.0.0.1", "1.1.1.1"), ()) == "10.0.0.1"


def test_a_long_chain_is_followed_only_so_far():
    chain = ", ".join(["203.0.113.5"] + ["10.0.0.2"] * 1000)
    assert addresses.client_of(request("10.0.0.1", chain), PROXIES) == "10.0.0.2"


@settings(max_examples=200)
@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_gives_an_address(value: str):
    ipaddress.ip_address(addresses.client_of(request("10.0.0.1", value), PROXIES))


def test_one_customers_ipv6_addresses_are_one_client():
    keys = {addresses.limit_key(f"2001:db8:1:2:{i:x}::{i:x}") for i in range(1, 50)}
    assert keys == {"2001:db8:1:2::/64"}
    assert addresses.limit_key("2001:db8:1:3::1") not in keys


def test_an_ipv4_address_is_one_client_in_either_form():
    assert addresses.limit_key("203.0.113.5") == "203.0.113.5"
    assert addresses.limit_key("::ffff:203.0.113.5") == "203.0.113.5"
    assert addresses.limit_key("unknown") == "unknown"


@pytest.mark.parametrize(
    ("peer", "proto", "scheme", "expected"),
    [
        ("10.0.0.1", "https", "http", True),
        ("10.0.0.1", "http", "https", False),
        ("10.0.0.1", "https, http", "http", False),
        ("10.0.0.1", None, "https", True),
        ("203.0.113.5", "https", "http", False),
        ("203.0.113.5", None, "https", True),
    ],
)
def test_https_is_what_a_trusted_proxy_or_the_server_says(peer, proto, scheme, expected):
    assert addresses.is_https(request(peer, proto=proto, scheme=scheme), PROXIES) == expected
    assert addresses.is_proxied(request(peer), PROXIES) == peer.startswith("10.")
