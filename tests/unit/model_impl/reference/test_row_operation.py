"""The sharded row operation equals `pattention` in one piece, for every activation and any number of ranks."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from model_impl.config import ACTIVATIONS, PROJECTIONS, TokenformerConfig
from model_impl.reference import row_operation
from model_impl.reference.pattention import pattention
from model_impl.reference.pattention import token_weights as whole_token_weights
from model_impl.reference.row_operation import TokenShard, token_weights
from model_impl.variants import Selection, VariantTable
from tests.support.tiny import tiny_config

WIDTH = 8
ROWS = 5


class Ranks:
    """Tensor-parallel ranks as threads of this process, with vLLM's two collectives between them."""

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = size
        self.local = threading.local()
        self.barrier = threading.Barrier(size, timeout=30)
        self.sent: list[torch.Tensor] = [torch.empty(0)] * size
        monkeypatch.setattr(row_operation, "get_tensor_model_parallel_world_size", lambda: size)
        monkeypatch.setattr(row_operation, "tensor_model_parallel_all_reduce", lambda x: sum(self.exchange(x)))
        monkeypatch.setattr(
            row_operation, "tensor_model_parallel_all_gather", lambda x: torch.cat(self.exchange(x), -1)
        )

    def exchange(self, own: torch.Tensor) -> list[torch.Tensor]:
        self.sent[self.local.rank] = own.clone()
        self.barrier.wait()
        everyone = list(self.sent)
        self.barrier.wait()
        return everyone

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        def start(rank: int) -> Any:
            self.local.rank = rank
            return work(rank)

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(start, range(self.size)))


def stage(name: str, counts: tuple[int, ...], norm_group: int = 0, tau: float | None = None) -> dict[str, Any]:
    taus = None if tau is None else dict.fromkeys(PROJECTIONS, tau)
    return {
        "name": name,
        "tokens": dict(zip(PROJECTIONS, counts, strict=True)),
        "tau": taus,
        "norm_group": norm_group,
    }


STAGES = {
    "one stage": [stage("base", (4, 5, 6, 7, 9))],
    "one token": [stage("base", (1, 1, 1, 1, 1))],
    "stored tau": [stage("base", (4, 5, 6, 7, 9), tau=1.7)],
    "joint": [stage("base", (4, 5, 6, 7, 9)), stage("more", (3, 1, 2, 5, 6))],
    "joint, tau kept": [stage("base", (4, 5, 6, 7, 9)), stage("more", (3, 1, 2, 5, 6), tau=2.5)],
    "grouped": [stage("base", (4, 5, 6, 7, 9)), stage("more", (3, 1, 2, 5, 6), 1)],
    "grouped, partly empty": [stage("base", (4, 5, 6, 7, 9)), stage("more", (0, 1, 0, 2, 3), 1)],
    "joint, then grouped": [
        stage("base", (4, 5, 6, 7, 9)),
        stage("more", (3, 1, 2, 5, 6)),
        stage("last", (2, 2, 1, 1, 7), 1, tau=0.9),
    ],
}


def configuration(stages: str, activation: str) -> TokenformerConfig:
    return tiny_config(norm_activation_type=activation, growth_stages=STAGES[stages])


def parameter_tokens(config: TokenformerConfig, scale: float = 1.0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shapes = {projection: (config.token_count(projection), WIDTH) for projection in PROJECTIONS}
    return {
        projection: (torch.randn(n, generator=generator) * scale, torch.randn(n, generator=generator))
        for projection, n in shapes.items()
    }


def shard_of(config: TokenformerConfig, projection: str, rank: int, size: int) -> TokenShard:
    return TokenShard([stage.tokens[projection] for stage in config.stages], rank, size)


def weights_of(
    scores: Sequence[torch.Tensor], shards: Sequence[TokenShard], selection: Selection, activation: str
) -> list[torch.Tensor]:
    """Weights of one rank, each projection's segments put together again."""
    columns = [part.split(shard.shares, dim=-1) for part, shard in zip(scores, shards, strict=True)]
    padding = [shard.is_padding.split(shard.shares) for shard in shards]
    return [torch.cat(own, dim=-1) for own in token_weights(columns, selection, activation, padding)]


def select(config: TokenformerConfig, stages: Sequence[int]) -> Selection:
    """The selection of a batch whose rows use these stages."""
    table = VariantTable(config, len(stages))
    last = len(config.stages) - 1
    table.assign([0 if stage == last else stage + 1 for stage in stages], [1] * len(stages))
    return table.select(len(stages))


def test_rows_that_share_a_variant_share_one_row_of_the_selection() -> None:
    config = configuration("joint", "l2_norm_gelu")
    table, traced = VariantTable(config, max_rows=4), VariantTable(config, max_rows=4, traced=True)
    own = [table.tau[table.slots[adapter]] for adapter in (0, 1)]
    assert not torch.equal(own[0], own[1])
    for adapters, counts in (([1, 1], [1, 2]), ([0], [1]), ([0, 1], [1, 2]), ([0, 1], [1, 2]), ([1, 0], [1, 2])):
        rows = [own[adapter] for adapter, count in zip(adapters, counts, strict=True) for _ in range(count)]
        for one in (table, traced):
            one.assign(adapters, counts)
        found = table.select(len(rows)).tau
        assert len(found) == (len(rows) if len(set(adapters)) > 1 else 1)
        assert torch.equal(found.expand(len(rows), -1, -1), torch.stack(rows))
        assert torch.equal(traced.select(len(rows)).tau, torch.stack(rows))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stages", STAGES)
def test_ranks_together_give_the_whole_for_rows_of_every_stage(
    stages: str, activation: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All five projections at once, the way query, key and value share one exchange."""
    config = configuration(stages, activation)
    tokens = parameter_tokens(config)
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(2))
    row_stages = [row % len(config.stages) for row in range(ROWS)]
    selection = select(config, row_stages)
    ranks = Ranks(size, monkeypatch)

    def share(rank: int) -> list[torch.Tensor]:
        """The computation of `ParallelPattention`, with plain GEMMs for the parallel layers."""
        shards = [shard_of(config, projection, rank, size) for projection in PROJECTIONS]
        keys, values = (
            [shard.own(tokens[projection][part]) for projection, shard in zip(PROJECTIONS, shards, strict=True)]
            for part in (0, 1)
        )
        weights = weights_of([F.linear(x, key) for key in keys], shards, selection, activation)
        return [w @ value for w, value in zip(weights, values, strict=True)]

    shares = ranks.run(share)
    for i, projection in enumerate(PROJECTIONS):
        assert sum(rank[i] for rank in shares).abs().max() > 0.1
        for row, stage in enumerate(row_stages):
            groups = config.norm_groups(projection, stage)
            whole = pattention(x[row], *tokens[projection], groups, activation)
            torch.testing.assert_close(sum(rank[i][row] for rank in shares), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("stages", STAGES)
def test_every_token_lies_on_one_rank(stages: str, size: int) -> None:
    config = configuration(stages, "softmax")
    for projection in PROJECTIONS:
        shards = [shard_of(config, projection, rank, size) for rank in range(size)]
        count = config.token_count(projection)
        numbered = torch.arange(1.0, count + 1)[:, None]
        arranged = shards[0].arrange(numbered).flatten()
        assert len(arranged) == shards[0].padded_count
        assert sorted(arranged[arranged > 0].tolist()) == list(range(1, count + 1))
        for rank, shard in enumerate(shards):
            own = arranged[rank * shard.local_count : (rank + 1) * shard.local_count]
            assert shard.own(numbered).flatten().tolist() == own.tolist()
            assert shard.is_padding.tolist() == (own == 0).tolist()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_extreme_scores_neither_overflow_nor_vanish(
    activation: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official softmax overflows at scores of 89 already."""
    config = configuration("joint, then grouped", activation)
    ranks = Ranks(size, monkeypatch)
    selection = ffn(select(config, [2] * ROWS))
    for scale in (1e4, 1e-12):
        scores = torch.randn(ROWS, config.token_count("ffn"), generator=torch.Generator().manual_seed(3)) * scale
        exact = in_one_piece(scores.double(), config, activation)

        def local(rank: int, scores: torch.Tensor = scores) -> list[torch.Tensor]:
            shard = shard_of(config, "ffn", rank, size)
            return weights_of([shard.own(scores.t()).t()], [shard], selection, activation)

        whole = torch.cat([weights[0] for weights in ranks.run(local)], dim=-1)
        order = shard_of(config, "ffn", 0, size).order
        real = order < scores.shape[1]
        torch.testing.assert_close(whole[:, real].double(), exact[:, order[real]], atol=1e-5, rtol=1e-5)


def ffn(selection: Selection) -> Selection:
    return selection.for_projections(("ffn",))


def in_one_piece(scores: torch.Tensor, config: TokenformerConfig, activation: str) -> torch.Tensor:
    return whole_token_weights(scores, config.norm_groups("ffn"), activation)


@pytest.mark.parametrize("activation", ["l2_norm_gelu", "gelu_l2_norm"])
def test_a_row_of_zero_scores_has_zero_weights(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the official code divides zero by zero; batches are padded with such rows."""
    Ranks(1, monkeypatch)
    config = configuration("grouped", activation)
    shard = shard_of(config, "ffn", 0, 1)
    selection = ffn(select(config, [0, 1]))
    weights = weights_of([torch.zeros(2, shard.local_count)], [shard], selection, activation)[0]
    assert torch.equal(weights, torch.zeros_like(weights))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_16_bit_weights_are_the_float32_ones_rounded(
    activation: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row statistics are float32: large scores must not overflow float16's squares."""
    Ranks(1, monkeypatch)
    config = configuration("grouped", activation)
    shard = shard_of(config, "ffn", 0, 1)
    scores = (torch.randn(ROWS, shard.local_count, generator=torch.Generator().manual_seed(4)) * 300).to(dtype)
    weights = weights_of([scores], [shard], ffn(select(config, [1] * ROWS)), activation)[0]
    assert weights.dtype == dtype
    exact = in_one_piece(scores.float(), config, activation)
    torch.testing.assert_close(weights.float(), exact, atol=4 * torch.finfo(dtype).eps, rtol=4 * torch.finfo(dtype).eps)


def test_vllms_default_dtype_and_device_change_no_table() -> None:
    """vLLM builds a model inside its dtype and device; a grown one in bfloat16 could not even start."""
    config = tiny_config(growth_stages=[stage("base", (6,) * 5), stage("grown", (3,) * 5, norm_group=1)])
    exact = VariantTable(config, max_rows=4).select(2)
    torch.set_default_dtype(torch.bfloat16)
    try:
        table = VariantTable(config, max_rows=4).select(2)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(table.tau, exact.tau, rtol=0, atol=0)
    torch.testing.assert_close(table.coupling, exact.coupling, rtol=0, atol=0)
    with torch.device("meta"):
        shard = TokenShard([3], rank=0, size=2)
    assert shard.arrange(torch.ones(3, WIDTH)).sum() == 3 * WIDTH
