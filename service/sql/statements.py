"""Validate a stored statement from its text alone, and prepare it for parameters.

Small texts are parsed in the service's own process. Parsing takes up to 30 microseconds a byte, so worker
processes with limited memory and time (`service.sql.workers`) parse larger texts.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from service.errors import FieldError, InvalidInput, SqlRefused
from service.sql.parameters import Declared, Mode, Template, analyse
from service.sql.validation import UnknownCall, Unread, parse, unparsed, validate_sql

IN_PROCESS_BYTES: Final = 2000


class Submission(Struct, frozen=True, kw_only=True):
    """A statement to parse. If an operator marked it `trusted`, it is not validated.

    `schemas`, `functions` and `database` are the facts about the database that validation needs.
    """

    sql: str
    trusted: bool = False
    declared: dict[str, Declared] = {}
    window: Mode = "auto"
    time_zone: str = "UTC"
    schemas: tuple[str, ...] = ()
    functions: frozenset[str] = frozenset()
    database: str = ""

    @property
    def is_small(self) -> bool:
        return is_small(self.sql)


def is_small(sql: str) -> bool:
    """Whether this process may read a text. Larger ones are read by a process of its own."""
    return len(sql) <= IN_PROCESS_BYTES


class Outcome(Struct, frozen=True):
    """A worker's reply: a template, or the refusal's class and content."""

    template: Template | None = None
    refusal: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    members: dict[str, Any] = {}

    def unwrap(self) -> Template:
        """The template; raises the refusal."""
        if self.template is None:
            raise _REFUSALS[self.refusal](self.detail, errors=self.errors, **self.members)
        return self.template


_REFUSALS: Final = {kind.__name__: kind for kind in (SqlRefused, Unread, UnknownCall, InvalidInput)}


def validate(submission: Submission) -> Template:
    """Raises `SqlRefused` for SQL that may not run, `InvalidInput` for invalid parameter declarations."""
    if submission.trusted:
        statement = unparsed(submission.sql)
    else:
        statement = parse(submission.sql)
        validate_sql(
            statement,
            schemas=submission.schemas,
            functions=submission.functions,
            database=submission.database,
        )
    return analyse(statement, submission.declared, mode=submission.window, time_zone=submission.time_zone)


def answer(request: bytes | Raw) -> bytes:
    """`validate` for a worker process: a submission and its outcome as MessagePack."""
    submission = msgspec.msgpack.decode(request, type=Submission)
    try:
        outcome = Outcome(validate(submission))
    except (SqlRefused, InvalidInput) as problem:
        outcome = Outcome(None, type(problem).__name__, problem.detail, problem.errors, problem.members)
    return msgspec.msgpack.encode(outcome)
