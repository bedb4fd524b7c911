"""The console in a headless Chromium: what tests do there, see there, and what must never happen there."""

import json
import shutil
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
WAIT_SECONDS = 60.0
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars", "lang=en")
VIEWS = ("chat", "monitor", "model-view", "api")

# The smallest contrast of visible text against what is behind it, by WCAG 2.2's formula
# (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio), with the text; disabled controls are exempt there.
_CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
function over([r, g, b, alpha = 1], below) {
  return [r, g, b].map((c, i) => c * alpha + below[i] * (1 - alpha));
}
const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [r, g, b] = colour.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
function behind(node) {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
}
const found = [];
function measure(node, colour, text) {
  const ground = behind(node);
  const [a, b] = [light(over(channels(colour), ground)), light(ground)].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), text.trim().slice(0, 60)]);
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const parent = node.parentElement;
  if (!node.textContent.trim() || !parent.checkVisibility()) continue;
  if (parent.closest(':disabled, .unseen, .skip, noscript')) continue;
  measure(parent, getComputedStyle(parent).color, node.textContent);
}
for (const field of document.querySelectorAll('[placeholder]')) {
  if (!field.checkVisibility()) continue;
  measure(field, getComputedStyle(field, '::placeholder').color, field.placeholder);
}
return found.sort((a, b) => a[0] - b[0]);
"""

# What is wider than the window without being inside something that scrolls by itself.
_TOO_WIDE = """
const scrolling = 'pre, .wide, .model-name, textarea, select';
const wide = [...document.querySelectorAll('body *')].filter((node) => {
  if (!node.checkVisibility() || node.closest('.unseen, .skip')) return false;
  for (let at = node.parentElement; at; at = at.parentElement) {
    if (at.matches(scrolling) && getComputedStyle(at).overflowX !== 'visible') return false;
  }
  const box = node.getBoundingClientRect();
  return box.right > innerWidth + 0.5 || box.left < -0.5;
});
const scrolls = [...document.querySelectorAll('.view, .log, .settings, html, body, main')].filter(
  (node) => node.checkVisibility() && node.scrollWidth > node.clientWidth);
return [...wide, ...scrolls].map((node) => `${node.tagName}.${node.className}#${node.id}`);
"""


def start_chromium() -> Any:
    """A driver of Debian's Chromium; the test is skipped where it or Selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra clients")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


class Page:
    """The console of one server in a fresh tab."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url
        driver.get("about:blank")
        self._entries()
        driver.get_log("browser")
        self.window(1280, 860)
        self.theme("light")
        self.requests: list[dict[str, Any]] = []
        driver.get(url)
        driver.execute_script("sessionStorage.clear(); localStorage.clear()")
        driver.get(url)

    def ready(self) -> "Page":
        """Waits until the models are there."""
        self.until(lambda: self.script("return document.title") != "Rockledge")
        return self

    def script(self, text: str, *arguments: Any) -> Any:
        """What JavaScript gives."""
        return self.driver.execute_script(text, *arguments)

    def until(self, done: Callable[[], T]) -> T:
        """What `done` gives as soon as that is true."""
        end = time.monotonic() + WAIT_SECONDS
        while not (found := done()):
            if time.monotonic() > end:
                raise AssertionError(f"it did not come to pass; the page says: {self.text('body')!r}")
            time.sleep(0.03)
        return found

    def text(self, selector: str) -> str:
        """What is seen of the first such element; nothing where it is not there."""
        return self.script(
            "const node = document.querySelector(arguments[0]);"
            "return node?.checkVisibility() ? node.innerText : ''",
            selector,
        )

    def count(self, selector: str) -> int:
        """How many such elements are visible."""
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].filter((n) => n.checkVisibility()).length",
            selector,
        )

    def click(self, selector: str) -> None:
        """Clicks as a person does."""
        self.driver.find_element("css selector", selector).click()

    def fill(self, selector: str, text: str) -> None:
        """Writes into an empty field."""
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys: str, held: str | None = None) -> None:
        """Presses keys where the focus is, while another is held."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver)
        if held is not None:
            actions.key_down(held)
        actions.send_keys(*keys)
        if held is not None:
            actions.key_up(held)
        actions.perform()

    def last(self, selector: str) -> str:
        """What is seen of the last such element."""
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].at(-1)?.innerText ?? ''", selector
        )

    def ask(self, text: str) -> None:
        """Sends a message."""
        self.fill("#prompt", text)
        self.click("#send")

    def answered(self) -> str:
        """The last answer, once it has ended."""
        self.until(lambda: self.count("#stop") == 0 and self.count(".turn"))
        return self.last(".turn .text")

    def show(self, view: str) -> None:
        """Goes to a view by its link."""
        self.click(f'.views a[href="#{view}"]')
        self.until(lambda: self.count(f"#{view}"))

    def window(self, width: int, height: int) -> None:
        """The size of the window; a narrow one is a phone's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, scheme: str) -> None:
        """What the system prefers."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def contrast(self) -> tuple[float, str]:
        """The smallest of any visible text, and that text."""
        ratio, text = self.script(_CONTRAST)[0]
        return ratio, text

    def too_wide(self) -> list[str]:
        """What would have to be scrolled sideways."""
        return self.script(_TOO_WIDE)

    def sent(self) -> list[dict[str, Any]]:
        """The bodies of chat requests so far."""
        self._entries()
        return [
            json.loads(request["postData"])
            for request in self.requests
            if request["url"].endswith("/v1/chat/completions")
        ]

    def check(self) -> None:
        """Nothing was asked of another host, and no script failed or was kept from something."""
        self._entries()
        allowed = (self.url + "/", "about:", "data:", "chrome:")
        strange = [r["url"] for r in self.requests if not r["url"].startswith(allowed)]
        assert self.requests
        assert strange == []
        log = self.driver.get_log("browser")
        # An answer with an error status is an entry too; what the page says then is the tests' matter.
        assert [entry for entry in log if entry["source"] != "network"] == []

    def _entries(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent" and hasattr(self, "requests"):
                self.requests.append(message["params"]["request"])
