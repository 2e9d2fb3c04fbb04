"""Results as they change: event streams that are opened again when they are lost."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import httpx

from . import exact
from ._generated.models import Result
from .answers import Answer
from .errors import ProblemError, TallyError, UnauthorizedError, UnexpectedAnswerError, error_of
from .exchange import LONGEST_PAUSE_S, AskToken, Pause, bearer, pause, unreachable

SILENCE_S: Final = 30.0
"""Without an event or heartbeat for so long a stream counts as lost."""
COME_BACK: Final = frozenset((429, 502, 503, 504))
LARGEST_EVENT: Final = 64 << 20
GONE: Final = 204


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
        self._rest = bytearray()
        self._name, self._data = "", list[bytes]()
        self.last_id = ""
        self.retry_s: float | None = None

    def feed(self, piece: bytes) -> Iterator[LiveEvent]:
        if len(self._rest) + len(piece) + sum(map(len, self._data)) > LARGEST_EVENT:
            raise UnexpectedAnswerError(f"an event of more than {LARGEST_EVENT} bytes")
        self._rest += piece
        if b"\n" not in piece:
            return
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
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
                self.retry_s = min(int(value[:9]) / 1000, LONGEST_PAUSE_S)
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
    failures, first = 0, True
    while True:
        token = bearer((yield AskToken()))
        outcome = yield _opening(url, params, token, last_id)
        if isinstance(outcome, Answer) and outcome.status == GONE:
            return
        if outcome is None:
            failures, first = 0, False
            reader = EventReader()
            end = yield from _read(reader)
            if end == "gone":
                return
            if isinstance(end, TallyError) and bearer((yield AskToken())) == token:
                raise end
            last_id = reader.last_id or last_id
            retry_s = 0.0 if isinstance(end, TallyError) else reader.retry_s
        else:
            retry_s = _come_back(outcome, first=first)
        failures += 1
        yield Pause(pause(failures) if retry_s is None else retry_s)


def _opening(url: str, params: dict[str, Any] | None, token: dict[str, str], last_id: str) -> Open:
    resume = {"Last-Event-ID": last_id} if last_id else {}
    headers = {"Accept": "text/event-stream", **token, **resume}
    timeout = httpx.Timeout(SILENCE_S)
    return Open({"method": "GET", "url": url, "params": params, "headers": headers, "timeout": timeout})


def _come_back(outcome: Answer | httpx.TransportError, *, first: bool) -> float | None:
    """When to come back, if the service told; raises what lasts, and whatever is the first answer."""
    if isinstance(outcome, httpx.TransportError):
        if first:
            raise unreachable(outcome) from outcome
        return None
    if first or outcome.status not in COME_BACK:
        raise error_of(outcome)
    return None if outcome.retry_after is None else min(outcome.retry_after, LONGEST_PAUSE_S)


def _read(reader: EventReader) -> Generator[Any, Any, TallyError | Literal["gone", "lost"]]:
    """Pass on the events of an open stream; why it ended."""
    while True:
        piece = yield More()
        if piece is None:
            return "lost"
        for event in reader.feed(piece):
            if event.event == "reconnect":
                return "lost"
            if event.event == "denied":
                return _denied(event)
            yield event
            if event.event == "gone" and "id" not in event.data:
                return "gone"


def _denied(event: LiveEvent) -> TallyError:
    document = {"code": event.data.get("code", "unauthorized"), "detail": event.data.get("message", "")}
    problem: ProblemError = UnauthorizedError(Answer(401, {}, b"", "the event stream"), document)
    return problem
