"""Silences libraries: their advice is meant for interactive use and would fill the screen and every worker's log."""

import logging


def quiet_libraries() -> None:
    """Let `transformers` and Lightning report errors alone, without progress bars.

    Importing either sets its level anew, so this is called where a model is built or training begins, not at an import.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
