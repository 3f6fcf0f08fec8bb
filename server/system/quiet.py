"""A start without the remarks of libraries that need no action."""

from __future__ import annotations

import os
import warnings

from model_impl.engine.log_filter import QUIET


def keep_quiet() -> None:
    """Silence remarks in this process and its children, before libraries are imported. The user's own settings stay."""
    os.environ[QUIET] = "1"  # vLLM's loggers
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_LOGS", "-torch._library.triton")  # it says that there is no Triton
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    ignore_in_children("ignore::FutureWarning")
    ignore_in_children("ignore:The given buffer is not writable:UserWarning")  # vLLM's pipeline on CPU reads it only
    warnings.simplefilter("ignore", FutureWarning)  # this process has read the variable already


def is_quiet() -> bool:
    return QUIET in os.environ


def ignore_in_children(warning: str) -> None:
    """Add a filter of Python's warnings, below the user's own."""
    filters = (warning, os.environ.get("PYTHONWARNINGS"))
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))
