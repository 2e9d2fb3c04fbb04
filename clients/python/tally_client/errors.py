"""What can go wrong. Each error says what happened, where, and how to mend it."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ._generated.remedies import REMEDIES
from .answers import Answer

SHOWN: int = 200


class TallyError(Exception):
    """Anything that this client raises on account of the service or the way to it."""


class UnreachableError(TallyError):
    """Nobody answered: a wrong address, a service that does not run, or a broken network."""


class TimedOutError(UnreachableError):
    """The service took the request, and did not answer in time."""


class UnexpectedAnswerError(TallyError):
    """Somebody answered something that Tally does not: another server, a proxy, another version."""

    @classmethod
    def of(cls, answer: Answer, why: str = "") -> "UnexpectedAnswerError":
        media_type = answer.headers.get("content-type", "no media type")
        if 300 <= answer.status < 400:
            why = f"a redirect to {answer.headers.get('location', 'nowhere')}: give that server's address"
        shown = answer.content[:SHOWN].decode(errors="replace")
        said = why or "it is no answer of Tally's API: is the address right?"
        return cls(f"{answer.url} answered {answer.status} ({media_type}): {said}\n{shown}".rstrip())


@dataclass(frozen=True)
class FieldProblem:
    """One wrong input."""

    field: str
    message: str


class ProblemError(TallyError):
    """The service refused: its problem document (RFC 9457). `remedy` says how to mend it."""

    status_codes: ClassVar[tuple[int, ...]] = ()

    def __init__(self, answer: Answer, document: dict[str, Any]) -> None:
        self.status = answer.status
        self.url = answer.url
        self.document = document
        self.code = str(document.get("code", ""))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.remedy = REMEDIES.get(self.code, "")
        self.request_id = str(document.get("request_id", ""))
        self.errors = [
            FieldProblem(str(each.get("field", "")), str(each.get("message", "")))
            for each in cast("list[Any]", document.get("errors") or [])
            if isinstance(each, dict)
        ]
        self.retry_after = answer.retry_after
        fields = "".join(f"\n  {each.field}: {each.message}" for each in self.errors)
        remedy = f"\n{self.remedy}" if self.remedy else ""
        super().__init__(f"{self.status} {self.code}: {self.detail}{fields}{remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        answer = Answer(self.status, {}, b"", self.url)
        return (type(self), (answer, self.document))


class InvalidInputError(ProblemError):
    """422, 400: something in the request is wrong; `errors` names the fields."""

    status_codes = (400, 422)


class UnauthorizedError(ProblemError):
    """401: no token, or one that is not valid."""

    status_codes = (401,)


class ForbiddenError(ProblemError):
    """403: the token lacks a scope."""

    status_codes = (403,)


class NotFoundError(ProblemError):
    """404, 410: there is nothing at this address, or nothing any more."""

    status_codes = (404, 410)


class ConflictError(ProblemError):
    """409, 412: another state than the request starts from."""

    status_codes = (409, 412)


class BusyError(ProblemError):
    """429, 503: not now; `retry_after` is the number of seconds to wait, if the service told it."""

    status_codes = (429, 503)


class UpstreamError(ProblemError):
    """502, 504: the database or another service that is needed failed or took too long."""

    status_codes = (502, 504)


_KINDS: dict[int, type[ProblemError]] = {
    status: kind for kind in ProblemError.__subclasses__() for status in kind.status_codes
}


def error_of(answer: Answer) -> TallyError:
    """The error that an answer stands for, other than 2xx."""
    media_type = answer.headers.get("content-type", "")
    if "json" in media_type:
        try:
            document = answer.json()
        except ValueError:
            document = None
        if isinstance(document, dict):
            members = cast("dict[str, Any]", document)
            if "error" in members:  # the token endpoint's own form (RFC 6749)
                members = {
                    "code": members["error"],
                    "detail": members.get("error_description", ""),
                    "title": members["error"],
                }
            if "code" in members:
                return _KINDS.get(answer.status, ProblemError)(answer, members)
    return UnexpectedAnswerError.of(answer)
