"""Results as they change: event streams that are opened again when they are lost."""

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx

from . import exact
from ._generated.models import Result
from .answers import Answer
from .errors import ProblemError, TallyError, UnauthorizedError, UnexpectedAnswerError, error_of
from .exchange import AskToken, Pause, bearer, unreachable

SILENCE_S: Final = 30.0
"""Without an event or heartbeat for so long a stream counts as lost."""
COME_BACK: Final = frozenset((429, 502, 503, 504))
LARGEST_EVENT: Final = 64 << 20
LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True)
class LiveEvent:
    """One event. `result` is there for the event `result`; `data` is what the service sent with any other."""

    event: str
    id: str
    data: dict[str, Any]
    result: Result | None = None


@dataclass(frozen=True)
class Open:
    """Asks for a stream; the answer is None once it is open, else what was answered, or an error."""

    request: dict[str, Any]


@dataclass(frozen=True)
class More:
    """Asks for the next bytes of the open stream; the answer is None at its end."""


class EventReader:
    """Cuts the bytes of a stream into events (HTML, 9.2)."""

    def __init__(self) -> None:
        self._rest = b""
        self._name, self._data = "", list[bytes]()
        self.last_id = ""
        self.retry_s: float | None = None

    def feed(self, piece: bytes) -> Iterator[LiveEvent]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) + sum(map(len, self._data)) > LARGEST_EVENT:
            raise UnexpectedAnswerError(f"an event of more than {LARGEST_EVENT} bytes")
        for line in lines:
            if event := self._line(line.removesuffix(b"\r")):
                yield event

    def _line(self, line: bytes) -> LiveEvent | None:
        if not line:
            return self._event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"event":
                self._name = value.decode()
            case b"id":
                self.last_id = value.decode()
            case b"data":
                self._data.append(value)
            case b"retry" if value.isdigit():
                self.retry_s = int(value[:9]) / 1000
            case _:
                pass
        return None

    def _event(self) -> LiveEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        if not data:
            return None
        try:
            said = exact.loads(b"\n".join(data))
            result = Result.from_dict(said) if name == "result" else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswerError(f"the event {name!r} cannot be read: {error!r}") from error
        return LiveEvent(name, self.last_id, cast("dict[str, Any]", said), result)


Watching = Generator[AskToken | Pause | Open | More | LiveEvent, Any, None]


def watching(url: str, params: dict[str, Any] | None, last_id: str) -> Watching:
    """Keep a stream open until the caller leaves, the metric is gone or the rights end.

    The first refusal is raised. Later the stream is opened again, for a service may restart.
    """
    failures = 0
    first = True
    while True:
        headers = {"Accept": "text/event-stream", **bearer((yield AskToken()))}
        if last_id:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(SILENCE_S)
        outcome = yield Open(
            {"method": "GET", "url": url, "params": params, "headers": headers, "timeout": timeout}
        )
        retry_s: float | None = None
        if isinstance(outcome, Answer):
            if outcome.status == 204:  # gone: do not come back
                return
            if first or outcome.status not in COME_BACK:
                raise error_of(outcome)
            retry_s = outcome.retry_after
        elif isinstance(outcome, httpx.TransportError):
            if first:
                raise unreachable(outcome) from outcome
        else:
            first = False
            reader = EventReader()
            done = yield from _read(reader)
            if done:
                return
            last_id, retry_s = reader.last_id or last_id, reader.retry_s
            failures = 0
        failures += 1
        longest = min(LONGEST_PAUSE_S, 2.0 ** min(failures, 10) / 2)
        yield Pause(retry_s if retry_s is not None else random.uniform(longest / 2, longest))  # noqa: S311 (no secret)


def _read(reader: EventReader) -> Generator[Any, Any, bool]:
    """Pass on the events of an open stream; whether there is no need to come back."""
    while True:
        piece = yield More()
        if piece is None:
            return False
        for event in reader.feed(piece):
            if event.event == "reconnect":
                return False
            if event.event == "denied":
                raise _denied(event)
            yield event
            if event.event == "gone" and "id" not in event.data:
                return True


def _denied(event: LiveEvent) -> TallyError:
    document = {"code": event.data.get("code", "unauthorized"), "detail": event.data.get("message", "")}
    problem: ProblemError = UnauthorizedError(Answer(401, {}, b"", "the event stream"), document)
    return problem
