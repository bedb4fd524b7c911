"""Keeps transformers, accelerate and peft from talking while they work; their errors come through."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

_TALKING = ("accelerate", "peft", "torch.distributed.fsdp", "trl")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars, warnings or remarks of theirs in its body."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    loggers = {name: logging.getLogger(name).level for name in _TALKING}
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
        for name, before in loggers.items():
            logging.getLogger(name).setLevel(before)
