"""A real browser on the page: Debian's Chromium, driven by Playwright, watched for what the page must never do."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HERE = Path(__file__).parent
AXE = HERE / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 30_000
"""For what a slow machine shows late; nothing is asserted about time."""

Theme = Literal["light", "dark"]


@dataclass
class Visit:
    """An open page, and what it asked for and complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Console errors (a breach of the content security policy is one) and uncaught exceptions."""

    async def ask(self, question: str) -> None:
        """Type a question and press Enter."""
        await self.page.get_by_label("Your question").fill(question)
        await self.page.get_by_label("Your question").press("Enter")

    async def press(self, button: Locator, *, touch: bool) -> None:
        """Press where a button is now, as a finger or a mouse does: it may move from under what presses it."""
        at = await button.bounding_box()
        assert at is not None
        x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        if touch:
            await self.page.touchscreen.tap(x, y)
        else:
            await self.page.mouse.click(x, y, delay=20)

    async def axe(self) -> list[str]:
        """Return what axe-core finds of serious or critical impact."""
        # Evaluated by the debugger, so that the page's policy, which forbids it, stays in force.
        await self.page.evaluate(axe_source())
        result: dict[str, Any] = await self.page.evaluate("axe.run()")
        return [
            f"{found['id']}: {node['target']} {node['failureSummary']}"
            for found in result["violations"]
            if found["impact"] in ("serious", "critical")
            for node in found["nodes"]
        ]

    async def overflows(self) -> bool:
        """Return True where the page scrolls sideways."""
        wider: bool = await self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wider


def axe_source() -> str:
    """axe-core, installed on first use from this folder's lock."""
    if not AXE.is_file():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HERE, check=True, timeout=120, capture_output=True)
    return AXE.read_text(encoding="utf-8")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Run Chromium until the block ends."""
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=[*FLAGS]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visit(
    browser: Browser,
    url: str,
    *,
    path: str = "/",
    theme: Theme = "light",
    width: int = 1280,
    height: int = 900,
    touch: bool = False,
    patience_ms: int = PATIENCE_MS,
) -> AsyncIterator[Visit]:
    """Open the page in a profile of its own. At the end it must have called nobody but its server."""
    context = await browser.new_context(
        color_scheme=theme,
        reduced_motion="reduce",
        viewport={"width": width, "height": height},
        has_touch=touch,
        is_mobile=touch,
        permissions=["clipboard-read", "clipboard-write"],
    )
    try:
        page = await context.new_page()
        page.set_default_timeout(patience_ms)
        visited = Visit(page, url)
        context.on("request", lambda request: visited.requests.append(request.url))
        page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        page.on("console", lambda message: _note(visited, message))
        await page.goto(url + path)
        yield visited
        assert visited.requests != []
        assert [asked for asked in visited.requests if not asked.startswith((f"{url}/", f"blob:{url}/"))] == []
    finally:
        await context.close()


def _note(visited: Visit, message: ConsoleMessage) -> None:
    if message.type == "error":
        visited.complaints.append(message.text)
