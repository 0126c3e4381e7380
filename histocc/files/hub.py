"""Quiet ways to load from the Hugging Face hub: one message of ours says what went wrong, and at once."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit


def may_be_on_the_hub(name: str) -> bool:
    """Whether a name is one that the hub may have; in a folder that is there, it is a place on the disk."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    owner = os.path.dirname(name)
    return not (owner and os.path.isdir(owner))


def why_out_of_reach() -> str | None:
    """Why the hub cannot be reached; None where that is to be tried.

    A machine without a network does not know the address of its host, where the hub's client tries for about 40
    seconds. Behind a proxy nobody needs to know it.
    """
    from huggingface_hub import constants

    proxies = urllib.request.getproxies()
    host = urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or host is None or "https" in proxies or "http" in proxies or "all" in proxies:
        return None
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return f"there is no network, or none that knows {host}"
    return None


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
