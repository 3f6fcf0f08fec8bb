"""Give a finished vLLM object our overrides."""

from __future__ import annotations

from typing import Any


def override_class(instance: Any, overrides: type) -> None:
    """Put `overrides` on top of the object's own class.

    vLLM builds its runners, samplers and serving objects inside functions that cannot be told another class, and from
    settings that we do not want to repeat. `overrides` must not define `__init__`.
    """
    own = type(instance)
    instance.__class__ = overrides if issubclass(overrides, own) else type(overrides.__name__, (overrides, own), {})
