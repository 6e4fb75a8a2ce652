"""Guards of a route: each gets what it asks for, whatever that is, and none is left out."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.security import HTTPBearer
from starlette.testclient import TestClient

from searchr1.gateway.routes.guarded import GuardedRoute

Guard = Callable[..., Any]
_BEARER, _STRICT = HTTPBearer(auto_error=False), HTTPBearer()


def client_of(*guards: Guard, twice: bool = False) -> TestClient:
    """Return a client of an app with one route behind ``guards``, which count their calls in ``app.state.calls``."""
    router = APIRouter(route_class=GuardedRoute, dependencies=[Depends(one) for one in guards] if twice else [])

    @router.get("/", dependencies=[Depends(one) for one in guards])
    async def answer() -> str:
        return "in"

    app = FastAPI()
    app.include_router(router)
    app.state.calls = []
    return TestClient(app)


def refuse_unless_asked_for_x(request: Request) -> None:
    """Refuse a request without the query ``x``."""
    request.app.state.calls.append("x")
    if "x" not in request.query_params:
        raise HTTPException(403)


async def plain(request: Request) -> None:
    refuse_unless_asked_for_x(request)


async def by_another_name(asked: Request) -> None:
    refuse_unless_asked_for_x(asked)


async def documented(request: Request, _: Annotated[object, Security(_BEARER)] = None) -> None:
    refuse_unless_asked_for_x(request)


def without_await(request: Request) -> None:
    refuse_unless_asked_for_x(request)


async def by_header(request: Request, x_key: Annotated[str, Header()] = "none") -> None:
    request.app.state.calls.append("x")
    if x_key != "right":
        raise HTTPException(403)


async def by_query(request: Request, x: Annotated[int, Depends(lambda x=0: int(x))] = 1) -> None:
    request.app.state.calls.append("x")
    if x != 1:
        raise HTTPException(403)


async def by_bearer(request: Request, key: Annotated[object, Security(_BEARER)] = None) -> None:
    request.app.state.calls.append("x")
    if key is None:
        raise HTTPException(403)


async def by_scheme(request: Request, _: Annotated[object, Security(_STRICT)] = None) -> None:
    """Leave it to the scheme, which refuses by itself."""
    request.app.state.calls.append("x")


@pytest.mark.parametrize(
    "guard",
    [plain, by_another_name, documented, without_await, by_header, by_query, by_bearer, by_scheme],
    ids=lambda guard: guard.__name__,
)
@pytest.mark.parametrize("twice", [False, True])
def test_a_guard_refuses_and_lets_in_once_a_request_whatever_it_takes(guard: Guard, twice: bool) -> None:
    client = client_of(guard, twice=twice)
    assert client.get("/").status_code in (401, 403)
    client.app.state.calls.clear()  # type: ignore[attr-defined]
    let_in = client.get("/?x=1", headers={"x-key": "right", "authorization": "Bearer key"})
    assert (let_in.status_code, client.app.state.calls) == (200, ["x"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("guard", [by_header, without_await], ids=lambda guard: guard.__name__)
def test_a_plain_guard_beside_one_that_takes_more_still_refuses(guard: Guard) -> None:
    client = client_of(plain, guard)
    assert client.get("/", headers={"x-key": "right"}).status_code == 403
    assert client.get("/?x=1", headers={"x-key": "right"}).status_code == 200
