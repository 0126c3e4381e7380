"""Quiet ways to load from the Hugging Face hub: one message of ours says what went wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def without_retry_messages() -> Iterator[None]:
    """Without a network the hub's client reports each of its attempts, about which nobody can do anything."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Loading takes a moment; a bar and a report of each process's own would only litter the output."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
