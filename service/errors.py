"""All errors that the service can answer. The docstring is the default message.

`Problem` is what an HTTP caller gets (RFC 9457); `Stop` ends a command with one sentence. `remedy` says how
to mend it, on the page that the problem's `type` names.
"""

from typing import Any, ClassVar, Final

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
    remedy: ClassVar[str] = "Send `request_id` to whoever runs the service: the log line with it says more."

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

    @property
    def sentence(self) -> str:
        """The wrong fields in one sentence, or the detail if it names none."""
        return "; ".join(f"{each.field}: {each.message}" for each in self.errors) or self.detail

    def document(self, **where: str) -> dict[str, Any]:
        """The problem document (RFC 9457); `where` adds `instance` and `request_id`."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.code}",
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
    remedy = (
        "Look at the request's first line and headers: a proxy or client between has sent something else "
        "than HTTP asks for."
    )


class Unauthorized(Problem):
    """A bearer token is needed: `Authorization: Bearer <token>`."""

    status, code, title = 401, "unauthorized", "Not authenticated"
    remedy = (
        "Send `Authorization: Bearer <token>`. `tally token` prints one on the server's machine; clients "
        "get theirs from `/oauth2/token`."
    )


class InvalidToken(Unauthorized):
    """The bearer token is not valid."""

    code, title = "invalid-token", "Invalid token"
    remedy = (
        "Get a new token: this one has expired, is withdrawn, or was signed by somebody whom this service"
        " does not trust. `detail` says which."
    )


class SignInFailed(Problem):
    """The sign-in at the issuer did not succeed."""

    status, code, title = 403, "sign-in-failed", "Sign-in failed"
    remedy = (
        "Try again. If it lasts, compare `OIDC_CLIENT_ID` and the redirect address `/sign-in/callback` with "
        "what the issuer has registered; `detail` says what it answered."
    )


class Gone(Problem):
    """This link has ended: its time is over, or it was revoked."""

    status, code, title = 410, "gone", "Link ended"
    remedy = "Ask whoever gave you the link for a new one."


class LinkKeyUnusable(Problem):
    """The key that signs links cannot be read or made."""

    status, code, title = 503, "link-key-unusable", "No key for links"
    remedy = "Let the operator look at `LINK_SECRET_FILE`, or at `DATA_DIR` where it is not set."


class Forbidden(Problem):
    """The token lacks the scope that this needs."""

    status, code, title = 403, "forbidden", "Not allowed"
    remedy = (
        "Use a token with the scope that `detail` names. `tally token --scope` and `tally client add "
        "--scope` give scopes."
    )


class NotFound(Problem):
    """There is nothing at this address."""

    status, code, title = 404, "not-found", "Not found"
    remedy = (
        "Compare the id or path with the list: `/api/v1/metrics`, `/api/v1/dashboards`, `/docs`. `detail`"
        " names what is near."
    )


class TokenProblem(Problem):
    """The token request is not well-formed; RFC 6749's error words are the codes of these."""

    status, code, title = 400, "invalid_request", "Invalid token request"
    remedy = "Send a form with `grant_type=client_credentials`, and the client's id and secret by HTTP Basic."


class GrantRefused(TokenProblem):
    """The only grant type is client_credentials."""

    code, title = "unsupported_grant_type", "Unsupported grant type"
    remedy = "Send `grant_type=client_credentials`."


class ScopeRefused(TokenProblem):
    """The client may not have that scope."""

    code, title = "invalid_scope", "Invalid scope"
    remedy = "Ask for scopes that the client has, or for none: then the token gets all of them."


class ClientRefused(TokenProblem):
    """The client is unknown or its secret is wrong."""

    status, code, title = 401, "invalid_client", "Invalid client"
    remedy = (
        "Check id and secret. `tally client add` prints a new secret once; `tally client list` lists the "
        "clients."
    )


class ClientFailures(TokenProblem):
    """Too many failures: wait the seconds that `Retry-After` names."""

    status, code, title = 429, "temporarily_unavailable", "Too many failures"
    remedy = "Wait as long as `Retry-After` says, and check the secret before the next try."


class MethodNotAllowed(Problem):
    """This address does not take that method; `Allow` lists those it takes."""

    status, code, title = 405, "method-not-allowed", "Method not allowed"
    remedy = "Use one of the methods in `Allow`."


class NotAcceptable(Problem):
    """No such format: there are json, csv (text/csv), ndjson (application/x-ndjson), arrow (an extra)."""

    status, code, title = 406, "not-acceptable", "Not acceptable"
    remedy = (
        "Ask for `application/json`, `text/csv`, `application/x-ndjson` or "
        "`application/vnd.apache.arrow.stream`, or give `?format=json`, `csv`, `ndjson` or `arrow`. Arrow "
        "needs the extra `arrow` on the server: `pip install 'tally-metrics[arrow]'`."
    )


class Conflict(Problem):
    """The change conflicts with what is stored."""

    status, code, title = 409, "conflict", "Conflict"
    remedy = "Read what is stored now, then decide again. `detail` says what stands against the change."


class NotEditable(Conflict):
    """This metric is marked as not editable."""

    code, title = "not-editable", "Not editable"
    remedy = "Import a changed definition, or make a metric of your own from its SQL."


class PreconditionFailed(Problem):
    """It was changed by somebody else meanwhile: read it again, then repeat the change."""

    status, code, title = 412, "precondition-failed", "Changed meanwhile"
    remedy = "Read it again, take its new `ETag`, repeat your change with that in `If-Match`."


class SlowBody(Problem):
    """The request's body did not arrive in time (BODY_TIMEOUT_S)."""

    status, code, title = 408, "slow-body", "Request timeout"
    remedy = "Send the body faster, or let the operator raise `BODY_TIMEOUT_S`."


class TooLarge(Problem):
    """The request body is larger than allowed."""

    status, code, title = 413, "too-large", "Too large"
    remedy = "Send less, or let the operator raise `IMPORT_BYTES_LIMIT` for files."


class ResultTooLarge(Problem):
    """The result takes more bytes than RESULT_BYTES_LIMIT: select fewer columns or rows."""

    status, code, title = 413, "result-too-large", "Result too large"
    remedy = "Select fewer columns or rows, aggregate, or let the operator raise `RESULT_BYTES_LIMIT`."


class UnsupportedMediaType(Problem):
    """The body's media type is not one that this address reads."""

    status, code, title = 415, "unsupported-media-type", "Unsupported media type"
    remedy = "Send one of the media types that `detail` names, and say so in `Content-Type`."


class InvalidInput(Problem):
    """The request has wrong or unknown values; `errors` names each."""

    status, code, title = 422, "invalid-input", "Invalid input"
    remedy = "Look at `errors`: each entry names a field and what it should be."


class SqlRefused(InvalidInput):
    """The SQL is not one plain SELECT over the data schemas."""

    code, title = "sql-refused", "SQL refused"
    remedy = (
        "Write one `SELECT` over the data schemas. `detail` and `errors` name the place. SQL that is "
        "known to be good runs after `tally query trust`."
    )


class QueryFailed(InvalidInput):
    """Postgres could not run the stored SQL."""

    code, title = "query-failed", "Query failed"
    remedy = (
        "`detail` has Postgres's own message, `sqlstate` its code, `line` and `column` the place in your SQL."
    )


class NotUnderstood(InvalidInput):
    """The prompt does not ask one thing that the data can answer."""

    code, title = "not-understood", "Not understood"
    remedy = (
        "Say it in other words that the schema knows, one question at a time. `detail` names the word "
        "that is not known."
    )


class TooManyRequests(Problem):
    """Too many requests: wait the seconds that `Retry-After` names."""

    status, code, title = 429, "too-many-requests", "Too many requests"
    remedy = "Wait as long as `Retry-After` says. The operator sets `RATE_LIMIT` and `METRIC_RATE_LIMIT`."


class TooManyStreams(TooManyRequests):
    """This caller has as many live streams open as one caller may: close one."""

    code, title = "too-many-streams", "Too many live streams"
    remedy = "Close streams that nobody looks at. The operator sets `LIVE_STREAMS_PER_CALLER`."


class UpstreamFailed(Problem):
    """The external service did not give a usable answer."""

    status, code, title = 502, "upstream-failed", "Upstream failed"
    remedy = "Try again later; if it lasts, look at the external service."


class Busy(Problem):
    """Too many callers are waiting for the database: try again shortly."""

    status, code, title = 503, "busy", "Busy"
    remedy = (
        "Wait as long as `Retry-After` says. If it happens often: faster SQL, or a larger `READER_POOL_SIZE`."
    )


class LiveUnavailable(Problem):
    """This process takes no more live streams right now: poll meanwhile, and try again later."""

    status, code, title = 503, "live-unavailable", "No more live streams"
    remedy = "Poll meanwhile, and try again after `Retry-After`. The operator sets `LIVE_STREAMS`."


class DatabaseUnavailable(Problem):
    """The database cannot be reached right now."""

    status, code, title = 503, "database-unavailable", "Database unavailable"
    remedy = (
        "Wait as long as `Retry-After` says: the service recovers by itself. `/health` and the log say "
        "what is missing."
    )


class MetricSuspended(Problem):
    """Postgres could not stop this SQL in time, twice: it is set aside until it is changed or resumed."""

    status, code, title = 503, "metric-suspended", "Metric suspended"
    remedy = "Change the SQL so that Postgres can stop it, or run `tally metric resume`."


class IssuerUnavailable(Problem):
    """The token's issuer cannot be asked for its keys right now."""

    status, code, title = 503, "issuer-unavailable", "Issuer unavailable"
    remedy = "Wait as long as `Retry-After` says; check that `OIDC_JWKS_URL` can be reached from the server."


class UpstreamUnavailable(Problem):
    """The external service failed repeatedly and is left alone for a while."""

    status, code, title = 503, "upstream-unavailable", "Upstream unavailable"
    remedy = "Wait as long as `Retry-After` says, and look at the external service."


class QueryTimeout(Problem):
    """The stored SQL ran longer than STATEMENT_TIMEOUT_MS and was cancelled."""

    status, code, title = 504, "query-timeout", "Query timed out"
    remedy = (
        "Make the SQL faster (an index, a shorter period), or let the operator raise `STATEMENT_TIMEOUT_MS`."
    )


class UpstreamTimeout(Problem):
    """The external service did not answer in time."""

    status, code, title = 504, "upstream-timeout", "Upstream timed out"
    remedy = "Try again later; if it lasts, look at the external service."


AUTH_PROBLEMS: Final = frozenset(
    each.code for each in (Unauthorized, InvalidToken, Forbidden, ClientRefused, ClientFailures)
)
"""Codes of the problems of callers whose credentials do not do."""


def all_problems(kind: type[Problem] = Problem) -> list[type[Problem]]:
    """All kinds of problems with a code of their own."""
    own = [kind] if "code" in vars(kind) else []
    return [*own, *(each for below in kind.__subclasses__() for each in all_problems(below))]


def problems_by_code() -> dict[str, type[Problem]]:
    return {each.code: each for each in all_problems()}
