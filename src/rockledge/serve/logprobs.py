"""Log probabilities of tokens: entries with bytes (chat, responses), and parallel lists (completions)."""

from __future__ import annotations

from typing import Any

from rockledge.model.tokenizer import StreamDecoder, Tokenizer
from rockledge.serve.parts import ScoredToken


def token_entries(tokenizer: Tokenizer, tokens: tuple[ScoredToken, ...]) -> list[dict[str, Any]]:
    """One object a token, as chat answers and responses have them. `bytes` are the exact UTF-8 bytes of the
    token."""
    return [
        {
            **_entry(tokenizer, token.id, token.logprob),
            "top_logprobs": [_entry(tokenizer, other.id, other.logprob) for other in token.top],
        }
        for token in tokens
    ]


def _entry(tokenizer: Tokenizer, token: int, logprob: float | None) -> dict[str, Any]:
    data = tokenizer.token_bytes(token)
    return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}


class CompletionLogprobs:
    """Makes the `logprobs` objects of one completion choice, part after part.

    A token that is not whole UTF-8 characters is written as `bytes:\\xe2\\x80`, so that different tokens keep
    different names. `text_offset` is where a token's text begins in the choice's text, which `echo` begins
    with the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, echo: bool) -> None:
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer, start=echo)
        self._offset = 0

    def body(self, tokens: tuple[ScoredToken, ...]) -> dict[str, Any]:
        """The object of the next tokens."""
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._alternatives(token) for token in tokens],
            "text_offset": [self._place(token.id) for token in tokens],
        }

    def _name(self, token: int) -> str:
        data = self._tokenizer.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _alternatives(self, token: ScoredToken) -> dict[str, float] | None:
        """By name, best first; the token itself is always among them."""
        if token.logprob is None:
            return None
        named: dict[str, float] = {}
        for other in token.top:
            named.setdefault(self._name(other.id), other.logprob)
        named.setdefault(self._name(token.id), token.logprob)
        return named

    def _place(self, token: int) -> int:
        place = self._offset
        self._offset += len(self._decoder.push(token))
        return place
