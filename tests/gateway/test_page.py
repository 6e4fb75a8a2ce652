"""What a browser opens: served under the page's policy, with nothing from elsewhere, and open without a key."""

import re
from typing import Any

import httpx
import pytest

from searchr1.demo.bundle import ABOUT, EXAMPLES
from searchr1.gateway.routes.page import WEB

from .conftest import MODEL, Stage, running_stage

NO_CODE_BUT_ITS_OWN = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
SERVED = ["/", "/docs", "/openapi.json", "/page.json", *(f"/assets/{path.name}" for path in sorted(WEB.iterdir()))]
NOTHING_SET: dict[str, Any] = {
    "model": MODEL,
    "about": None,
    "examples": [],
    "needs_key": False,
    "run_ttl_s": 86_400,
    "has_docs": True,
}


@pytest.mark.parametrize("path", SERVED)
async def test_every_page_is_served_under_the_policy(stage: Stage, path: str) -> None:
    response = await stage.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == NO_CODE_BUT_ITS_OWN
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect"])
async def test_the_framework_serves_no_pages_of_its_own(stage: Stage, path: str) -> None:
    assert (await stage.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {}),
        ({"page_about": ABOUT, "page_examples": EXAMPLES}, {"about": ABOUT, "examples": list(EXAMPLES)}),
        ({"api_keys": ["secret"]}, {"needs_key": True}),
        ({"tenant_keys": {"a": ["secret"]}}, {"needs_key": True}),
        ({"store_runs": False}, {"run_ttl_s": None}),
        ({"ops_port": 9}, {"has_docs": False}),
    ],
)
async def test_the_page_is_told_what_it_shows(settings: dict[str, Any], told: dict[str, Any]) -> None:
    async with running_stage(**settings) as stage, httpx.AsyncClient(base_url=stage.url) as keyless:
        response = await keyless.get("/page.json")
        assert response.json() == {**NOTHING_SET, **told}
        assert "secret" not in response.text


async def test_the_page_leads_to_the_documentation_of_the_api(stage: Stage) -> None:
    page = (await stage.client.get("/")).text
    links = re.findall(r'<a href="([^":]*)" id="docs-link" hidden>API documentation</a>', page)
    assert [(await stage.client.get(f"/{link}")).status_code for link in links] == [200]
