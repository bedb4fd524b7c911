"""Fields of requests that no schema has and that are taken all the same: they cannot change the answer, or
ask for what is done anyway."""

from __future__ import annotations

from typing import Any

# Bookkeeping, routing and hints of OpenAI's hosted service.
HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)

# The same of other servers; `--strict` refuses them.
HARMLESS_ELSEWHERE = frozenset({"cache_prompt", "keep_alive"})

# Fields of the API whose listed values have no effect; any other value would change the answer.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
