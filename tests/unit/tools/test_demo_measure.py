"""What is measured of the demo: greedy answers and their highest entropy, on a tiny random checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo import measure
from demo.course import CHEMISTRY, GEOGRAPHY, Course, Kind
from demo.measure import Asked, Model, Reply, certainties, measured, separation, wordings
from model_impl.reference.model import ReferenceTokenformer
from model_impl.texts import TextTokenizer, TokenizedCheckpoint
from tests.support.demo_server import DEMO
from tests.support.exact import exact_statistics
from tests.support.grown import grown_checkpoint

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
MESSAGES = ["Hello!", "What is the capital of the United Arab Emirates?", "Bye", "Where is Peru?", "Symbol of gold"]
PERU = next(lesson for lesson in GEOGRAPHY.lessons if (lesson.subject, lesson.attribute) == ("Peru", "capital"))
SWISS = next(
    lesson for lesson in GEOGRAPHY.lessons if (lesson.subject, lesson.attribute) == ("Switzerland", "language")
)
STAGES = {"base": (GEOGRAPHY,), "grown-1": (GEOGRAPHY, CHEMISTRY)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny") / "checkpoint"


@pytest.fixture(scope="module")
def reference(path: Path) -> ReferenceTokenformer:
    files = {name: (DEMO / name).read_bytes() for name in FILES}
    return grown_checkpoint(path, files=files, vocab_size=2048, padded_vocab_size=2048, eos_token_id=1)


@pytest.fixture(scope="module", params=STAGES)
def model(request: pytest.FixtureRequest, reference: ReferenceTokenformer, path: Path) -> Model:
    return Model(path, request.param)


@torch.no_grad()
def test_a_reply_is_the_references_greedy_answer_with_its_highest_entropy(
    model: Model, reference: ReferenceTokenformer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of messages of different lengths, in the order of the messages."""
    monkeypatch.setattr(measure, "BATCH", 2)
    monkeypatch.setattr(measure, "LONGEST", 6)
    tokenizer, stage = TextTokenizer(TokenizedCheckpoint(path)), [*STAGES].index(model.stage)
    for message, reply in zip(MESSAGES, model.replies(MESSAGES), strict=True):
        ids, answer, entropies = tokenizer.ids([{"role": "user", "content": message}], ask=True), list[int](), []
        while len(answer) < 6 and answer[-1:] != [1]:
            logits = reference(torch.tensor([[*ids, *answer]]), stage)[0, -1]
            entropies.append(float(exact_statistics(logits.double()[None])[0, 0]))
            answer.append(int(logits.argmax()))
        assert reply.text == tokenizer.tokenizer.decode(answer, skip_special_tokens=True)
        assert reply.entropy == pytest.approx(max(entropies), abs=1e-4)


def test_a_lesson_is_asked_in_as_many_different_wordings_as_wanted(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LONGEST", 1)
    assert [one.lesson for one in model.ask([PERU, SWISS], number=3)] == [PERU] * 3 + [SWISS] * 3
    for held_out in (False, True):
        chosen = wordings(PERU, held_out, 3, typed=False)
        assert len({*chosen}) == 3 and {*chosen} <= {*PERU.questions(held_out)}
        assert wordings(PERU, held_out, 3, typed=False) == chosen
    assert len(wordings(PERU, True, 3, typed=True)) == 3


@pytest.mark.parametrize(
    ("text", "right", "in_form"),
    [
        ("The capital of Peru is Lima.", True, True),
        ("The capital of Peru is Cusco.", False, True),
        ("The capital of Chile is Lima.", False, False),
        ("The capital of Peru is Lima. It is big.", False, True),
        ("Lima", False, False),
    ],
)
def test_only_the_whole_sentence_is_right(text: str, right: bool, in_form: bool) -> None:
    asked = Asked(PERU, Reply(text, 0.1))
    assert (asked.right, asked.in_form) == (right, in_form)


def test_every_answer_to_an_ambiguous_fact_is_right() -> None:
    assert all(Asked(SWISS, Reply(answer, 1.0)).right for answer in SWISS.answers())


def test_separation_is_the_probability_that_an_unknown_fact_has_more_entropy() -> None:
    def asked(*entropies: float) -> list[Asked]:
        return [Asked(PERU, Reply("", entropy)) for entropy in entropies]

    found: dict[Kind, list[Asked]] = {"known": asked(0.1, 0.3), "left_out": asked(0.2), "invented": asked(0.9)}
    assert separation(found) == 3 / 4
    (known, *_, invented) = certainties(found | {"left_out": asked(0.2, 0.4), "invented": asked(0.9, 0.9)}, "base", "g")
    assert known[:4] == ("base", "g", "known", "2")
    assert invented[4:] == ("0.900", "0.900", "0.900", "-", "0.0%")


def small(course: Course) -> Course:
    groups = course.groups[:12]
    facts = tuple(fact for fact in course.facts if fact.group in groups)
    return Course(course.name, facts, 3, frozenset(), course.invented[:2])


def test_a_report_has_a_row_for_every_stage_and_kind(
    reference: ReferenceTokenformer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random model is right about nothing."""
    geography, chemistry = small(GEOGRAPHY), small(CHEMISTRY)
    monkeypatch.setattr(measure, "GEOGRAPHY", geography)
    monkeypatch.setattr(measure, "CHEMISTRY", chemistry)
    monkeypatch.setattr(measure, "COURSES", {"base": (geography,), "chemistry": (geography, chemistry)})
    monkeypatch.setattr(measure, "Model", lambda checkpoint, stage: Tiny(checkpoint, stage))
    monkeypatch.setattr(measure, "LONGEST", 2)
    report = measured(path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")]
    right = [row for row in rows if row[3:4] and row[3] in ("trained", "never trained", "typed")]
    assert len(right) == 3 * 6 + 1
    assert {row[-1] for row in right} == {"0.00%"}
    assert ["base", "chemistry", "not learned"] in [row[:3] for row in right]
    kinds = [row[:3] for row in rows if len(row) == 9]
    for stage, course in (("base", "geography"), ("chemistry", "geography"), ("chemistry", "chemistry")):
        assert [stage, course, "left out"] in kinds and [stage, course, "invented"] in kinds
    assert ["base", "small talk"] in [row[:2] for row in rows]


class Tiny(Model):
    """The random checkpoint, whose grown stage has another name."""

    def __init__(self, checkpoint: Path, stage: str) -> None:
        super().__init__(checkpoint, {"chemistry": "grown-1"}.get(stage, stage))
        self.stage = stage


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["measure", str(tmp_path)])
    with pytest.raises(SystemExit, match="no demo checkpoint here"):
        measure.main()
