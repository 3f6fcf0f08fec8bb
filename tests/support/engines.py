"""vLLM engines for the tests: small, inside the test process, one after the other."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import TokenformerConfig
from model_impl.reference.attribution import attribution
from model_impl.reference.closed_form import epistemic
from model_impl.reference.model import ReferenceTokenformer
from model_impl.wire import STATISTICS, Membership
from tests.support.exact import exact_statistics
from tests.support.rounding import logit_tolerance
from tests.support.tolerances import assert_statistics_within

KV_CACHE_BYTES = 32 << 20

ENGINE_OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": KV_CACHE_BYTES,
    "max_logprobs": -1,
}
if torch.cuda.is_available():
    ENGINE_OPTIONS["gpu_memory_utilization"] = 0.05  # of what must be free when it starts: several may run at once

OPEN: list[Path] = []
"""Checkpoints of the engines that are open now."""


@contextmanager
def engine(checkpoint: Path, **options: Any) -> Iterator[Any]:
    """A `vllm.LLM` with our worker. Several may be open at once, as they share this process's one-rank groups."""
    from vllm import LLM, envs
    from vllm.distributed import cleanup_dist_env_and_memory

    from model_impl.plugin import WORKER_CLASS
    from server.engine.statistics import install

    install()
    envs.disable_envs_cache()  # an open engine has it on, and would hide what a test has set since
    settings = {"skip_tokenizer_init": not (checkpoint / "tokenizer.json").exists(), "worker_cls": WORKER_CLASS}
    llm = LLM(str(checkpoint), **(ENGINE_OPTIONS | settings | options))
    OPEN.append(checkpoint)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        OPEN.remove(checkpoint)
        if not OPEN:
            cleanup_dist_env_and_memory()


def generate(llm: Any, prompts: Sequence[Sequence[int]], params: Any) -> list[Any]:
    """One `RequestOutput` per prompt of token ids; `params` is one SamplingParams or one per prompt."""
    inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    outputs: list[Any] = llm.generate(inputs, params, use_tqdm=False)
    return outputs


def token_params(**options: Any) -> Any:
    """Greedy unless asked otherwise, without text, never stopped by the end-of-text id, with statistics."""
    from vllm import SamplingParams

    return SamplingParams(**({"temperature": 0, "logprobs": 0, "ignore_eos": True, "detokenize": False} | options))


def ensemble_name(name: str) -> str:
    """As this process's API would call it."""
    from server.engine.ensemble import SECRET

    return f"{SECRET}-{name}"


def member_requests(
    name: str, members: int, prompt: Sequence[int], answer: Sequence[int], first: int = 0
) -> list[tuple[Any, Any]]:
    """Prompt and parameters of the requests that together are ensemble `name`, for the tokens of `answer` from number
    `first` on."""
    requests = []
    for member in range(members):
        last = len(prompt) - 1
        own = Membership(ensemble_name(name), member, members, last, last + first)
        params = token_params(max_tokens=1, logprobs=None, extra_args=own.extra_args())
        # The last token's distribution is that of the position before it.
        requests.append(({"prompt_token_ids": [*prompt, *answer][:-1]}, params))
    return requests


def whole_rows(positions: Iterable[Any], vocabulary: int) -> torch.Tensor:
    """Logprobs that were asked for with -1, as a matrix float32 [positions, vocabulary]."""
    rows = [[position[word].logprob for word in range(vocabulary)] for position in positions]
    return torch.tensor(rows)


def statistics_rows(positions: Iterable[Any]) -> torch.Tensor:
    """float64 [positions, 3] in the order of `STATISTICS`; every position must have been scored."""
    from server.engine.statistics import scored

    entries = [scored(position) for position in positions]
    rows = [[getattr(entry, name) for name in STATISTICS] for entry in entries]
    return torch.tensor(rows, dtype=torch.float64)


@torch.no_grad()
def assert_recomputed(
    found: torch.Tensor, model: ReferenceTokenformer, prompt: Sequence[int], answer: Sequence[int], stage: int = -1
) -> None:
    """float64 statistics [len(answer), 3] are those of the distributions that `answer` was drawn from, without any
    cache, but for the rounding of float32. On equal logits `token_statistics` is held to much less."""
    ids, drawn = torch.tensor([[*prompt, *answer]]), slice(len(prompt) - 1, -1)
    logits, e = model(ids, stage)[0, drawn], logit_tolerance(model, ids, stage)[0, drawn]
    assert_statistics_within(found, exact_statistics(logits), e)


@torch.no_grad()
def assert_reported(model: ReferenceTokenformer, ids: Sequence[int], positions: Sequence[Any], stage: int = -1) -> None:
    """Epistemic uncertainty and growth of the last tokens of `ids`, one for each position, are the reference's; the
    columns of stages and deltas that the request's model leaves out are there, and 0."""
    entries, whole = [next(iter(position.values())) for position in positions], torch.tensor([ids])
    before, drawn = whole[:, :-1], slice(-len(positions), None)
    expected = epistemic(model, before, stage)[0, drawn]
    torch.testing.assert_close(torch.tensor([entry.epistemic for entry in entries]), expected, rtol=1e-3, atol=1e-6)
    parts = attribution(model, before, whole[:, 1:], stage)[0, drawn]
    if entries[0].places is None:
        assert parts.shape[1] == 1
        return
    places = torch.tensor([entry.places for entry in entries])
    torch.testing.assert_close(places[:, : parts.shape[1]], parts, rtol=1e-3, atol=1e-3)
    assert not places[:, parts.shape[1] :].any()


def assert_exact_statistics(found: torch.Tensor, logits: torch.Tensor) -> None:
    """Statistics [..., 3] against float64 on the very logits [..., V] that the engine saw."""
    errors = (found - exact_statistics(logits)).abs().flatten(0, -2).amax(0)
    assert (errors <= torch.tensor([1e-5, 1e-4, 1e-6])).all(), dict(zip(STATISTICS, errors.tolist(), strict=True))


def saved_model(path: Path, config: TokenformerConfig, weights: dict[str, torch.Tensor]) -> ReferenceTokenformer:
    """Write the checkpoint `path`; the returned reference model has the same weights."""
    write_checkpoint(path, config, weights.items(), {})
    model = ReferenceTokenformer(config)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
