"""Templates that loop or grow without end are stopped, and those that do not are left alone."""

import threading
import time
import tracemalloc

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rockledge.errors import UsageError
from rockledge.model import bounded_template
from rockledge.model.chat import ChatTemplate

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS = [
    LOOP,
    "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n }}{% endmacro %}{{ m(60) }}",
    "{% for i in range(9999) recursive %}{{ loop(range(9999)) if loop.depth < 9 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endset %}",
    "{{ range(99999) | map('replace', '', 'x' * 9999) | map('length') | list | sum }}",
]
GROWING = [
    "{{ 'x' * 10 ** 10 }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ ([0] * 10 ** 9) | length }}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{% for i in range(9999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% set x %}{% for i in range(9999) %}{{ 'x' * 99999 }}{% endfor %}{% endset %}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 9999999999) }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ 'x'.ljust(10 ** 10) }}",
    "{{ 'x' | center(10 ** 10) }}",
    "{{ 'x\n' | indent(10 ** 10) }}",
    "{{ ('x' * 9999999).replace('x', 'y' * 9999) }}",
    "{{ ('x' * 9999999) | replace('x', 'y' * 9999) }}",
    "{{ ('x' * 9999999).join('y' * 9999) }}",
    "{{ range(9999) | map('string') | join('x' * 9999999) }}",
    "{{ range(9) | batch(10 ** 10, 'x') | list }}",
    "{{ [1] | tojson(indent=10 ** 10) }}",
    "{{ lipsum(n=10 ** 9) }}",
    "{{ (5).to_bytes(10 ** 10, 'big') }}",
    "{{ ('x' * 999999).translate({120: 'y' * 9999999}) }}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_what_does_not_end_is_ended(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_template, "SECONDS", 0.1)
    begun = time.thread_time()
    with pytest.raises(UsageError, match=r"it had not ended after 0\.1 s \(line 1 of the template\)"):
        ChatTemplate(source, {}).render([])
    assert time.thread_time() - begun < 1


@pytest.mark.parametrize("source", GROWING)
def test_what_grows_without_end_is_refused_before_it_takes_memory(source: str) -> None:
    template = ChatTemplate(source, {})
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="refuses these messages"):
            template.render([])
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()


def test_others_work_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_template, "SECONDS", 0.3)
    template = ChatTemplate(LOOP, {})

    def render() -> None:
        with pytest.raises(UsageError):
            template.render([])

    thread = threading.Thread(target=render)
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ loop.index }}{{ loop.length }}{{ loop.revindex }}{% endfor %}",
        "{% for m in messages if m.a %}{{ m.a }}{{ loop.index }}{% else %}none{% endfor %}",
        "{% for k, v in {'a': 1}.items() %}{{ k ~ v ~ none ~ 1.5 }}{% endfor %}",
        "{% for x in nothing %}{% endfor %}",
        "{{ 2 ** 10 * 3 % 5 }}{{ '%s-%05d' % ('a', 7) }}{{ '{:>8} {x}'.format('a', x=1) }}{{ [1] + [2] }}",
        "{{ 'a,b'.split(',') | join(';') }}{{ 'aXb' | replace('X', '-') }}{{ 'a\nb' | indent(2) }}",
        "{{ messages | map(attribute='a') | list }}{{ 'x' | center(9) }}{{ 3 | default(100000) }}",
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') + m('b') }}{% set y %}z{% endset %}{{ y }}",
        "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
        "{{ 'abc'.ljust(5) }}{{ 'abc'[:2] }}{{ 'ab'.replace('a', 'cc') }}{{ '-'.join(['a', 'b']) }}",
    ],
)
def test_honest_templates_render_as_in_jinjas_sandbox(source: str) -> None:
    messages = [{"a": 1}, {"a": 0}, {"a": 3}]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    assert ChatTemplate(source, {}).render(messages) == plain.render(messages=messages)
