"""A pytest plugin that lets vLLM's V2 model runner start without a GPU, in Triton's interpreter.

    VLLM_USE_V2_MODEL_RUNNER=1 TRITON_INTERPRET=1 PYTHONPATH=.:.venv-triton \\
        python -m pytest -p tests.support.interpreted_runner tests/engine/test_alignment.py

vLLM takes Triton on CPU only with the backend of triton-cpu, which is built from source. The interpreter asks no
backend, so a name is enough.
"""

from __future__ import annotations

from typing import Any, cast

import triton.backends


class AnyDriver:
    @staticmethod
    def is_active() -> bool:
        return True


triton.backends.backends["cpu"] = triton.backends.Backend(compiler=cast(Any, None), driver=cast(Any, AnyDriver))

from vllm.v1.sample.ops import topk_topp_sampler  # noqa: E402  # reads the backends when it is imported

# Its kernel for top-k and top-p loops over program ids as tensors, which are plain numbers in the interpreter.
topk_topp_sampler.HAS_TRITON = False
