"""Greedy and sampled answers from the reference model, which has no KV cache: many at once, and few passes each.

Every pass carries a guess of the rest of the answer, at first the expected one. Where the chosen token is the guessed
one, the next position's distribution is already in the same pass; elsewhere a new pass begins after the choice. So a
right answer takes one pass, and samples that agree share theirs. Nothing is approximated: this is speculative decoding
with exact verification (Leviathan et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

BATCH = 128
LIMIT = 24
"""Tokens after which an answer is cut. The longest right answer of the demo world has 17."""

Logits = Callable[[torch.Tensor], torch.Tensor]
"""Causal: token ids int64 [B, T] -> logits [B, T, V]."""

Choice = Callable[[torch.Tensor, int], dict[int, int]]
"""(logits [V], number of answers with this beginning) -> the number of them that continue with each token."""


@dataclass(frozen=True)
class Draft:
    """A prompt, its expected answer, and the end token. The expected answer is a guess, which costs or saves time."""

    prompt: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """An answer's tokens with the end token, unless it was cut; its count; and the mean raw logit of its tokens."""

    tokens: tuple[int, ...]
    count: int
    mean_logit: float


@dataclass(frozen=True)
class Node:
    """`count` answers to draft number `draft` that begin with `tokens`; `logits` is the sum of those tokens' logits."""

    draft: int
    tokens: tuple[int, ...]
    count: int
    logits: float
    guess: tuple[int, ...]


def greedy(logits: torch.Tensor, count: int) -> dict[int, int]:
    return {int(logits.argmax()): count}


def sampler(generator: torch.Generator) -> Choice:
    """Samples at temperature 1."""

    def choose(logits: torch.Tensor, count: int) -> dict[int, int]:
        drawn = torch.multinomial(logits.softmax(dim=-1), count, replacement=True, generator=generator)
        tokens, counts = drawn.unique(return_counts=True)
        return dict(zip(tokens.tolist(), counts.tolist(), strict=True))

    return choose


@torch.no_grad()
def answers(model: Logits, drafts: Sequence[Draft], end: int, choose: Choice, count: int = 1) -> list[list[Answer]]:
    """`count` answers to every prompt, equal ones together."""
    done: list[list[Answer]] = [[] for _ in drafts]
    nodes = [Node(i, (), count, 0.0, draft.expected) for i, draft in enumerate(drafts)]
    while nodes:
        following: list[Node] = []
        for batch in batched(nodes, lambda node: len(drafts[node.draft].prompt) + len(node.tokens) + len(node.guess)):
            logits = model(padded([drafts[n.draft].prompt + n.tokens + n.guess for n in batch]))
            for row, node in enumerate(batch):
                start = len(drafts[node.draft].prompt) + len(node.tokens) - 1
                tail = drafts[node.draft].expected[-2:]  # every value is followed by the full stop and the end
                following += walk(node, logits[row, start:], tail, end, choose, done[node.draft])
        nodes = following
    return done


def walk(
    node: Node, logits: torch.Tensor, tail: tuple[int, ...], end: int, choose: Choice, done: list[Answer]
) -> list[Node]:
    """Follow the guess as far as choices agree. `done` gets the finished answers; the result are those that left it."""
    left = []
    for depth in range(len(node.guess) + 1):
        stay = 0
        for token, count in choose(logits[depth], node.count).items():
            tokens, total = (*node.tokens, token), node.logits + float(logits[depth, token])
            if token == end or len(tokens) == LIMIT:
                done.append(Answer(tokens, count, total / len(tokens)))
            elif depth < len(node.guess) and token == node.guess[depth]:
                stay, kept = count, total
            else:
                left.append(Node(node.draft, tokens, count, total, tail))
        if not stay:
            break
        node = Node(node.draft, (*node.tokens, node.guess[depth]), stay, kept, node.guess)
    return left


def batched(items: Sequence[Node], length: Callable[[Node], int]) -> Iterator[list[Node]]:
    ordered = sorted(items, key=length)
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of token ids as int64 [B, T], padded behind the text, where causal attention does not look."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
