"""What a bare `rockledge` prints: the commands in groups, by what one wants to do, with examples."""

from __future__ import annotations

from collections.abc import Sequence

from rockledge import __version__
from rockledge.cli.command import Command

DESCRIPTION = "Compress Llama-family models with a measured loss, and run them on small boards."

# A group's title and its commands, in the order in which a newcomer meets them.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Begin", ("demo", "help")),
    ("Use a model", ("run", "chat", "embed", "serve", "keys")),
    ("Compress a model", ("plan", "prune", "distill", "quantize", "eval", "doctor", "inspect")),
    ("Keep models", ("list", "pull", "push", "export", "rm", "clean")),
    ("Measure", ("bench", "synth", "npu")),
    ("Set up", ("completion",)),
)

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("rockledge demo",),
    "help": ("rockledge help quantize",),
    "run": ("rockledge run my-model what is a gateway", "rockledge run my-model --raw - < story.txt"),
    "chat": ('rockledge chat my-model --system "Answer in one sentence."',),
    "embed": ('rockledge embed my-embedder "a cat on a mat" "a kitten on a rug"',),
    "serve": ("rockledge serve my-model --port 8000 --ctx 8k",),
    "keys": ("rockledge keys add home --requests-per-minute 60 --tokens-per-day 1M",),
    "quantize": (
        "rockledge quantize path/to/model -o my-model --bits 4.25",
        "rockledge quantize model.gguf -o my-model --fit rk3588-8gb --work work",
    ),
    "distill": (
        "rockledge distill path/to/teacher path/to/student --data domain.jsonl -o my-student",
        "rockledge distill path/to/teacher --documents manuals --synthesize 2000 -o my-pairs",
        "rockledge distill --recipe recipes/llama-3-8b-teaches-3b.yaml --dry-run",
    ),
    "plan": (
        "rockledge plan llama-3-8b",
        "rockledge plan qwen3-4b --board rpi5-8gb --context 4k --streams 2",
    ),
    "prune": (
        "rockledge prune path/to/model -o smaller --target-params 3.5b",
        "rockledge prune llama-3-8b --fit rk3588-8gb --decode-tok-s 8 --dry-run",
    ),
    "eval": ("rockledge eval my-model --reference path/to/model --text book.txt",),
    "doctor": ("rockledge doctor my-model --reference path/to/model --fix",),
    "inspect": ("rockledge inspect my-model --verify",),
    "list": ("rockledge list",),
    "pull": (
        "rockledge pull HuggingFaceTB/SmolLM2-135M-Instruct",
        "rockledge pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0",
    ),
    "push": ("rockledge push my-model me/my-model --private",),
    "export": (
        "rockledge export my-model --to gguf -o my-model-gguf",
        "rockledge export my-model --to hf --type f32 -o my-model-hf",
    ),
    "rm": ("rockledge rm SmolLM2-135M-Instruct",),
    "clean": ("rockledge clean", "rockledge clean --all --yes"),
    "bench": ("rockledge bench my-model --prompt 128 1k --batch 1 8",),
    "synth": ("rockledge synth 1b -o random-1b",),
    "npu": ("rockledge npu info", "rockledge npu demo"),
    "npu emulate": ("rockledge npu emulate --driver rocket -- rockledge run my-model hello",),
    "completion": ("rockledge completion bash > ~/.local/share/bash-completion/completions/rockledge",),
}

# What the page of all commands shows: the way from nothing to an answer.
_FIRST = (EXAMPLES["demo"][0], EXAMPLES["quantize"][0], EXAMPLES["run"][0], EXAMPLES["serve"][0])


def grouped(commands: Sequence[Command]) -> list[tuple[str, list[Command]]]:
    """The commands by group; those that no group names come last, as "More"."""
    by_name = {command.name: command for command in commands}
    groups = [(title, [by_name.pop(name) for name in names if name in by_name]) for title, names in GROUPS]
    return [(title, found) for title, found in [*groups, ("More", list(by_name.values()))] if found]


def overview(commands: Sequence[Command]) -> str:
    """The page."""
    lines = [f"rockledge {__version__}", DESCRIPTION, ""]
    width = max(len(command.name) for command in commands)
    for title, found in grouped(commands):
        lines.append(f"{title}:")
        lines += [f"  {command.name:<{width}}  {command.help}" for command in found]
        lines.append("")
    lines += ["Examples:", *(f"  {example}" for example in _FIRST), ""]
    lines.append("rockledge help COMMAND shows the flags of a command, their defaults, and examples.")
    return "\n".join(lines)


def examples(command: str) -> str:
    """The examples of a command ("run", "npu info") for the end of its help; "" where there are none."""
    shown = EXAMPLES.get(command, ())
    return "\n".join(["examples:", *(f"  {example}" for example in shown)]) if shown else ""
