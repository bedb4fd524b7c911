"""The console of `rockledge serve` with the demo's model, which makes the pictures of docs/console.md."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.console.browser import Page, start_chromium

from rockledge.cli.demo_model import demo_path

pytestmark = pytest.mark.slow

QUESTION = "List three things to check before a long hike."
MOST_BYTES = 200_000


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The console of a server process. With --console-model it serves that artifact."""
    model = request.config.getoption("--console-model") or demo_path()
    if not Path(model).exists():
        pytest.skip("needs the demo's model; `rockledge demo` fetches it")
    driver = start_chromium()
    flags = ["--port", "0", "--json", "--npu", "off", "--ctx", "2048"]
    command = [sys.executable, "-m", "rockledge", "serve", str(model), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            page = Page(driver, json.loads(process.stdout.readline())["url"]).ready()
            yield page
            page.check()
        finally:
            driver.quit()
            process.terminate()


def test_a_real_model_answers_and_the_pictures_are_small(
    page: Page, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    out = Path(request.config.getoption("--console-pictures") or tmp_path)
    page.fill("#system", "You are a helpful assistant. Answer briefly.")
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "400")
    page.ask(QUESTION)
    answer = page.answered()
    assert "\n" in answer
    assert page.count(".failure") == 0
    page.until(lambda: page.text("#status") == "Ready")

    page.driver.save_screenshot(str(out / "console-light.png"))
    page.window(360, 720)
    page.driver.save_screenshot(str(out / "console-phone.png"))
    page.window(1280, 860)
    page.theme("dark")
    page.show("model-view")
    assert page.count(".cell") > 200
    page.driver.save_screenshot(str(out / "console-dark.png"))
    for name in ("light", "dark", "phone"):
        assert 5000 < (out / f"console-{name}.png").stat().st_size < MOST_BYTES
