"""Text of HTML pages: what a reader reads is there, in its order; what surrounds it is not."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.html_text import html_text

_PAGE = b"""<!DOCTYPE html><html><head><title>Site - Spindle</title><style>p { color: red }</style>
<script>var hidden = 1;</script></head><body class="toc">
<header><a href="/">Home</a></header><nav><ul><li>Menu</li></ul></nav>
<div id="toc"><ul><li>Contents</li></ul></div>
<h1>The  spindle<a class="headerlink" href="#x">\xc2\xb6</a></h1>
<p>Speed is set
by <code>S</code> words.<!-- a remark --><br>Second&nbsp;line, a soft\xc2\xadhyphen.</p>
<pre>M3 S1200
  G1  X10
</pre>
<h2>Limits</h2>
<ul><li>first</li><li><p>second</p><ol><li>inner</li><li>more</li></ol></li></ul>
<table><thead><tr><th>Pin</th><th>Type</th></tr></thead>
<tr><td>speed</td><td>float <b>32</b></td></tr></table>
<table><tr><td>Note</td><td><p>Layout.</p><pre>a
b</pre></td></tr></table>
<dl><dt>RPM</dt><dd>Turns a minute.</dd></dl>
<footer>Copyright</footer></body></html>"""

_TEXT = """# The spindle

Speed is set by S words.
Second line, a softhyphen.

```
M3 S1200
  G1  X10
```

## Limits

- first
- second

  1. inner
  2. more

Pin | Type
speed | float 32

Note

Layout.

```
a
b
```

RPM
Turns a minute.
"""


def test_a_page_as_text() -> None:
    title, text = html_text(_PAGE)
    assert title == "The spindle"
    assert text == _TEXT


def test_the_main_part_is_taken_where_a_page_names_one() -> None:
    page = b"<title>T</title><body><p>around</p><main><header>by me</header><p>inside</p></main></body>"
    assert html_text(page) == ("T", "by me\n\ninside\n")
    assert html_text(b"<p>around</p><div role='main'>inside</div>") == (None, "inside\n")


def test_encodings_are_those_that_a_page_states() -> None:
    assert html_text('<meta charset="iso-8859-1"><p>Fräse'.encode("latin-1"))[1] == "Fräse\n"
    assert html_text("<p>Fräse".encode())[1] == "Fräse\n"
    assert html_text("<p>Fräse".encode("utf-16"))[1] == "Fräse\n"


def test_pages_that_are_nested_without_end_are_read() -> None:
    assert "deep" in html_text(b"<div>" * 5000 + b"deep")[1]


@given(st.binary(max_size=300) | st.text("<>/!-pretdivhlo&#x; \n\"='", max_size=300).map(str.encode))
def test_any_bytes_give_text_or_a_reason(content: bytes) -> None:
    with suppress(ValueError):
        title, text = html_text(content)
        assert title is None or title.strip()
        assert not text or text.endswith("\n")


@pytest.mark.parametrize("words", ["a plain text", "a &lt; b", "x<y"])
def test_text_without_tags_is_kept(words: str) -> None:
    assert html_text(words.encode())[1].startswith(words.replace("&lt;", "<")[:1])
