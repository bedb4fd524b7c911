"""What an answer has to look like, as plain data, and the grammar that llguidance makes of it.

llguidance (https://github.com/guidance-ai/llguidance) is an optional package, imported when the first
constraint comes. A constraint is compiled twice: where requests are read, over single bytes, so that a bad
one is refused before anything waits for it; and by the engine over the model's tokens. A compiled matcher
cannot cross a process boundary, what could is little more than the text, and compiling takes about a
millisecond.

Its limits are numbers of items, not seconds, so that a request fails in the same place on every machine. What
they leave open is closed here: references that lead to references use up the stack (llguidance 1.9.1 ends the
process after about 1,500), so their number is bounded and compiling has a deep stack.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rockledge.errors import UsageError
from rockledge.runtime.constraints.closed_schema import closed
from rockledge.runtime.constraints.schema_bounds import check_schema, objects
from rockledge.runtime.constraints.schema_meaning import as_llguidance_reads

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

ConstraintKind = Literal["json_schema", "json", "regex", "lark", "gbnf", "choice"]

MOST_BYTES = 64 * 1024
"""Of a constraint's text: 2,000 properties or 5,000 choices, which compile within about a second."""

MOST_RULES = 1000
"""Of a grammar; llguidance follows a chain of rules by recursion."""

STACK_BYTES = 64 << 20
"""Of a thread that compiles; address space only until it is used."""

STEP_FUEL = 50_000
"""Of llguidance's lexer in a step, a fourth of its own limit: a mask then takes tens of milliseconds at
worst, and schemas from practice need a tenth of it."""

MOST_SYMBOLS = 100_000
"""Of a compiled grammar."""

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

_NAMES: dict[ConstraintKind, str] = {
    "json_schema": "JSON schema",
    "json": "JSON object",
    "regex": "regular expression",
    "lark": "grammar",
    "gbnf": "grammar",
    "choice": "list of choices",
}

_RULE = re.compile(r"^\s*[?!]?[A-Za-z_][\w-]*[^:\n]*:", re.MULTILINE)
_NESTED = re.compile(r"%(json|lark)\b")

T = TypeVar("T")


@dataclass(frozen=True)
class Constraint:
    """`text` is a JSON schema, a regular expression (of the whole answer), a grammar as Lark or llama.cpp's
    GBNF, or a JSON list of strings; of "json", which is any object, nothing."""

    kind: ConstraintKind
    text: str = ""


def check_constraint(constraint: Constraint) -> None:
    """Raises UsageError, one sentence, for a constraint that cannot be used: unsupported, impossible,
    endless or too large. Takes up to about a second, without the GIL."""
    matcher = compile_constraint(constraint, _bytes_as_tokens)
    forced = matcher.compute_ff_tokens()
    if matcher.consume_tokens(forced) and not matcher.is_stopped():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise UsageError(_sentence(constraint.kind, matcher.get_error()))


def require_llguidance() -> None:
    """UsageError where llguidance is not installed."""
    try:
        import llguidance  # noqa: F401
    except ImportError:
        raise UsageError(
            "answers of a given form need the package llguidance, which is not installed; "
            "run: pip install 'rockledge[grammar]'"
        ) from None


def compile_constraint(constraint: Constraint, tokenizer: "Callable[[], LLTokenizer]") -> "LLMatcher":
    """The matcher at the beginning of an answer in the tokens of `tokenizer`. Raises UsageError."""
    require_llguidance()
    size = len(constraint.text.encode(errors="replace"))
    if size > MOST_BYTES:
        raise UsageError(
            f"the {_NAMES[constraint.kind]} has {size} bytes, expected at most {MOST_BYTES}; make it smaller"
        )

    def compiled() -> "LLMatcher":
        try:
            grammar = _grammar(constraint)
        except ValueError as error:
            raise UsageError(_sentence(constraint.kind, str(error))) from None
        return _matcher(tokenizer(), grammar)

    matcher = _with_deep_stack(compiled)
    if matcher.is_error():
        raise UsageError(_sentence(constraint.kind, matcher.get_error()))
    return matcher


def too_complex(reason: str) -> str:
    """The sentence for an answer that cannot go on: its grammar's limits are reached, or nothing may follow
    although it is not whole."""
    if "NoExtensionBias" in reason:
        return "nothing fits the answer's grammar any more; it contradicts itself or never ends"
    return f"the answer's grammar became too complex to go on ({_first_reason(reason)}); make it simpler"


def _grammar(constraint: Constraint) -> str:
    """llguidance's own form of a constraint. Raises UsageError or ValueError."""
    from llguidance import LLMatcher

    text = constraint.text
    if constraint.kind == "json":
        return _of_schema({"type": "object"})
    if constraint.kind == "json_schema":
        schema = _parsed(text, "json_schema")
        schema = {} if schema is True else schema
        check_schema(schema)
        schema = as_llguidance_reads(schema)
        _check_exclusive_bounds(schema)
        return _of_schema(closed(schema))
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    if constraint.kind == "choice":
        choices = _parsed(text, "choice")
        if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
            raise UsageError("the list of choices must be a JSON list of at least one string")
        return LLMatcher.grammar_from_lark(f"start: {' | '.join(map(_literal, dict.fromkeys(choices)))}")
    return LLMatcher.grammar_from_lark(_lark(constraint))


def _of_schema(schema: Any) -> str:
    """The grammar of a JSON schema, written as json.dumps writes: white space that the model may choose is
    white space without an end. Raises ValueError."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(
        json.dumps(schema),
        overrides={
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
            "lenient": False,
        },
    )


def _matcher(tokenizer: "LLTokenizer", grammar: str) -> "LLMatcher":
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(step_lexer_fuel=STEP_FUEL, max_grammar_size=MOST_SYMBOLS)
    return LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _check_exclusive_bounds(schema: Any) -> None:
    """Raises UsageError where a number could be the very bound that is excluded: llguidance 1.9.1 lets the
    whole number 0 or 1 through in ranges such as 0 to 0.5."""
    for node in objects(schema):
        bounds = {name: node[name] for name in _BOUNDS if type(node.get(name)) in (int, float)}
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            bound = bounds.get(name)
            if bound is None or bound != bound // 1 or node.get("type") == "integer":
                continue
            grammar = _of_schema({"type": "number", **bounds})
            for text in {f"{bound:.0f}", "-0" if bound == 0 else f"{bound:.0f}"}:
                matcher = _matcher(_bytes_as_tokens(), grammar)
                if matcher.consume_tokens(list(text.encode())) and matcher.is_accepting():
                    raise UsageError(
                        f"the JSON schema has {name!r} {bound:g}, which is not supported with its other "
                        "bound; use one that is not exclusive"
                    )


def _literal(text: str) -> str:
    """A string of Lark: JSON's, and DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _lark(constraint: Constraint) -> str:
    """A grammar in llguidance's dialect of Lark. Raises UsageError."""
    text = constraint.text
    if constraint.kind == "gbnf":
        from llguidance.gbnf_to_lark import any_to_lark

        try:
            text = any_to_lark(text)
        except (Exception, RecursionError) as error:  # it raises nothing more specific
            raise UsageError(_sentence("gbnf", str(error))) from None
    if found := _NESTED.search(text):
        raise UsageError(f"the grammar uses %{found[1]}, which is not supported; leave it out")
    if len(_RULE.findall(text)) > MOST_RULES:
        raise UsageError(f"the grammar has more than {MOST_RULES} rules; make it smaller")
    return text


def _parsed(text: str, kind: ConstraintKind) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UsageError(f"the {_NAMES[kind]} is nested too deeply; make it flatter") from None
    except ValueError as error:
        raise UsageError(f"the {_NAMES[kind]} is not JSON: {error}") from None


def _sentence(kind: ConstraintKind, reason: str) -> str:
    """What llguidance says, as one sentence that names what is not supported."""
    if found := re.match(r"Unimplemented keys: \[(.*)\]", reason):
        keys = sorted(found[1].replace('"', "'").split(", "))
        what = (
            "which is not supported; leave it out"
            if len(keys) == 1
            else "which are not supported; leave them out"
        )
        return f"the JSON schema uses {' and '.join(keys)}, {what}"
    if "Regex is empty" in reason:
        return "no string fits the pattern, the format and the length that the JSON schema wants together"
    if "NoExtensionBias" in reason:
        return f"no text fits the {_NAMES[kind]}; it contradicts itself or never ends"
    if re.search(r"[Tt]oo many|too big|too large|fuel|max is|limit", reason):
        return f"the {_NAMES[kind]} is too complex ({_first_reason(reason)}); make it simpler"
    return f"the {_NAMES[kind]} cannot be used: {_first_reason(reason)}"


def _first_reason(reason: str) -> str:
    """The line of llguidance's messages that says what is wrong: they go on with the state of the parser,
    and those about regular expressions begin with a picture."""
    reason = reason.split("<state>")[0]
    errors = re.findall(r"^\s*error: (.*)$", reason, re.MULTILINE)
    line = errors[0] if errors else next(iter(reason.strip().splitlines()), "")
    line = re.split(r"; |\. ", line)[0].strip().rstrip(".")[:200]
    return line[:1].lower() + line[1:]


def _with_deep_stack(call: Callable[[], T]) -> T:
    """What `call` gives or raises, in a thread of its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    with _starting:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="rockledge-grammar")
            thread.start()
        finally:
            threading.stack_size(usual)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


_starting = threading.Lock()  # the stack size of new threads belongs to the process


class _Bytes:
    """A vocabulary of single bytes and an end, as llguidance wants to have it."""

    is_tokenizer_wrapper = True
    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


@lru_cache(maxsize=1)
def _bytes_as_tokens() -> "LLTokenizer":
    from llguidance import LLTokenizer

    return LLTokenizer(_Bytes(), slices=[])  # type: ignore[arg-type]
