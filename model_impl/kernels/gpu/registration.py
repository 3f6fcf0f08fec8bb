"""Registration of functions as PyTorch operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

LIBRARY = torch.library.Library("tokenformer", "FRAGMENT")

Function = TypeVar("Function", bound=Callable[..., Any])


def operator(shapes: Callable[..., Any]) -> Callable[[Function], Function]:
    """Register a function as an operator that compilers do not look into: torch.ops.tokenformer.NAME.

    `shapes` takes its arguments and returns tensors of the results' shapes and dtypes, with any content.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()))
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"tokenformer::{name}", shapes, lib=LIBRARY)
        return cast(Function, getattr(torch.ops.tokenformer, name).default)

    return register
