"""The store that nodes share: Redis or Valkey. A store that is away, slow or broken is as if there were none.

Each call has a deadline of its own. After a failure nobody asks. From time to time one question tries whether
the store is back. No caller waits for it, so it has the time that connecting needs (TLS, Sentinel, Cluster).
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from service.errors import Stop
from service.observe.events import ConnectionLost, ConnectionRestored, Observe, ignore
from service.redis_url import RedisAddress, parse

DEADLINE_S: Final = 0.05
PAUSE_S: Final = (0.1, 5.0)
CONNECT_S: Final = 1.0
CLOSE_WAIT_S: Final = 1.0
LARGEST: Final = 4 << 20
"""A larger value is not shared: its transfer would take longer than the deadline."""
LEASE_MS: Final = 1500
OPEN_MS: Final = 5000
AT_ONCE: Final = 16
"""Questions and connections at once. The clients for Sentinel and Cluster refuse what is above."""
OPEN: Final = b"open"
"""Instead of a lease: nothing will come, so each node runs on its own."""

Commands = Sequence[tuple[Any, ...]]


class StoreAway(Exception):  # noqa: N818 (it names what happens)
    """The store did not answer in time, or answered with an error."""


class SharedStore:
    """Values and leases by name. Every method raises `StoreAway`, and nothing else, when the store fails."""

    def __init__(self, client: Any, where: str, observe: Observe = ignore) -> None:
        """`client` is a client of redis-py for one server, behind Sentinel or of a Cluster."""
        self._client = client
        self._where = where
        self._observe = observe
        self._asks_again_at = 0.0
        self._pause = 0.0
        self._why = ""
        self._trial: asyncio.Task[None] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def state(self) -> str:
        """`ok`, or why not."""
        return f"no answer from {self._where} ({self._why}): nothing is shared" if self._pause else "ok"

    async def begin(self, name: bytes, lease: bytes) -> tuple[bytes, bytes]:
        """The value of a name (empty if there is none), and the lease that holds: `lease` if it does now."""
        place = _lease(name)
        value, _, holding = await self._ask(
            [
                ("GETRANGE", name, 0, LARGEST),
                ("SET", place, lease, "NX", "PX", LEASE_MS),
                ("GET", place),
            ]
        )
        return value if isinstance(value, bytes) else b"", holding if isinstance(holding, bytes) else b""

    async def extend(self, name: bytes, lease: bytes) -> None:
        """Hold a lease longer. Only its holder may ask, while it has not run out."""
        await self._ask([("SET", _lease(name), lease, "XX", "PX", LEASE_MS)])

    async def publish(self, name: bytes, value: bytes | None, keep_ms: int, *, leading: bool) -> None:
        """Store a value and release the lease; with None, let other nodes run on their own for a while."""
        commands: list[tuple[Any, ...]] = []
        if value is not None:
            commands.append(("SET", name, value, "PX", keep_ms))
        if leading:
            lease = _lease(name)
            commands.append(("DEL", lease) if value is not None else ("SET", lease, OPEN, "PX", OPEN_MS))
        if commands:
            await self._ask(commands)

    async def release(self, name: bytes) -> None:
        await self._ask([("DEL", _lease(name))])

    async def connect(self) -> None:
        """Ask once with a longer deadline, so that no miss waits for connecting."""
        with suppress(StoreAway):
            await self._send([("GET", b"tally:{}")], deadline_s=CONNECT_S)

    async def aclose(self) -> None:
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.wait([self._trial])
        with suppress(Exception):  # a store that is away does not keep the service from its end
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._client.aclose()

    async def _ask(self, commands: Commands) -> list[Any]:
        """Send commands about one name in one round trip."""
        if not self._pause:
            return await self._send(commands, deadline_s=DEADLINE_S)
        loop = asyncio.get_running_loop()
        if loop.time() >= self._asks_again_at and (self._trial is None or self._trial.done()):
            self._trial = loop.create_task(self.connect())
        raise StoreAway

    async def _send(self, commands: Commands, *, deadline_s: float) -> list[Any]:
        try:
            async with asyncio.timeout(deadline_s), self._turns:
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                answers: Any = await pipeline.execute()
            if len(answers) != len(commands):
                raise StoreAway  # noqa: TRY301 (handled like every other failure)
        except Exception as error:  # whatever a broken store makes the client raise
            self._fail(asyncio.get_running_loop().time(), error)
            raise StoreAway from error
        if self._pause:
            self._pause = 0.0
            self._observe(ConnectionRestored("store"))
        return list(answers)

    def _fail(self, now: float, error: Exception) -> None:
        shortest, longest = PAUSE_S
        self._why = _reason(error)
        if not self._pause:
            self._observe(ConnectionLost("store", self._why))
        self._pause = min(max(self._pause * 2, shortest), longest)
        self._asks_again_at = now + self._pause


def _reason(error: BaseException) -> str:
    """Why the store did not answer, in a few words without its address."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {found.verify_message.rstrip('.')}"
        found = found.__cause__ or found.__context__
    name = type(error).__name__
    return "no answer in time" if name == "TimeoutError" else name  # the client has one of its own


def _lease(name: bytes) -> bytes:
    return name + b":lease"


def open_store(url: str, observe: Observe = ignore) -> SharedStore:
    """The store at REDIS_URL. It connects when it is first asked.

    Raises `Stop` without the client, or if a file that the address names cannot be read.
    """
    address = parse(url)
    _check_files(address)
    try:
        from service.results.redis_clients import client_of  # noqa: PLC0415 (an optional dependency)
    except ImportError:
        raise Stop(
            "REDIS_URL needs the `redis` extra: pip install 'tally-metrics[redis]'", exit_code=2
        ) from None
    return SharedStore(client_of(address, connect_s=CONNECT_S, connections=AT_ONCE), address.where, observe)


def _check_files(address: RedisAddress) -> None:
    for name, path in address.options.items():
        if isinstance(path, str):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise Stop(f"REDIS_URL: {name}: cannot read {path}: {error.strerror}", exit_code=2) from None
