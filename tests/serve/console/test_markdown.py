"""The Markdown of the console in a browser: nothing is lost, nothing becomes markup, nothing takes long."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serve.console.browser import Page, start_chromium
from tests.serve.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.slow

TAGS = {
    *("P", "H3", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "HR", "DIV", "SPAN", "BUTTON"),
    *("PRE", "CODE", "STRONG", "EM", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD"),
}
PIECES = (
    *("# ", "## ", "- ", "* ", "1. ", "2) ", "> ", "```", "```py\n", "~~~\n", "`", "``"),
    *("**", "*", "_", "__"),
    *("\n", "\n\n", "  ", "    ", "|", "|---|---|\n", " | "),
    *("---", "<b>", "</script>", "[", "](x)", "&lt;"),
)
SHOW = """
const [texts, done] = arguments;
import('/console/markdown.js').then(({ showMarkdown }) => done(texts.map((text) => {
  const whole = document.createElement('div');
  showMarkdown(whole, text);
  const grown = document.createElement('div');
  for (let end = 1; end <= text.length; end += 3) showMarkdown(grown, text.slice(0, end));
  showMarkdown(grown, text);
  const tags = [...new Set([...whole.querySelectorAll('*')].map((node) => node.tagName))];
  return [whole.textContent, tags, whole.innerHTML === grown.innerHTML];
})));
"""
TIME = """
const [texts, done] = arguments;
import('/console/markdown.js').then(({ showMarkdown }) => done(texts.map((text) => {
  const start = performance.now();
  showMarkdown(document.createElement('div'), text);
  return performance.now() - start;
})));
"""


@pytest.fixture(scope="module")
def page(start_server: Callable[..., str]) -> Iterator[Page]:
    """A page whose scripts can be called."""
    driver = start_chromium()
    yield Page(driver, start_server(ScriptedEngine(), sheets=[]))
    driver.quit()


def texts(chance: random.Random, count: int) -> list[str]:
    """Texts of words and marks in any order; every word occurs once."""
    made = []
    for _ in range(count):
        words = iter(range(1000))
        parts = [
            f"w{next(words)}x" if chance.random() < 0.5 else chance.choice(PIECES)
            for _ in range(chance.randint(1, 40))
        ]
        made.append("".join(parts))
    return made


def show(page: Page, given: list[str]) -> list[Any]:
    page.driver.set_script_timeout(120)
    return page.driver.execute_async_script(SHOW, given)


def test_every_word_is_shown_once_and_in_order(page: Page) -> None:
    seed = random.randrange(1 << 32)
    given = texts(random.Random(seed), 400)
    for text, (shown, tags, same) in zip(given, show(page, given), strict=True):
        words = re.findall(r"w\d+x", text)
        # The language of a code block is shown too, and so are its words only once.
        assert re.findall(r"w\d+x", shown) == words, (seed, text)
        assert set(tags) <= TAGS, (seed, text)
        assert same, (seed, text)


@pytest.mark.parametrize("piece", [*PIECES, "> > ", "- - ", "*a ", "`a", "_a_b", "**a*"])
def test_no_text_takes_long(page: Page, piece: str) -> None:
    page.driver.set_script_timeout(120)
    [milliseconds] = page.driver.execute_async_script(TIME, [piece * (30_000 // len(piece))])
    assert milliseconds < 4000
