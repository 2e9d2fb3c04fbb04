"""The address that the service listens on: found and held before anything else starts."""

import errno
import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from service.errors import Stop
from service.settings import Server


@contextmanager
def held_address(server: Server) -> Generator[str]:
    """Resolve HOST to an address whose port is free, and hold the port against other programs.

    Raises `Stop`: status 2 if HOST is no address of this machine, 1 if the port cannot be had.
    """
    family, address = _resolved(server)
    with socket.socket(family) as held:
        _bind(held, address, server)
        yield address


def _resolved(server: Server) -> tuple[socket.AddressFamily, str]:
    host = server.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, server.port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Stop(f"HOST={host!r} is no address of this machine: {error}", exit_code=2) from None
    return family, str(found[0][4][0])


def _bind(held: socket.socket, address: str, server: Server) -> None:
    try:
        with socket.create_server((address, server.port), family=held.family):
            pass
        if sys.platform == "linux":  # where the workers share the port with this socket, which never listens
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with suppress(OSError):  # connections of an earlier program are still closing: nothing is held
                held.bind((address, server.port))
    except OSError as error:
        raise _refused(f"{server.host}:{server.port}", error) from None


def _refused(place: str, error: OSError) -> Stop:
    number = error.errno or 0
    if number == errno.EADDRNOTAVAIL:
        return Stop(f"cannot listen on {place}: {os.strerror(number)}; set HOST", exit_code=2)
    mend = {
        errno.EADDRINUSE: "stop what listens there, or set PORT (serve --port)",
        errno.EACCES: "ports below 1024 need a privilege; set PORT (serve --port)",
    }.get(number, "set PORT or HOST")
    return Stop(f"cannot listen on {place}: {os.strerror(number)}; {mend}")
