"""The console as people use it: a headless Chromium, driven through Selenium, against real HTTP servers."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.serve.console.browser import VIEWS, Page, start_chromium
from tests.serve.dialects import QWEN
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.runtime.engine import Engine
from rockledge.serve.console import routes
from rockledge.serve.console.model_sheet import model_sheet
from rockledge.serve.console.temperatures import Temperature
from rockledge.serve.limits import Limits
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys
from rockledge.serve.served_model import ServedModel
from rockledge.synth import synth_artifact

pytestmark = pytest.mark.slow

SHEET: dict[str, Any] = {
    "name": "scripted",
    "aliases": ["other"],
    "context": 4096,
    "sampling": {"temperature": 0.7, "top_k": 0, "top_p": 0.95, "min_p": 0.05},
    "family": "llama",
    "parameters": 28512,
    "layers": 3,
    "bytes": 14208,
    "bits_per_weight": 3.98,
    "source": "a.gguf",
    "stored": "GGUF, Q4_1",
    "calibrated": True,
    "notes": ["A note <b>as text</b>."],
    "measured": [
        {"on": "held-out text", "kl_mean_nats": 0.0512, "kl_mean_se_nats": 0.0011, "top1_agreement": 0.912}
    ],
    "matrices": [
        {
            "layer": layer,
            "role": role,
            "rows": 32,
            "cols": 32,
            "bits_per_weight": 4.4,
            "share_by_width": {"4": 0.75, "8": 0.25},
        }
        for layer in range(3)
        for role in ("attn.q", "ffn.down")
    ],
}
OUTLINE = "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth"
MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>[x](javascript:alert(1))'
LONG = "\n\n".join(
    (
        "# Plan",
        "word " * 20 + "w" * 200,
        "- **one**\n- two",
        "```sh\n" + "ls " * 60 + "\n```",
        "| a | b | c | d |\n|---|---|---|---|\n| columnwide | columnwide | columnwide | columnwide |",
    )
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the file."""
    driver = start_chromium()
    yield driver
    driver.quit()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[[str], Page]]:
    """Opens a server's console; after the test nothing bad may have happened on any."""
    pages: list[Page] = []

    def start(url: str) -> Page:
        pages.append(Page(chromium, url))
        return pages[-1]

    yield start
    for page in pages:
        page.check()
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", ONLINE)


ONLINE = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


@pytest.fixture(scope="module")
def scripted(start_server: Callable[..., str]) -> tuple[ScriptedEngine, str]:
    """A scripted engine and its server, with a template that knows thoughts."""
    engine = ScriptedEngine()
    chat = ChatTemplate(QWEN, {})
    options: dict[str, Any] = {"chat": chat, "context": 4096, "aliases": ("other",), "strict": True}
    return engine, start_server(engine, sheets=[SHEET], **options)


@pytest.fixture
def page(scripted: tuple[ScriptedEngine, str], open_page: Callable[[str], Page]) -> Page:
    """The console of the scripted engine."""
    scripted[0].reset()
    return open_page(scripted[1]).ready()


@pytest.fixture
def engine(scripted: tuple[ScriptedEngine, str]) -> ScriptedEngine:
    """The engine of `page`."""
    return scripted[0]


def prompt_of(engine: ScriptedEngine) -> str:
    return bytes(token for token in engine.requests[-1].prompt if token < 256).decode()


def test_an_answer_streams_and_can_be_stopped(page: Page, engine: ScriptedEngine) -> None:
    engine.script, engine.pace = "many words " * 300, 0.005
    page.ask("Tell me")
    first = page.until(lambda: page.text(".turn .text"))
    assert page.count("#stop") == 1
    page.until(lambda: len(page.text(".turn .text")) > len(first))
    page.show("monitor")
    page.show("chat")  # the end stays in view
    heights = "const l = document.getElementById('log'); return [l.scrollHeight, l.clientHeight, l.scrollTop]"
    page.until(lambda: page.script(heights)[2] > 0)
    page.until(lambda: page.script(heights)[0] - sum(page.script(heights)[1:]) < 60)
    page.click("#stop")
    page.until(lambda: "stopped" in page.text(".meta"))
    shown = page.answered()
    assert 0 < len(shown) < len(engine.script)
    page.until(lambda: engine.cancelled)
    engine.reset()
    page.ask("And?")
    assert page.answered() == "Hello, world"
    assert f"assistant\n{shown[:20]}" in prompt_of(engine)
    assert "user\nTell me<" in prompt_of(engine)
    assert "12 tokens" in page.last(".meta")
    page.click("#new-chat")
    assert page.count(".turn") == 0
    page.ask("New")
    page.answered()
    assert "Tell me" not in prompt_of(engine)


def test_everything_works_by_keyboard(page: Page, engine: ScriptedEngine) -> None:
    from selenium.webdriver import Keys as Key

    def focused() -> str:
        return page.script("return document.activeElement.id || document.activeElement.hash || ''")

    def tab_to(wanted: str, key: str = Key.TAB) -> None:
        for _ in range(40):
            page.keys(key)
            assert page.script(OUTLINE) == "solid2px" or focused() == "", focused()
            if focused() == wanted:
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    page.script("document.activeElement.blur(); document.querySelector('.skip').focus()")
    page.keys(Key.ENTER)
    page.until(lambda: focused() == "prompt")
    page.keys("one")
    page.keys(Key.ENTER, held=Key.SHIFT)
    page.keys("two")
    assert page.script("return document.getElementById('prompt').value") == "one\ntwo"
    page.keys(Key.ENTER)
    assert page.answered() == "Hello, world"
    assert "user\none\ntwo<" in prompt_of(engine)
    assert focused() == "prompt"
    engine.script, engine.pace = "many words " * 300, 0.005
    page.keys("again", Key.ENTER)
    page.until(lambda: page.count("#stop"))
    page.until(lambda: page.last(".turn .text"))
    page.keys(Key.ESCAPE)
    page.until(lambda: "stopped" in page.last(".meta"))
    tab_to("system")
    page.keys("Be brief")
    tab_to("use-schema")
    page.script("document.querySelector('.skip').focus()")
    tab_to("#monitor")
    page.keys(Key.ENTER)
    page.until(lambda: page.count("#monitor"))
    tab_to("theme")
    page.keys(" ")
    assert page.script("return document.documentElement.dataset.theme") == "dark"


def test_every_control_has_a_name(page: Page) -> None:
    page.click("#use-schema")
    page.ask("Hi")
    page.until(lambda: page.count(".failure") or page.count(".foot button"))
    for view in VIEWS:
        page.show(view)
        tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = {"button", "link", "textbox", "spinbutton", "checkbox", "combobox", "img", "image", "log"}
        nameless = [
            node["role"]["value"]
            for node in tree
            if not node["ignored"]
            and node["role"]["value"] in roles
            and not node.get("name", {}).get("value")
        ]
        assert nameless == []


def test_markup_of_users_and_models_stays_text(page: Page, engine: ScriptedEngine) -> None:
    engine.script = f"{MARKUP}\n\n- {MARKUP}\n\n```html\n{MARKUP}\n```\n\n**{MARKUP}**"
    page.fill("#system", MARKUP)
    page.ask(MARKUP)
    page.answered()
    assert page.text(".question").endswith(MARKUP)
    assert page.text(".turn .text p") == MARKUP
    assert page.text(".turn .code-block code") == MARKUP
    page.show("model-view")
    assert "A note <b>as text</b>." in page.text("#sheet")
    made = "return document.querySelectorAll('.log img, .log script, .log a, #sheet b').length"
    assert page.script(made) == 0
    assert page.script("return document.title").endswith("Rockledge")


def test_text_cannot_become_markup_even_by_a_mistake(page: Page) -> None:
    """The policy of the page, in case its scripts forget themselves one day."""
    script = """
        const node = document.createElement('div');
        try { node.innerHTML = '<b>x</b>'; return node.innerHTML; } catch (error) { return error.name; }
    """
    assert page.script(script) == "TypeError"
    assert page.driver.get_log("browser")  # Chromium tells of it there


def test_markdown_is_shown(page: Page, engine: ScriptedEngine) -> None:
    engine.script = "\n\n".join(
        (
            "# Title",
            "Some **bold** and *slanted* `code_here` snake_case_name.",
            "1. one\n2. two\n   - in two",
            "> quoted",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "```python\nprint('<hi>')\n```\nend",
        )
    )
    page.ask("Hi")
    page.answered()
    text = ".turn .text "
    assert page.text(text + "h3") == "Title"
    assert (page.text(text + "strong"), page.text(text + "em")) == ("bold", "slanted")
    assert page.text(text + "p > code") == "code_here"
    assert "snake_case_name" in page.text(text + "p")
    assert page.text(text + "ol > li:nth-child(2) > ul > li") == "in two"
    assert page.text(text + "blockquote") == "quoted"
    assert page.text(text + "tbody td:nth-child(2)") == "2"
    assert page.text(text + "pre code") == "print('<hi>')"
    assert page.text(text + "> p:last-child") == "end"


def test_thoughts_are_folded_and_not_sent_back(page: Page, engine: ScriptedEngine) -> None:
    engine.script = "<think>\nSecret plan\n</think>\n\nThe answer"
    page.ask("Hi")
    assert page.answered() == "The answer"
    assert page.text(".thoughts summary").startswith("Thought for")
    assert not page.script("return document.querySelector('.thoughts').open")
    page.click(".thoughts summary")
    assert page.text(".thoughts-text").strip() == "Secret plan"
    page.ask("More")
    page.answered()
    assert "Secret plan" not in prompt_of(engine)


def test_settings_are_sent(page: Page, engine: ScriptedEngine) -> None:
    page.ask("Hi")
    page.answered()
    asked = page.sent()[-1]
    assert set(asked) == {"model", "messages", "stream", "stream_options"}
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0.25")
    page.fill("#max_tokens", "5")
    page.fill("#seed", "7")
    page.ask("Hi")
    assert page.answered() == "Hello"
    assert "cut off" in page.last(".meta")
    asked = page.sent()[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    # The other settings stay the model's own, where the API would have others in their place.
    assert {name: asked[name] for name in ("temperature", "top_p", "top_k", "min_p")} == {
        "temperature": 0.25,
        "top_p": 0.95,
        "top_k": 0,
        "min_p": 0.05,
    }
    assert (asked["seed"], asked["max_tokens"]) == (7, 5)
    page.fill("#temperature", "3")
    count = len(engine.requests)
    page.ask("Hi")
    assert "Temperature" in page.until(lambda: page.text("#sampling-note.wrong"))
    assert page.script("return document.activeElement.id") == "temperature"
    assert len(engine.requests) == count
    page.click("#reset")
    assert page.script("return document.getElementById('system').value") == ""


def test_one_of_several_models_is_chosen(page: Page) -> None:
    assert page.count("#model") == 1
    page.click("#model")
    page.keys("other", "\n")
    page.ask("Hi")
    page.answered()
    assert page.sent()[-1]["model"] == "other"
    assert page.text(".speaker") == "other"
    page.driver.refresh()
    page.ready()
    assert page.script("return document.getElementById('model').value") == "other"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine with a random model."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=11)
    with Engine.load(path, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def toy_url(toy: Engine, start_server: Callable[..., str]) -> str:
    """Its server."""
    model = ServedModel.of(toy.artifact, toy.name, toy.context, toy.chat)
    return start_server(toy, sheets=[model_sheet(model, toy.artifact)])


def test_answers_of_a_real_model_have_the_form_of_a_schema(
    toy_url: str, open_page: Callable[[str], Page]
) -> None:
    page = open_page(toy_url).ready()
    page.click("#use-schema")
    example = json.loads(page.script("return document.getElementById('schema').value"))
    jsonschema.Draft202012Validator.check_schema(example)
    page.ask("Who?")
    answer = page.answered()
    assert page.count(".failure") == 0
    jsonschema.validate(json.loads(answer), example)

    page.fill("#schema", '{"type": "object",')
    page.ask("Who?")
    assert "Not a JSON schema" in page.text("#schema-note")
    assert page.count(".turn") == 1

    page.fill("#schema", '{"type": "string", "not": {"const": "a"}}')
    page.click("#send")
    failure = page.until(lambda: page.text(".failure"))
    assert "The schema was refused" in failure
    assert "not" in page.text("#schema-note.wrong")
    assert "Refused by the server" in page.text("#schema-note")
    assert page.script("return document.activeElement.id") == "schema"
    page.fill("#schema", '{"enum": ["yes", "no"]}')
    page.click(".failure button")
    assert json.loads(page.answered()) in ("yes", "no")
    assert page.count(".failure") == 0


def test_the_model_s_sheet(toy: Engine, toy_url: str, open_page: Callable[[str], Page]) -> None:
    page = open_page(toy_url).ready()
    page.show("model-view")
    assert page.text("#model-title") == "toy"
    assert "The artifact has no report." in page.text(".notice")
    assert page.count(".cell") == len(toy.artifact.linears)
    for name in ("attn.q", "ffn.down"):
        assert name in page.text(".numbers-table")
    assert f"{toy.artifact.bits_per_weight:.2f}" in page.text(".facts")


def test_measurements_are_shown(page: Page) -> None:
    page.show("model-view")
    assert "0.0512 ± 0.0011" in page.text("#sheet")
    assert "91.2 %" in page.text("#sheet")
    assert "Made from a.gguf (GGUF, Q4_1)." in page.text("#sheet")
    assert page.count(".cell") == 6
    title = page.script("return document.querySelector('.cell').title")
    assert title == "layer 0, attn.q: 4.40 bits a weight (4-bit 75 %, 8-bit 25 %)"


def test_refusals_are_shown_with_the_server_s_words(page: Page, engine: ScriptedEngine) -> None:
    engine.refuses = UsageError("the engine cannot do this; ask for something else")
    page.ask("Hi")
    assert "the engine cannot do this; ask for something else" in page.until(lambda: page.text(".failure"))
    engine.refuses = None
    page.click(".failure button")
    assert page.answered() == "Hello, world"
    assert page.count(".failure") == 0
    engine.fail_after = None
    page.script("document.getElementById('prompt').value = 'x'.repeat(4990)")
    page.keys("yz", "\n")
    assert "maximum context length" in page.until(lambda: page.text(".failure"))
    page.ask("Again")  # what had no answer is not part of the conversation
    assert page.answered() == "Hello, world"


def test_a_busy_server_says_so(serving: Callable[..., str], open_page: Callable[[str], Page]) -> None:
    engine = ScriptedEngine()
    engine.script, engine.pace = "many words " * 300, 0.01
    url = serving(engine, sheets=[SHEET], limits=Limits(parallel=1, waiting=0), context=4096)
    first = open_page(url).ready()
    first.script(
        "fetch('/v1/completions', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({prompt: 'Hi', max_tokens: 3000, stream: true})})"
    )
    assert engine.started.wait(10)
    first.ask("Hi")
    failure = first.until(lambda: first.text(".failure"))
    assert "The server cannot answer now" in failure
    assert "already running or waiting" in failure
    engine.pace = 0.0
    first.until(lambda: not engine.open)
    first.click(".failure button")
    first.until(lambda: first.text(".turn .text").startswith("many words"))
    assert first.count(".failure") == 0


def test_a_server_that_is_gone_and_comes_back(page: Page, chromium: Any) -> None:
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", {**ONLINE, "offline": True})
    assert "does not answer" in page.until(lambda: page.text("#banner"))
    page.ask("Hi")
    assert "No connection" in page.until(lambda: page.text(".failure"))
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", ONLINE)
    page.until(lambda: page.count("#banner") == 0)
    page.click(".failure button")
    assert page.answered() == "Hello, world"


def test_a_server_that_ends_in_the_middle_of_an_answer(
    new_server: Callable[..., Any], open_page: Callable[[str], Page]
) -> None:
    engine = ScriptedEngine()
    engine.script, engine.pace = "many words " * 300, 0.01
    server = new_server(engine, sheets=[SHEET], context=4096, limits=Limits(grace_s=0.2))
    page = open_page(server.url).ready()
    page.ask("Hi")
    page.until(lambda: page.text(".turn .text"))
    server.close()
    assert page.until(lambda: page.text(".failure"))
    assert page.text(".turn .text").startswith("many")
    page.until(lambda: page.count("#banner"))


def test_a_key_is_asked_for_and_kept_in_the_tab(
    serving: Callable[..., str], open_page: Callable[[str], Page], tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "home", KeyLimits())
    url = serving(ScriptedEngine(), sheets=[SHEET], safety=Safety(keys=Keys(tmp_path / "keys.json")))
    page = open_page(url)
    page.until(lambda: page.count("#key-dialog"))
    assert page.script("return document.activeElement.id") == "key"
    page.fill("#key", "wrong")
    page.keys("\n")
    assert "not a key of this server" in page.until(lambda: page.text("#key-note"))
    page.fill("#key", key)
    page.keys("\n")
    page.ready()
    assert page.count("#key-dialog") == 0
    page.until(lambda: page.count("#banner") == 0)
    page.ask("Hi")
    assert page.answered() == "Hello, world"
    assert key in page.script("return Object.values(sessionStorage)")
    assert page.script("return localStorage.length") == 0
    page.show("api")
    assert "ROCKLEDGE_KEY" in page.text("#examples")
    assert key not in page.script("return document.documentElement.outerHTML")
    page.driver.refresh()
    page.ready()
    assert page.count("#key-dialog") == 0


def test_plots_follow_the_engine(page: Page, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    page.show("monitor")
    page.until(lambda: "Answers" in page.text("#plots"))
    assert page.count("#plots .card") == 4
    monkeypatch.setattr(routes, "temperatures", lambda: [Temperature("soc-thermal", 47.6)])
    engine.script, engine.pace = "many words " * 300, 0.005
    page.script("document.getElementById('prompt').value = 'Hi'")
    page.script("document.getElementById('composer').requestSubmit()")
    page.until(lambda: page.count("#plots .card") == 5)
    assert "47.6 °C" in page.text("#plots .card:nth-child(5)").replace("\n", " ")
    rate = "return Number.parseFloat(document.querySelector('#plots .now').textContent.replace(',', ''))"
    page.until(lambda: page.script(rate) > 5)
    assert "1 running" in page.text("#status")
    assert page.count("#plots .card:first-child .line") == 1
    label = page.script("return document.querySelector('#plots svg').getAttribute('aria-label')")
    assert label.startswith("Answers, the last three minutes. Now: written ")
    page.script("document.getElementById('stop').click()")
    page.until(lambda: page.text("#status") == "Ready")


def test_the_examples_of_the_api_work(toy_url: str, open_page: Callable[[str], Page]) -> None:
    page = open_page(toy_url).ready()
    page.show("api")
    found = page.script(
        "return [...document.querySelectorAll('#examples h3')].map("
        "(h) => [h.innerText, h.nextElementSibling.querySelector('code').textContent])"
    )
    examples = dict(found)
    python, others = "Python, with the openai package", "Other programs that know the OpenAI API"
    ollama = "Ollama's API"
    assert set(examples) == {"curl", python, others, ollama}
    curl = subprocess.run(["bash", "-c", examples["curl"]], check=True, capture_output=True, text=True)
    assert "chat.completion.chunk" in curl.stdout
    assert curl.stdout.rstrip().endswith("data: [DONE]")
    lines = subprocess.run(
        ["bash", "-c", examples[ollama]], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(lines.splitlines()[-1])["done"]
    program = [sys.executable, "-c", examples[python]]
    assert subprocess.run(program, check=True, capture_output=True, text=True).stdout
    listing = "import openai; print([model.id for model in openai.OpenAI().models.list()])"
    script = f"{examples[others]}\n{sys.executable} -c '{listing}'"
    listed = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert listed.stdout.strip() == "['toy']"


def test_ollama_s_example_is_there_where_its_api_is(page: Page) -> None:
    script = """
        const done = arguments[arguments.length - 1];
        import('/console/examples.js').then((m) => { m.showExamples("it's", ['ollama'], true); done(); });
    """
    page.show("api")
    page.driver.execute_async_script(script)
    text = page.script("return document.querySelector('#examples code:not(.lead code)').textContent")
    assert "/api/chat" in text
    # What the shell hands to curl is the JSON that was meant.
    shown = subprocess.run(
        ["bash", "-c", text.replace("curl", "printf '%s\\n'", 1)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert json.loads(shown[-1])["model"] == "it's"


def test_dark_and_light_by_the_system_and_by_the_switch(page: Page) -> None:
    def is_dark() -> bool:
        colour = page.script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")) < 3 * 128

    assert not is_dark()
    page.theme("dark")
    assert is_dark()
    page.until(lambda: page.script("return document.getElementById('theme').ariaPressed") == "true")
    page.click("#theme")
    assert not is_dark()
    page.driver.refresh()
    page.ready()
    assert not is_dark()
    page.theme("light")
    assert not is_dark()
    page.click("#theme")
    assert is_dark()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, engine: ScriptedEngine, scheme: str) -> None:
    page.theme(scheme)
    assert page.contrast()[0] >= 4.5, page.contrast()
    engine.script = f"<think>\nHm\n</think>\n\n{LONG}"
    page.click("#use-schema")
    page.fill("#schema", "{")
    page.click("#use-schema")
    page.ask("Hi")
    page.answered()
    page.click(".thoughts summary")
    engine.refuses = UsageError("this is refused; do something else")
    page.ask("Hi")
    page.until(lambda: page.text(".failure"))
    page.click("#use-schema")
    page.script("document.getElementById('banner').hidden = false")
    page.script("document.getElementById('banner-text').textContent = 'The server does not answer.'")
    for view in VIEWS:
        page.show(view)
        ratio, text = page.contrast()
        assert ratio >= 4.5, (view, ratio, text)
    page.script("document.getElementById('key-dialog').showModal()")
    page.script("document.getElementById('key-note').textContent = 'Wrong.'")
    ratio, text = page.contrast()
    assert ratio >= 4.5, (ratio, text)


@pytest.mark.parametrize("width", [320, 768, 1440])
def test_no_width_needs_sideways_scrolling(page: Page, engine: ScriptedEngine, width: int) -> None:
    page.window(width, 700)
    engine.script = f"<think>\n{'long' * 100}\n</think>\n\n{LONG}"
    page.ask("word" * 100)
    page.answered()
    page.click(".thoughts summary")
    engine.refuses = UsageError("refused" * 30)
    page.ask("Hi")
    page.until(lambda: page.text(".failure"))
    for view in VIEWS:
        page.show(view)
        assert page.too_wide() == [], view
    page.show("chat")
    if width <= 900:
        page.click("#open-settings")
        assert page.count("#settings") == 1
        assert page.script("return document.activeElement.id") == "close-settings"
        page.click("#use-schema")
        assert page.too_wide() == []
        from selenium.webdriver import Keys as Key

        page.keys(Key.ESCAPE)
        assert page.count("#settings") == 0
        assert page.script("return document.activeElement.id") == "open-settings"
    else:
        assert page.count("#settings") == 1
