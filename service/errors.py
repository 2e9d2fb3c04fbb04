"""All errors that the service can answer. The docstring is the default message.

`Problem` is what an HTTP caller gets (RFC 9457); `Stop` ends a command with one sentence.
"""

from typing import Any, ClassVar

from msgspec import Struct


class FieldError(Struct, frozen=True):
    """One wrong input of a 422: `field` is a parameter, a JSON path or a column."""

    field: str
    message: str


class Stop(Exception):  # noqa: N818 (it names what happens)
    """Ends a command: one sentence on stderr and this exit status (1 the world, 2 the input)."""

    def __init__(self, sentence: str, *, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Problem(Exception):  # noqa: N818 (RFC 9457's word)
    """Something unexpected happened; the log line with this request id says what."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: tuple[FieldError, ...] = (),
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        """`members` are further fields of the problem document, such as `sqlstate`."""
        super().__init__(detail or (self.__doc__ or ""))
        self.errors = errors
        self.headers = headers or {}
        self.members = members

    @property
    def detail(self) -> str:
        return str(self)

    def document(self, **where: str) -> dict[str, Any]:
        """The problem document (RFC 9457); `where` adds `instance` and `request_id`."""
        document: dict[str, Any] = {
            "type": f"urn:tally:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **where,
            "code": self.code,
            **self.members,
        }
        if self.errors:
            document["errors"] = [{"field": each.field, "message": each.message} for each in self.errors]
        return document


class BadRequest(Problem):
    """The request is not well-formed HTTP."""

    status, code, title = 400, "bad-request", "Bad request"


class Unauthorized(Problem):
    """A bearer token is needed: `Authorization: Bearer <token>`."""

    status, code, title = 401, "unauthorized", "Not authenticated"


class InvalidToken(Unauthorized):
    """The bearer token is not valid."""

    code, title = "invalid-token", "Invalid token"


class Forbidden(Problem):
    """The token lacks the scope that this needs."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(Problem):
    """There is nothing at this address."""

    status, code, title = 404, "not-found", "Not found"


class TokenProblem(Problem):
    """The token request is not well-formed; RFC 6749's error words are the codes of these."""

    status, code, title = 400, "invalid_request", "Invalid token request"


class GrantRefused(TokenProblem):
    """The only grant type is client_credentials."""

    code, title = "unsupported_grant_type", "Unsupported grant type"


class ScopeRefused(TokenProblem):
    """The client may not have that scope."""

    code, title = "invalid_scope", "Invalid scope"


class ClientRefused(TokenProblem):
    """The client is unknown or its secret is wrong."""

    status, code, title = 401, "invalid_client", "Invalid client"


class ClientFailures(TokenProblem):
    """Too many failures: wait the seconds that `Retry-After` names."""

    status, code, title = 429, "temporarily_unavailable", "Too many failures"


class MethodNotAllowed(Problem):
    """This address does not take that method; `Allow` lists those it takes."""

    status, code, title = 405, "method-not-allowed", "Method not allowed"


class NotAcceptable(Problem):
    """No such format: there are json (application/json), csv (text/csv), ndjson (application/x-ndjson)."""

    status, code, title = 406, "not-acceptable", "Not acceptable"


class Conflict(Problem):
    """The change conflicts with what is stored."""

    status, code, title = 409, "conflict", "Conflict"


class NotEditable(Conflict):
    """This metric is marked as not editable."""

    code, title = "not-editable", "Not editable"


class PreconditionFailed(Problem):
    """It was changed by somebody else meanwhile: read it again, then repeat the change."""

    status, code, title = 412, "precondition-failed", "Changed meanwhile"


class SlowBody(Problem):
    """The request's body did not arrive in time (BODY_TIMEOUT_S)."""

    status, code, title = 408, "slow-body", "Request timeout"


class TooLarge(Problem):
    """The request body is larger than allowed."""

    status, code, title = 413, "too-large", "Too large"


class ResultTooLarge(Problem):
    """The result takes more bytes than RESULT_BYTES_LIMIT: select fewer columns or rows."""

    status, code, title = 413, "result-too-large", "Result too large"


class UnsupportedMediaType(Problem):
    """The body's media type is not one that this address reads."""

    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidInput(Problem):
    """The request has wrong or unknown values; `errors` names each."""

    status, code, title = 422, "invalid-input", "Invalid input"


class SqlRefused(InvalidInput):
    """The SQL is not one plain SELECT over the data schemas."""

    code, title = "sql-refused", "SQL refused"


class QueryFailed(InvalidInput):
    """Postgres could not run the stored SQL."""

    code, title = "query-failed", "Query failed"


class NotUnderstood(InvalidInput):
    """The prompt does not ask one thing that the data can answer."""

    code, title = "not-understood", "Not understood"


class TooManyRequests(Problem):
    """Too many requests: wait the seconds that `Retry-After` names."""

    status, code, title = 429, "too-many-requests", "Too many requests"


class UpstreamFailed(Problem):
    """The outside service did not give a usable answer."""

    status, code, title = 502, "upstream-failed", "Upstream failed"


class Busy(Problem):
    """Too many callers are waiting for the database: try again shortly."""

    status, code, title = 503, "busy", "Busy"


class DatabaseUnavailable(Problem):
    """The database cannot be reached right now."""

    status, code, title = 503, "database-unavailable", "Database unavailable"


class MetricSuspended(Problem):
    """Postgres could not stop this SQL in time, twice: it is set aside until it is changed or resumed."""

    status, code, title = 503, "metric-suspended", "Metric suspended"


class IssuerUnavailable(Problem):
    """The token's issuer cannot be asked for its keys right now."""

    status, code, title = 503, "issuer-unavailable", "Issuer unavailable"


class UpstreamUnavailable(Problem):
    """The outside service failed repeatedly and is left alone for a while."""

    status, code, title = 503, "upstream-unavailable", "Upstream unavailable"


class QueryTimeout(Problem):
    """The stored SQL ran longer than STATEMENT_TIMEOUT_MS and was cancelled."""

    status, code, title = 504, "query-timeout", "Query timed out"


class UpstreamTimeout(Problem):
    """The outside service did not answer in time."""

    status, code, title = 504, "upstream-timeout", "Upstream timed out"
