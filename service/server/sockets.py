"""The listening sockets: one for each worker, made by the supervisor.

The kernel spreads connections over them. They stay open while workers come and go, so the connections that
wait to be accepted are not lost with a worker: the next one accepts them.
"""

import os
import socket
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory


def listening(address: str, port: int, number: int, backlog: int) -> list[socket.socket]:
    """Make the sockets of so many workers. Where the kernel does not spread connections, they share one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: list[socket.socket] = []
    for _ in range(number if sys.platform == "linux" else 1):
        made.append(each := socket.socket(family, socket.SOCK_STREAM))
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.bind((address, port))
        each.listen(backlog)
        each.setblocking(False)
        each.set_inheritable(True)
    return made * (number // len(made))


class ListeningSocket:
    """The listening socket of one worker, which its server knows by number and closes when it stops."""

    def __init__(self, sockets: Sequence[socket.socket], index: int) -> None:
        """Close what the worker has inherited for the others, or it would keep the port open for them."""
        own = sockets[index]
        for each in sockets:
            if each is not own:
                each.close()
        self._number = own.detach()

    def close(self) -> None:
        """Take no more connections, and keep those that there are.

        When the server stops, it ends connections whose first request is still on its way. So this comes a
        moment before. The server goes on listening, to a socket that nobody can reach.
        """
        if sys.platform != "linux":
            return
        with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as unreachable:
            unreachable.bind(f"{folder}/nobody")
            unreachable.listen(1)
            unreachable.setblocking(False)
            os.dup2(unreachable.fileno(), self._number)
