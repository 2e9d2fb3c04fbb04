"""Sign-in and sign-out over HTTP."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler

from service.auth.sessions import Sessions
from service.dashboard.pages import HTML, headers
from service.dashboard.sign_in import (
    CALLBACK,
    FLOW_COOKIE,
    FLOW_S,
    SignIn,
    failure,
    flow_of,
    local_address,
    read_form,
)
from service.errors import TokenProblem
from service.http.asgi import field_of
from service.http.requests import Call

Parts = NamedDependency[SignIn]
Following = Annotated[str | None, QueryParameter(name="next", description="where to go afterwards")]

PUBLIC: Final[dict[str, Any]] = {"scope": None}
NO_FIELDS: Final[Mapping[str, str]] = {}


@get("/sign-in", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def sign_in_page(request: Call, sign_in: Parts, following: Following = None) -> Response[str]:
    address = local_address(following)
    if request.scope["state"].get("principal") is not None:
        return _see_other(address)
    return _page(sign_in.form(address))


@post("/sign-in", include_in_schema=False, status_code=303, opt=PUBLIC)
async def by_secret(request: Call, sign_in: Parts) -> Response[str]:
    sign_in.gate.refuse_other_sites(request.scope)
    form = read_form(request.headers.get("content-type", ""), await request.body())
    following = local_address(form.get("next"))
    address = request.scope["state"].get("address") or ""
    try:
        value = await sign_in.by_secret(form, address, _cookies(request), _request_id(request))
    except TokenProblem as problem:
        page = sign_in.form(following, error=failure(problem), client_id=form.get("client_id", ""))
        return _page(page, problem.status, problem.headers)
    return _see_other(following, _session_cookie(sign_in.sessions, value))


@post("/sign-out", include_in_schema=False, status_code=303, opt=PUBLIC)
async def sign_out(request: Call, sign_in: Parts) -> Response[str]:
    sign_in.gate.refuse_other_sites(request.scope)
    await sign_in.sessions.end(_cookies(request), _request_id(request))
    return _see_other("/sign-in", _session_cookie(sign_in.sessions, ""))


@get("/sign-in/issuer", include_in_schema=False, opt=PUBLIC)
async def to_issuer(sign_in: Parts, following: Following = None) -> Response[str]:
    address, flow = await sign_in.code_flow.begin(local_address(following))
    return _see_other(address, _flow_cookie(sign_in.sessions, flow.text()))


@get(CALLBACK, include_in_schema=False, opt=PUBLIC | {"free_query": True})
async def from_issuer(request: Call, sign_in: Parts) -> Response[str]:
    given = request.query_params
    flow = flow_of(request.cookies.get(FLOW_COOKIE), given.get("state"))
    value, page = await sign_in.by_code(flow, given, _cookies(request), _request_id(request))
    cookies = [_session_cookie(sign_in.sessions, value), _flow_cookie(sign_in.sessions, "")]
    return Response(page, media_type=HTML, headers=headers(), cookies=cookies)


def routes() -> list[ControllerRouterHandler]:
    return [sign_in_page, by_secret, sign_out, to_issuer, from_issuer]


def _page(page: str, status: int = 200, more: Mapping[str, str] = NO_FIELDS) -> Response[str]:
    kept = {name: value for name, value in more.items() if name == "Retry-After"}
    return Response(page, media_type=HTML, status_code=status, headers=headers() | kept)


def _see_other(address: str, *cookies: Cookie) -> Response[str]:
    fields = headers() | {"Location": address}
    return Response("", status_code=303, media_type=HTML, headers=fields, cookies=cookies)


def _session_cookie(sessions: Sessions, value: str) -> Cookie:
    """The session's cookie; without a value it is taken back."""
    known = sessions.cookie
    return Cookie(
        key=known.name,
        value=value,
        max_age=known.ttl_s if value else 0,
        secure=known.secure,
        httponly=True,
        samesite="strict",
    )


def _flow_cookie(sessions: Sessions, value: str) -> Cookie:
    # Lax, for the issuer's page sends the browser to the callback.
    return Cookie(
        key=FLOW_COOKIE,
        value=value,
        path=CALLBACK,
        max_age=FLOW_S if value else 0,
        secure=sessions.cookie.secure,
        httponly=True,
        samesite="lax",
    )


def _cookies(request: Call) -> bytes:
    return field_of(request.scope, b"cookie")


def _request_id(request: Call) -> str:
    return cast("Any", request.scope)["state"].get("request_id", "")
