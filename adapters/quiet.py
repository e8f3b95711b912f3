"""Libraries without their voices, and transformers without the network, in the driver itself."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unheard() -> Iterator[None]:
    """What is written to this process's standard error in the block is dropped, also by C++."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Import transformers offline; no progress bar, warning or log below an error in the block.

    All loggers are quiet, not only transformers' own: it loads DeepSpeed, which greets too.
    """
    # Read once, when huggingface_hub is first imported. It stays set in this process: whatever is
    # needed lies on this machine by now, so a look at the Hub would be a mistake.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from transformers.utils import logging as voice

        bars = voice.is_progress_bar_enabled()
        voice.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            if bars:
                voice.enable_progress_bar()
    finally:
        logging.disable(level)
