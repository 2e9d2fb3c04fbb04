"""A burst of requests, sent by a process of its own: how long each caller waits for the last byte.

`Burst` runs this file as a program. It sends all requests at once, each on a connection of its own, and
writes what it measured. It uses bare sockets and `epoll`, so that it costs little of the cores which it
shares with the service.
"""

import pickle
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Answer(NamedTuple):
    """The status, and the seconds from the sending to the last byte.

    `worked_s` is the processor time of the worker from the first sending to this last byte.
    """

    status: int
    took_s: float
    worked_s: float


class Burst:
    """A burst in the background. `worker` is the process that answers.

    `opened`: the connections are open before, else each caller opens its own.
    """

    def __init__(self, port: int, worker: int, requests: Sequence[bytes], *, opened: bool) -> None:
        self._process = subprocess.Popen(
            (sys.executable, __file__), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin
        self._process.stdin.write(pickle.dumps((port, worker, list(requests), opened)))
        self._process.stdin.close()

    @property
    def is_done(self) -> bool:
        return self._process.poll() is not None

    def answers(self) -> list[Answer]:
        assert self._process.stdout
        with self._process:
            found = pickle.loads(self._process.stdout.read())  # noqa: S301 (written by ourselves)
        return [Answer(*each) for each in found]


def processor_time(process: int) -> float:
    """The seconds of processor time of a process: the kernel's clock of it (`clock_getcpuclockid`)."""
    return time.clock_gettime((~process << 3) | 2)


def _send_all(port: int, worker: int, requests: list[bytes], opened: bool) -> list[tuple[int, float, float]]:
    poll = select.epoll()
    now = time.perf_counter
    sockets = [socket.socket() for _ in requests]
    if opened:
        _open(sockets, port)
    began = processor_time(worker)
    asked, numbers = [0.0] * len(requests), dict[int, int]()
    for number, each in enumerate(sockets):
        each.setblocking(False)
        numbers[each.fileno()] = number
        asked[number] = now()
        if opened:
            each.send(requests[number])
        else:
            each.connect_ex(("127.0.0.1", port))
        poll.register(each, select.EPOLLIN if opened else select.EPOLLOUT)
    took, worked, buffers = [0.0] * len(requests), [0.0] * len(requests), [b""] * len(requests)
    left = len(requests)
    while left:
        for file, event in poll.poll():
            number = numbers[file]
            if event & select.EPOLLOUT:
                sockets[number].send(requests[number])
                poll.modify(file, select.EPOLLIN)
                continue
            data = sockets[number].recv(1 << 20)
            buffers[number] += data
            if not data or _is_whole(buffers[number]):
                took[number] = now() - asked[number]
                worked[number] = processor_time(worker) - began
                poll.unregister(file)
                left -= 1
    statuses = [int(buffer[9:12] or b"0") for buffer in buffers]
    return list(zip(statuses, took, worked, strict=True))


def _open(sockets: list[socket.socket], port: int) -> None:
    """Connect, and have one answer on each connection, so that the service knows them all."""
    for each in sockets:
        each.connect(("127.0.0.1", port))
        each.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        data = b""
        while not _is_whole(data):
            data += each.recv(1 << 16)
    time.sleep(0.2)  # let the service come to rest


def _is_whole(data: bytes) -> bool:
    end = data.find(_END)
    if end < 0:
        return False
    head = data[: end + 2].lower()
    at = head.find(_LENGTH)
    if at < 0:
        return b"chunked" not in head or data.endswith(b"\r\n0\r\n\r\n")
    return len(data) >= end + len(_END) + int(head[at + len(_LENGTH) : head.index(b"\r", at)])


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(_send_all(*pickle.load(sys.stdin.buffer))))  # noqa: S301 (our own)
