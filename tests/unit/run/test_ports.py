"""Fresh ports and listeners, on sockets of this process."""

from __future__ import annotations

import os
import socket

import pytest

from fairway.run import ports


@pytest.fixture
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_is_handed_out_once_until_it_is_given_back():
    pool = ports.PortPool(21000, 21002)
    taken = {pool.take() for _ in range(3)}
    assert taken == {21000, 21001, 21002}
    with pytest.raises(ports.PortsExhausted, match="21000 to 21002"):
        pool.take()
    pool.give_back(21001)
    assert pool.take() == 21001


def test_a_port_in_use_is_passed_over(listener):
    pool = ports.PortPool(listener, listener)
    with pytest.raises(ports.PortsExhausted):
        pool.take()
    assert not ports.is_free(listener)


def test_fresh_ports_lie_below_the_ephemeral_range():
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        start = int(file.read().split()[0])
    assert ports.PortPool().take() < start


def test_the_listener_is_told_from_a_stranger(listener):
    assert ports.listener_among(listener, [os.getpid()]) is True
    assert ports.listener_among(listener, []) is False
    assert ports.listener_among(1, [os.getpid()]) is None


def test_the_kernel_and_its_tables_agree(listener):
    wanted = listener
    asked = {found for found in ports._listeners() if found[0] == wanted}
    read = {found for found in ports._read_tables() if found[0] == wanted}
    assert asked == read
    assert len(asked) == 1
    assert ports.listening_ports([os.getpid()]) >= {wanted}


def test_somebody_or_nobody(listener):
    assert ports.Listeners().has(listener)
    assert not ports.Listeners().has(ports.PortPool().take())


def test_the_holder_of_a_port_is_named(listener):
    held = ports.holder(listener)
    assert held is not None
    assert held.pid == os.getpid()
    assert str(os.getpid()) in str(held)


def test_an_address_of_ipv6_is_asked_for_as_one():
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    port = listener.getsockname()[1]
    with listener:
        assert not ports.is_free(port, "::1")
    assert ports.is_free(port, "::1")
