"""The time of a step by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

PARTS = {
    "blocks of few rows": ("blocks of few rows",),
    "GEMMs": ("_C::onednn_mm", "_C::weight_packed_linear", "mkldnn::_linear_pointwise", "product of few rows"),
    "row operation": ("row operation",),
    "attention": ("_C::cpu_attention_with_kv_cache", "_C::cpu_attn_reshape_and_cache"),
    "layer norms": ("aten::native_layer_norm",),
    "rotary": ("_C::rotary_embedding",),
}
"""The operations counted by their own time. All else is `the rest`: small operations, and the Python between them."""


def profiled(run: Callable[[], Any], steps: int) -> dict[str, float]:
    """Milliseconds of each part per step, and their sum. The profiler slows the step down: only their shares count."""
    with (
        named_kernels(),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        record_function("all of it"),
    ):
        run()
    own = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    whole = next(event.cpu_time_total for event in profiler.key_averages() if event.key == "all of it")
    found = {part: sum(own.get(name, 0) for name in names) for part, names in PARTS.items()}
    found["the rest"] = whole - sum(found.values())
    return {part: round(value / 1000 / steps, 3) for part, value in (found | {"sum": whole}).items()}


@contextmanager
def named_kernels() -> Iterator[None]:
    """The compiled kernels are no operators of PyTorch's: give them names for the profiler."""
    from model_impl.kernels.cpu.rows import RowKernel
    from model_impl.kernels.cpu.stack import PackedStack
    from model_impl.kernels.cpu.weights import PackedWeight

    kernels = (
        (RowKernel, "__call__", "row operation"),
        (PackedStack, "__call__", "blocks of few rows"),
        (PackedWeight, "__call__", "product of few rows"),
    )
    plain = [getattr(owner, method) for owner, method, _ in kernels]
    for (owner, method, name), function in zip(kernels, plain, strict=True):
        setattr(owner, method, named(function, name))
    try:
        yield
    finally:
        for (owner, method, _), function in zip(kernels, plain, strict=True):
            setattr(owner, method, function)


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        with record_function(name):
            return function(*arguments)

    return called
