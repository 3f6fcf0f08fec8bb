"""The engine's features of labelled answers are the reference model's, at every growth stage."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model_impl.checkpoint.delta import split
from model_impl.reference.ensemble import ensemble_uncertainty
from model_impl.texts import TextTokenizer
from server.calibrate.labels import Label, LabelFile
from server.calibrate.scoring import score_labels
from server.calibrate.tokenised_label import tokenised_labels
from server.calibrate.variant import variant_of
from server.served.opening import open_model
from server.uncertainty.features import GROUPS
from tests.support import calibrated
from tests.support.calibrated import CONTEXT, END, greedy, words
from tests.support.grown import VOCABULARY
from tests.support.tolerances import Moved, assert_within, ensemble_tolerance

pytestmark = pytest.mark.engine

MEMBERS = 3


@pytest.mark.parametrize("stage", [0, 1, 2], ids=["earlier stage", "last stage", "delta"])
def test_features_are_the_references(stage: int, tmp_path: Path) -> None:
    calibrated.checkpoint(tmp_path / "m")
    model = calibrated.checkpoint(tmp_path / "three", 3)
    delta = split(tmp_path / "three", tmp_path / "delta").path
    draw = random.Random(stage)
    short = [draw.randrange(VOCABULARY) for _ in range(9)]
    long = [draw.randrange(VOCABULARY) for _ in range(CONTEXT - 6)]  # leaves room for six tokens
    own = greedy(model, stage, long, 6)
    shown = words([i for i in own if i != END])
    answer = [draw.randrange(VOCABULARY) for _ in range(12)]
    chat = [{"role": "user", "content": words(short)}]
    # By the default template, in whose text only w... are words the tokenizer knows: all others are w0.
    asked = [0, *short, 0]
    labels = [
        Label(1, words(short), words(answer), True),
        Label(2, chat, words(answer), False),
        Label(3, words(long), None, None, (shown,)),
        Label(4, words(long), None, None, ("w1",)),
        Label(5, words(long), words(answer[:5]), None, (words(answer[:5]),)),
        Label(6, chat, f"{words(answer[:5])}\n{words(answer[5:])}", True, sentence=0),
        Label(6, chat, f"{words(answer[:5])}\n{words(answer[5:])}", False, sentence=1),
    ]
    served = open_model(str(tmp_path / "m"))
    tokenised = tokenised_labels(LabelFile(tmp_path / "labels", labels, ""), TextTokenizer(served), CONTEXT)
    variant = variant_of(served, growth=delta) if stage == 2 else variant_of(served, served.stages[stage])
    scored = score_labels(variant, tokenised, CONTEXT, MEMBERS)
    every = slice(None)
    texts = [(short, answer, every), (asked, [*answer, END], every), (long, own, every), (long, own, every)]
    texts += [(long, answer[:5], every), *((asked, [*answer, END], part) for part in (slice(5), slice(5, None)))]
    assert [found.correct for found in scored] == [True, False, True, False, True, True, False]
    ends = ["length", "stop", own_end := "stop" if END in own else "length", own_end, "length", "stop", "stop"]
    assert [found.finish_reason for found in scored] == ends
    for found, (prompt, tokens, part) in zip(scored, texts, strict=True):
        whole = calibrated.answer(model, stage, prompt, tokens)
        moved = Moved(whole.tokens[part], whole.e[part])
        features = found.score.features()
        assert features is not None
        assert features.keys() == moved.features().keys()
        for name, (low, high) in moved.features().items():
            assert low <= features[name] <= high, name
        rows = ensemble_uncertainty(model, torch.tensor([[*prompt, *tokens]]), len(prompt), MEMBERS, stage)[0]
        rows = rows[part]
        further = torch.stack([rows[:, 0].mean(), rows[:, 0].max(), rows[:, 1].mean()])
        assert tuple(found.further) == GROUPS["ensemble"]
        epistemic, aleatoric = ensemble_tolerance(torch.tensor(moved.e), VOCABULARY).amax(0).tolist()
        allowed = torch.tensor([epistemic, epistemic, aleatoric])
        assert_within(torch.tensor([*found.further.values()]), further, allowed)
        assert found.score.features(found.further) == features | found.further  # type: ignore[operator]
    answers = (calibrated.answer(model, which, short, answer).features() for which in (0, 1, 2))
    assert all(one != other for one, other in pairwise(answers))
