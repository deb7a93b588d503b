"""The Hugging Face libraries, held quiet and, where asked, off the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL

import datasets
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


@contextmanager
def hugging_face(*, offline: bool) -> Iterator[None]:
    """Inside the block they neither print nor log; `offline`, they use no network.

    `datasets` reports to its makers even when it reads a local file, and without a network waits for that.
    """
    was_offline = datasets.config.HF_HUB_OFFLINE
    verbosity, hub_verbosity = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    bars, hub_bars = not datasets.are_progress_bars_disabled(), not are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = was_offline or offline
    datasets.logging.set_verbosity(CRITICAL)
    hub_logging.set_verbosity(CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
        datasets.logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            datasets.enable_progress_bars()
        if hub_bars:
            enable_progress_bars()
