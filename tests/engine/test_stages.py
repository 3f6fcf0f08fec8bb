"""Growth stages and deltas of one resident copy, mixed in one batch, equal their original models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.checkpoint.delta import load_delta, split
from model_impl.config import PROJECTIONS
from model_impl.reference.model import ReferenceTokenformer
from model_impl.wire import report_args
from tests.support.engines import assert_recomputed, assert_reported, engine, statistics_rows, token_params
from tests.support.grown import grown_checkpoint

pytestmark = pytest.mark.engine

VOCABULARY = 99
PROMPT = [random.Random(1).randrange(VOCABULARY) for _ in range(70)]  # more than two blocks of the KV cache


@dataclass(frozen=True)
class Served:
    """A model name as a request carries it, and the reference that it must equal."""

    adapter: Any
    reference: ReferenceTokenformer
    stage: int


@dataclass(frozen=True)
class Family:
    llm: Any
    members: dict[str, Served]


def adapter(name: str, number: int, path: Path) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, str(path))


@contextmanager
def open_family(directory: Path, activation: str, **options: Any) -> Iterator[Family]:
    """Two stages of one checkpoint and two sibling deltas on top, prompts cut into chunks of at most 32 tokens."""
    from model_impl.override import override_class
    from server.engine.input_processor import VariantInput

    masked = {"ensemble_rate": 0.2, "ensemble_projections": list(PROJECTIONS)}  # for tests/engine/test_ensemble.py
    base = grown_checkpoint(directory / "two", 2, norm_activation_type=activation, **masked)
    members = {"last": Served(None, base, 1), "base": Served(adapter("m:base", 1, directory / "two"), base, 0)}
    settings = {"max_num_batched_tokens": 32, "max_num_seqs": 16, "enable_prefix_caching": True}
    with engine(directory / "two", **settings, **options) as llm:
        override_class(llm.llm_engine.input_processor, VariantInput)
        llm.llm_engine.input_processor.dropped = set()
        for number, name in enumerate(("left", "right"), start=3):
            grown = sibling(directory, name, base)
            split(directory / name, directory / f"{name}-delta")
            loaded = adapter(name, number, directory / f"{name}-delta")
            llm.llm_engine.add_lora(loaded)
            members[name] = Served(loaded, grown, 2)
        yield Family(llm, members)


def sibling(
    directory: Path, name: str, base: ReferenceTokenformer, tokens: dict[str, int] | None = None
) -> ReferenceTokenformer:
    """A third stage on the same two, its tokens drawn anew for every name."""
    from model_impl.checkpoint.grow import grown_tensors, new_stage
    from model_impl.checkpoint.writing import write_checkpoint
    from tests.support.grown import ADDED

    stage = new_stage(base.config, tokens or ADDED[1], name, "grouped", "random")
    weights = dict(grown_tensors(base.state_dict().items(), base.config, stage, "random", seed=len(name)))
    config = base.config.with_stages([*base.config.stages, stage])
    write_checkpoint(directory / name, config, weights.items(), {})
    model = ReferenceTokenformer(config)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def ask(family: Family, requests: list[tuple[str, list[int]]], **options: Any) -> list[Any]:
    """All requests at once, each (member, prompt); the statistics and the report of every token come along."""
    outputs: list[Any] = family.llm.generate(
        [{"prompt_token_ids": prompt} for _, prompt in requests],
        [token_params(extra_args=report_args(), **({"max_tokens": 8} | options)) for _ in requests],
        lora_request=[family.members[name].adapter for name, _ in requests],
        use_tqdm=False,
    )
    return outputs


def check(family: Family, name: str, prompt: list[int], output: Any) -> None:
    """Greedy tokens, statistics and report are the reference's."""
    served = family.members[name]
    answer = list(output.outputs[0].token_ids)
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logits = served.reference(ids, served.stage)[0, len(prompt) - 1 : -1]
    assert answer == logits.argmax(-1).tolist()
    reported = statistics_rows(output.outputs[0].logprobs)
    assert_recomputed(reported, served.reference, prompt, answer, served.stage)
    assert_reported(served.reference, ids[0].tolist(), output.outputs[0].logprobs, served.stage)
    assert len(next(iter(output.outputs[0].logprobs[0].values())).places) == 3  # two stages and a delta


def check_mixed_batch(family: Family) -> None:
    """Prefill and decode of all members in the same steps: 20 requests, chunked prompts of different lengths."""
    draw = random.Random(2)
    names = [name for name in family.members for _ in range(5)]
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randrange(3, 60))] for _ in names]
    requests = list(zip(names, prompts, strict=True))
    for (name, prompt), output in zip(requests, ask(family, requests, prompt_logprobs=0), strict=True):
        check(family, name, prompt, output)
        served = family.members[name]
        assert_reported(served.reference, prompt, output.prompt_logprobs[1:], served.stage)


def test_stages_and_siblings_mix_in_one_batch(family: Family) -> None:
    check_mixed_batch(family)


@pytest.mark.parametrize("activation", ["l2_norm_gelu", "softmax"])
def test_stages_and_siblings_under_tensor_parallel(
    activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token counts that two ranks cannot share evenly; the deltas are loaded by both."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_family(tmp_path, activation, tensor_parallel_size=2) as opened:
        check_mixed_batch(opened)


def test_members_answer_differently(family: Family) -> None:
    """Otherwise the tests above could not tell one member from another."""
    outputs = ask(family, [(name, PROMPT) for name in family.members])
    entropies = [statistics_rows(output.outputs[0].logprobs)[0, 0].item() for output in outputs]
    assert len({round(entropy, 5) for entropy in entropies}) == len(family.members), entropies


def test_prefix_cache_never_crosses_members(family: Family) -> None:
    family.llm.reset_prefix_cache()
    for name in family.members:
        (cold,) = ask(family, [(name, PROMPT)])
        assert cold.num_cached_tokens == 0, "blocks of another member were used"
        (warm,) = ask(family, [(name, PROMPT)])
        assert warm.num_cached_tokens >= 64
        check(family, name, PROMPT, cold)
        check(family, name, PROMPT, warm)


def test_a_removed_delta_leaves_the_others_alone(family: Family) -> None:
    llm, left = family.llm, family.members["left"].adapter
    before = ask(family, [("right", PROMPT), ("base", PROMPT)])
    assert llm.llm_engine.remove_lora(left.lora_int_id)
    assert llm.llm_engine.list_loras() == {family.members["right"].adapter.lora_int_id}
    after = ask(family, [("right", PROMPT), ("base", PROMPT)])
    for old, new in zip(before, after, strict=True):
        assert old.outputs[0].token_ids == new.outputs[0].token_ids
    llm.llm_engine.add_lora(left)
    check(family, "left", PROMPT, ask(family, [("left", PROMPT)])[0])
    check(family, "right", PROMPT, ask(family, [("right", PROMPT)])[0])


def test_a_delta_may_have_no_feed_forward_tokens(family: Family, tmp_path: Path) -> None:
    """It adds to attention alone; who uses it, and who does not, are reported of."""
    base = family.members["last"].reference
    tokens = dict.fromkeys(PROJECTIONS, 0) | {"query": 5, "output": 3}
    family.members["thin"] = Served(adapter("thin", 9, tmp_path / "delta"), sibling(tmp_path, "grown", base, tokens), 2)
    split(tmp_path / "grown", tmp_path / "delta")
    try:
        assert family.llm.llm_engine.add_lora(family.members["thin"].adapter)
        requests = [("thin", PROMPT), ("left", PROMPT), ("last", PROMPT)]
        for (name, prompt), output in zip(requests, ask(family, requests), strict=True):
            check(family, name, prompt, output)
    finally:
        family.llm.llm_engine.remove_lora(9)
        del family.members["thin"]


def test_nothing_is_reported_unless_asked_for(family: Family) -> None:
    (output,) = family.llm.generate([{"prompt_token_ids": PROMPT}], token_params(max_tokens=2), use_tqdm=False)
    entries = [next(iter(position.values())) for position in output.outputs[0].logprobs]
    assert [(entry.epistemic, entry.places) for entry in entries] == [(None, None)] * 2
    rows = statistics_rows(output.outputs[0].logprobs)
    answer = list(output.outputs[0].token_ids)
    assert_recomputed(rows, family.members["last"].reference, PROMPT, answer)


def test_memory_is_that_of_the_last_stage(family: Family) -> None:
    """Serving the earlier stage as well costs no parameter: the resident tokens are the last stage's."""
    model = family.llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
    config = family.members["base"].reference.config
    held = sum(sum(shard.local_count for shard in m.shards) for m in model.modules() if hasattr(m, "shards"))
    counts = [config.token_count(projection) for projection in ("query", "key", "value", "output", "ffn")]
    assert held == config.num_hidden_layers * sum(counts)
    assert load_delta(Path(family.members["left"].adapter.lora_path)).stage.tokens["ffn"] > 0
