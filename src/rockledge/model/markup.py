"""Rendered prompts as token ids, with control tokens only where the template wrote them.

What users, tools and documents say is data: the name of a control token in it is text like any other. Data
is marked before a template is rendered, with characters that occur nowhere in it, and what the marks break
up is not a control token.
"""

import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import tokenizers

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer

_PRIVATE = range(0xE000, 0xF8F0)  # of Unicode's private use area


class Marks:
    """Two characters that a text does not have: `edge` stands at the ends of data, `inside` within the name
    of a control token in it."""

    def __init__(self, text: str) -> None:
        used = set(text)
        free = [chr(code) for code in _PRIVATE if chr(code) not in used][:2]
        if len(free) < 2:
            raise UsageError("the messages use all characters of Unicode's private use area; leave some out")
        self.edge, self.inside = free

    def without(self, text: str) -> str:
        """`text` as it was before it was marked."""
        return text.replace(self.edge, "").replace(self.inside, "")

    def escaped_in(self, text: str) -> bool:
        r"""Whether a mark was rewritten (as \ue000), so that `without` does not find it."""
        return any(f"\\u{ord(mark):04x}" in text.lower() for mark in (self.edge, self.inside))


class Markup:
    """The control tokens of a model: special ones, and added ones that its chat templates name."""

    def __init__(self, tokenizer: Tokenizer, sources: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        templates = "\n".join(sources)
        self.controls = {
            token.content: number
            for number, token in tokenizer.added_tokens().items()
            if len(token.content) > 1
            and not token.content.isspace()
            and (token.special or token.content in templates)
        }
        """Ids by name."""
        self._pattern = re.compile(_any_of(self.controls)) if self.controls else None
        self._starts = {name[:size] for name in self.controls for size in range(1, len(name))}
        self._ends = {name[size:] for name in self.controls for size in range(1, len(name))}
        self._longest = max(map(len, self.controls), default=0)

    def suspicious(self, text: str, *, edges: bool) -> bool:
        """Whether data has a control token, or, with `edges`, could be a part of one together with what is
        around it."""
        if self._pattern is None or not text:
            return False
        if self._pattern.search(text):
            return True
        if not edges:
            return False
        sizes = range(1, min(self._longest, len(text) + 1))
        return any(text[-size:] in self._starts or text[:size] in self._ends for size in sizes)

    def mark(self, text: str, marks: Marks, *, edges: bool, allowed: Collection[str] = ()) -> str:
        """Data with marks in its control tokens (not in those that are `allowed`) and, with `edges`, at its
        ends, but inside of white space, which templates trim."""
        pieces, done = [], 0
        for match in self._matches(text):
            if match[0] not in allowed:
                pieces += [text[done : match.start() + 1], marks.inside]
                done = match.start() + 1
        marked = "".join([*pieces, text[done:]])
        core = marked.strip()
        if not edges or not core:
            return marked
        start = marked.index(core)
        return f"{marked[:start]}{marks.edge}{core}{marks.edge}{marked[start + len(core) :]}"

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        """Every place where a control token begins, even within another."""
        place = 0
        while self._pattern is not None and (match := self._pattern.search(text, place)) is not None:
            yield match
            place = match.start() + 1

    def encode(self, marked: str, marks: Marks) -> list[int]:
        """Token ids of a rendered text with marks; as the tokenizer's own where these change nothing.

        Raises:
            UsageError: a control token in data cannot be written in other tokens.
        """
        plain = marks.without(marked)
        if self._pattern is None:
            return self._tokenizer.encode(plain, bos=False)
        written = list(self._pattern.finditer(marked))
        if _places(self._pattern.finditer(plain), marks) == _places(written, marks):
            return self._tokenizer.encode(plain, bos=False)
        for broken in (False, True):
            ids = self._literal.encode(marked, marks, written, broken=broken)
            if ids is not None:
                return ids
        raise UsageError("the messages hold a control token that this vocabulary has no other tokens for")

    @cached_property
    def _literal(self) -> "_Literal":
        # Made when it is needed first: it takes as much memory as the tokenizer.
        return _Literal(self._tokenizer, self.controls)


def _places(found: Iterable[re.Match[str]], marks: Marks) -> list[tuple[int, str]]:
    """The matches and where they are, not counting marks."""
    places, end, count = [], 0, 0
    for match in found:
        between = match.string[end : match.start()]
        count += between.count(marks.edge) + between.count(marks.inside)
        places.append((match.start() - count, match[0]))
        end = match.end()
    return places


class _Literal:
    """A tokenizer that takes control tokens for text, except where a stand-in is written instead."""

    def __init__(self, tokenizer: Tokenizer, controls: dict[str, int]) -> None:
        content = json.loads(tokenizer.rules_text())
        nonce = secrets.token_hex(8)  # so that nobody can write a stand-in
        self._ids = controls
        self._stand_ins = {name: f"\uf8f2{nonce}.{number}\uf8f3" for name, number in controls.items()}
        self._break = f"\uf8f2{nonce}\uf8f3"
        added = [tokenizers.AddedToken(self._break, normalized=False)]
        for token in content["added_tokens"]:
            if token["content"] in controls:
                token["special"] = True
                flags = {key: token[key] for key in ("single_word", "lstrip", "rstrip", "normalized")}
                added.append(tokenizers.AddedToken(self._stand_ins[token["content"]], special=False, **flags))
        self._rules: Any = tokenizers.Tokenizer.from_str(json.dumps(content))
        self._rules.add_tokens(added)
        self._rules.encode_special_tokens = True
        self._meant = {self._rules.token_to_id(self._stand_ins[name]): i for name, i in controls.items()}
        self._break_id = self._rules.token_to_id(self._break)

    def encode(
        self, marked: str, marks: Marks, written: list[re.Match[str]], *, broken: bool
    ) -> list[int] | None:
        """Ids of the text, `written` being its control tokens; None when others came of it. `broken`: names
        of control tokens are encoded in two halves, for vocabularies where one is an ordinary piece too."""
        pieces, done = [], 0
        for match in written:
            pieces += [marked[done : match.start()], self._stand_ins[match[0]]]
            done = match.end()
        text = "".join([*pieces, marked[done:]]).replace(marks.edge, "")
        text = text.replace(marks.inside, self._break if broken else "")
        found = self._rules.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids
        if not set(found).isdisjoint(self._ids.values()):
            return None
        return [self._meant.get(token, token) for token in found if token != self._break_id]


def _any_of(names: Iterable[str]) -> str:
    """A regular expression of the names that takes the longest, in time that does not grow with their
    number: shared beginnings are written once."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[""] = {}
    return _expression(tree)


def _expression(node: dict[str, Any]) -> str:
    """Of a node of the tree of names."""
    branches = []
    for character, rest in node.items():
        if character:
            text, below = character, rest
            while len(below) == 1 and "" not in below:  # a stretch without branches
                [(character, below)] = below.items()
                text += character
            branches.append(re.escape(text) + _expression(below))
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if '' in node else ''}"
