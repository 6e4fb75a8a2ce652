"""What routes let through from outside: every public route of the gateway, and none of its operators'."""

import pytest

from searchr1.gateway.app import create_app
from searchr1.settings import Settings
from tests.deploy.manifests import CHART, load

REPLICAS = ("", "/{name:path}", "/{name:path}/drain", "/{name:path}/admit")
PRIVATE = {"/metrics", "/healthz", "/readyz", "/health", "/ping", "/version", "/admin/reload", "/admin/keys"}
PRIVATE |= {f"/admin/replicas{way}" for way in REPLICAS}
PATHS = [(one["path"], one["type"]) for one in load(CHART / "values.yaml")["publicPaths"]]


def is_public(path: str) -> bool:
    return any(path == own or (kind == "PathPrefix" and path.startswith(f"{own}/")) for own, kind in PATHS)


@pytest.fixture(scope="module")
def routes() -> set[str]:
    app = create_app(Settings(model="m", retriever="index:none", engine="scripted"))
    return {getattr(route, "path", "") for route in app.routes}


def test_every_route_is_public_or_known_not_to_be(routes: set[str]) -> None:
    assert routes >= PRIVATE
    assert {route for route in routes if not is_public(route) and route != "/assets"} == PRIVATE


def test_every_public_path_has_a_route(routes: set[str]) -> None:
    assert [path for path, _ in PATHS if not any(one == path or one.startswith(f"{path}/") for one in routes)] == []
