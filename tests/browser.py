"""A browser for tests: Chromium driven by Playwright, which reports errors and requests that leave the machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, sync_playwright

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"  # for people; git ignores it
SIZES = {"desktop": (1440, 900), "laptop": (1280, 720)}
PHONE = {"phone": (390, 800)}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# Otherwise MLflow opens a panel at the first visit, over what is to be read.
VISITED = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"

# Of MLflow 3.17 itself.
NOISE = "ResizeObserver loop completed with undelivered notifications"
MISSING = ("/users/current",)  # without authentication


class Visit:
    """An open page, and what it has reported."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self._reported)
        page.on("response", lambda response: self._answered(response.status, response.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._requested(request.url))

    def _reported(self, message: ConsoleMessage) -> None:
        # Of a resource that fails to load the response tells more.
        if message.type == "error" and not any(part in message.text for part in ("Failed to load resource", NOISE)):
            self.errors.append(message.text)

    def _answered(self, status: int, url: str) -> None:
        if status >= 400 and not url.endswith(MISSING):
            self.errors.append(f"{status} {url}")

    def _requested(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.foreign.append(url)

    def shoot(self, name: str) -> None:
        """Write a screenshot of what is visible."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def visible_text(self) -> str:
        """The text within the window: elements that are rendered whole, not scrolled away, folded, hidden or faded."""
        return str(self.page.evaluate(_VISIBLE_TEXT))


_VISIBLE_TEXT = """() => {
  const isClipped = (box, element) => {
    for (let each = element; each && each !== document.body; each = each.parentElement) {
      const clip = each.getBoundingClientRect();
      const isOutside = box.bottom > clip.bottom || box.top < clip.top;
      if (getComputedStyle(each).overflowY !== 'visible' && isOutside) return true;
    }
    return false;
  };
  // MLflow lets the end of a long description fade to nothing. Until it has faded by 70 % it can be read.
  const fades = [...document.querySelectorAll('[data-testid=truncation-gradient]')].map(each => [
    each.parentElement, each.getBoundingClientRect()
  ]);
  const isFaded = (range, element) => fades.some(([faded, box]) => faded.contains(element)
    && [...range.getClientRects()].some(line => (line.top + line.bottom) / 2 > box.top + 0.7 * box.height));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (!text) continue;
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const box = range.getBoundingClientRect();
    const parent = walker.currentNode.parentElement;
    const isInside = box.width && box.bottom > 0 && box.top < innerHeight && box.left < innerWidth;
    if (isInside && parent.checkVisibility() && !isClipped(box, parent) && !isFaded(range, parent)) found.push(text);
  }
  return found.join(' ');
}"""


@contextmanager
def chromium() -> Iterator:
    """The browser: that of the system, or else the one that Playwright has installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser, url: str, size: str, *, wait_for: str) -> Iterator[Visit]:
    """Open ``url`` in a window of one of ``SIZES``, until the text ``wait_for`` is there."""
    width, height = (SIZES | PHONE)[size]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(VISITED)
    context.set_default_timeout(120_000)  # ms; the machine may be busy
    try:
        visited = Visit(context.new_page())
        visited.page.goto(url)
        visited.page.get_by_text(wait_for).first.wait_for()
        yield visited
    finally:
        context.close()
