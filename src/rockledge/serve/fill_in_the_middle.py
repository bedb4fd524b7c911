"""Filling in the middle: what stands between two texts, asked for with the control tokens that a model was
trained to see around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class FillForm:
    """The names of the tokens in front of the text before (`prefix`), in front of the text after (`suffix`),
    and in front of the answer (`middle`; None: it follows the text before, which then comes last).
    `repository` and `file`: in front of their names, where other files are shown. `ends`: tokens that end an
    answer, besides all of these."""

    prefix: str
    suffix: str
    middle: str | None
    ends: tuple[str, ...] = ()
    repository: str | None = None
    file: str | None = None


# The names are those of llama.cpp (src/llama-vocab.cpp, "FIM_PRE" and so on; it too ends answers at padding,
# repository and file), and of the models' own documentation:
FORMS = (
    # README of Qwen2.5-Coder and Qwen3-Coder; CodeGemma's model card; Granite 4's tokenizer.
    FillForm(
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ("<|fim_pad|>", "<|file_separator|>", "<|endoftext|>"),
        repository="<|repo_name|>",
        file="<|file_sep|>",
    ),
    # StarCoder and StarCoder2 (bigcode-project/starcoder2), Granite Code.
    FillForm(
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        ("<fim_pad>", "<reponame>", "<|endoftext|>"),
        repository="<repo_name>",
        file="<file_sep>",
    ),
    # SantaCoder.
    FillForm("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ("<fim-pad>", "<|endoftext|>")),
    # deepseek-ai/DeepSeek-Coder, "Code Insertion".
    FillForm("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    # transformers' CodeLlamaTokenizer: the text before begins with a space, as texts of SentencePiece do, and
    # the text after does not.
    FillForm("▁<PRE>", "▁<SUF>", "▁<MID>", ("▁<EOT>",)),
    FillForm("<PRE>", "<SUF>", "<MID>", ("<EOT>",)),
    # GLM-4.5.
    FillForm("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    # Codestral: `encode_fim` of mistral-common (tokens/tokenizers/instruct.py).
    FillForm("[PREFIX]", "[SUFFIX]", None, ("[MIDDLE]",)),
)


@dataclass(frozen=True)
class Filling:
    """The form of one model, by token ids."""

    tokenizer: Tokenizer
    prefix: int
    suffix: int
    middle: int | None
    ends: tuple[int, ...]
    """Tokens that end an answer, besides those that end all answers of the model."""
    repository: int | None = None
    file: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Filling | None:
        """That of a model with this vocabulary; None where it has no such tokens."""
        for form in FORMS:
            ids = [tokenizer.id(name) for name in (form.prefix, form.suffix, form.middle) if name is not None]
            if None in ids:
                continue
            known = [i for i in ids if i is not None]
            repository = None if form.repository is None else tokenizer.id(form.repository)
            file = None if form.file is None else tokenizer.id(form.file)
            ends = [*known, repository, file, *map(tokenizer.id, form.ends)]
            ended = tuple(dict.fromkeys(i for i in ends if i is not None))
            middle = known[2] if form.middle is not None else None
            return cls(tokenizer, known[0], known[1], middle, ended, repository, file)
        return None

    def files(self, files: Sequence[tuple[str, str]], *, control_tokens: bool = False) -> list[int]:
        """The token ids that show other files (name and text) in front of a prompt, as llama.cpp's
        `format_prompt_infill` has it (tools/server/server-common.cpp): by the tokens for that, or behind a
        line that separates them."""
        if not files:
            return []

        def encode(text: str) -> list[int]:
            return self.tokenizer.encode_within(text, plain=not control_tokens)

        if self.file is None:
            return encode("".join(f"\n\n--- snippet ---\n\n{text}" for _, text in files))
        shown = [] if self.repository is None else [self.repository, *encode("myproject\n")]
        for name, text in files:
            shown += [self.file, *encode(f"{name}\n{text}")]
        return [*shown, self.file, *encode("filename\n")]

    def prompt(
        self,
        before: str | Sequence[int],
        after: str,
        *,
        control_tokens: bool = False,
        shown: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """The token ids by which the model writes what is between two texts; `shown` stands in front of all.
        Names of control tokens in the texts are text unless `control_tokens`."""
        tokenizer, plain = self.tokenizer, not control_tokens
        if isinstance(before, str):
            space = " " if before and tokenizer.puts_space else ""
            ahead = tokenizer.encode_within(space + before, plain=plain)
        else:
            ahead = list(before)
        behind = tokenizer.encode_within(after, plain=plain)
        if self.middle is None:
            return (*tokenizer.beginning, *shown, self.suffix, *behind, self.prefix, *ahead)
        return (*tokenizer.beginning, *shown, self.prefix, *ahead, self.suffix, *behind, self.middle)
