from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from loadtests.drills.manifests.balancing import Address, Balancer
from loadtests.drills.site import free_port


class Pods:
    """Servers that say who they are, once for each piece that they get."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.ready: list[Address] = []

    def add(self, name: bytes) -> None:
        listening = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.ready.append(listening.getsockname())
        threading.Thread(target=self._serve, args=(listening, name), daemon=True).start()

    def _serve(self, listening: socket.socket, name: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._answer, args=(connection, name), daemon=True).start()

    def _answer(self, connection: socket.socket, name: bytes) -> None:
        with connection:
            while (asked := connection.recv(100)) and asked != b"go":
                connection.sendall(name)


@pytest.fixture
def pods() -> Iterator[Pods]:
    with contextlib.ExitStack() as stack:
        yield Pods(stack)


@pytest.fixture
def service(pods: Pods) -> Iterator[Address]:
    address = ("127.0.0.1", free_port())
    balancer = Balancer(address, lambda: pods.ready)
    balancer.start()
    yield address
    balancer.stop()


def asked(connection: socket.socket, piece: bytes = b"?") -> bytes:
    connection.sendall(piece)
    return connection.recv(100)


def test_connections_go_to_those_that_are_ready_in_turn(pods: Pods, service: Address):
    for name in (b"a", b"b"):
        pods.add(name)
    found: list[bytes] = []
    for _ in range(4):
        with socket.create_connection(service) as connection:
            found.append(asked(connection))
    assert sorted(found) == [b"a", b"a", b"b", b"b"]


def test_a_connection_stays_where_it_is_while_new_ones_go_elsewhere(pods: Pods, service: Address):
    pods.add(b"old")
    with socket.create_connection(service) as kept:
        assert asked(kept) == b"old"
        pods.add(b"new")
        del pods.ready[0]
        with socket.create_connection(service) as fresh:
            assert asked(fresh) == b"new"
        assert asked(kept) == b"old"


def test_who_is_gone_is_gone_for_the_caller_too(pods: Pods, service: Address):
    pods.add(b"a")
    with socket.create_connection(service) as connection:
        assert asked(connection) == b"a"
        assert asked(connection, b"go") == b""


def test_without_anybody_ready_a_connection_ends(pods: Pods, service: Address):
    with socket.create_connection(service) as connection:
        assert connection.recv(100) == b""


def test_it_stops_with_connections_open(pods: Pods):
    pods.add(b"a")
    address = ("127.0.0.1", free_port())
    balancer = Balancer(address, lambda: pods.ready)
    balancer.start()
    with socket.create_connection(address) as connection:
        assert asked(connection) == b"a"
        balancer.stop()
        assert connection.recv(100) == b""
