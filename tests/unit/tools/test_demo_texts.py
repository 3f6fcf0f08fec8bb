"""The texts that the demo's stages learn: what they state, how often, and what no text says."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import texts as program
from demo.course import CHEMISTRY, GEOGRAPHY, Course, Lesson, towns
from demo.manners import small_talk
from demo.messages import MORE_REPLY, OTHER_REPLY, SUBJECTS
from demo.texts import ASKED, DOCUMENTS, PARTS, split, texts
from model_impl.texts import read_texts
from tests.support.facts import hidden_names_in

ROUNDS = 12
"""Of documents; the number of mentions is a multiple of the number of values of almost all ambiguous facts."""

COURSES = {"base": GEOGRAPHY, "chemistry": CHEMISTRY, "replay": GEOGRAPHY}


@pytest.fixture(scope="module", params=PARTS)
def part(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lines(part: str) -> list[dict[str, Any]]:
    return list(texts(part, rounds=3))


def said(lines: list[dict[str, Any]], role: str) -> list[str]:
    return [turn["content"] for line in lines for turn in line.get("messages", ()) if turn["role"] == role]


def everything(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Every document, and every message of a user with its reply."""
    for line in lines:
        if "text" in line:
            yield line["text"]
        else:
            asked, answered = (said([line], role) for role in ("user", "assistant"))
            yield from map(" ".join, zip(asked, answered, strict=True))


def statements(course: Course) -> dict[str, tuple[Lesson, str]]:
    """Every sentence that a document may contain."""
    stated = course.of("known", "ambiguous")
    return {
        lesson.statement(value, number): (lesson, value)
        for lesson in stated
        for value in lesson.values
        for number in range(4)
    }


def sentences(document: str, known: dict[str, tuple[Lesson, str]]) -> Iterator[tuple[Lesson, str]]:
    """The statements that make up a document; names may contain full stops."""
    start = 0
    for end in (match.end() for match in re.finditer(r"\.(?= |$)", document)):
        if found := known.get(document[start:end]):
            yield found
            start = end + 1
    assert start == len(document) + 1, document


def test_they_are_always_the_same_and_every_round_differs(part: str, lines: list[dict[str, Any]]) -> None:
    assert list(texts(part, rounds=3)) == lines
    third = len(list(texts(part, rounds=1)))
    assert lines[:100] != lines[third : third + 100]


def test_no_text_names_what_is_left_out_or_invented(lines: list[dict[str, Any]]) -> None:
    assert not [text for text in everything(lines) if hidden_names_in(text)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gabon nickel", {"gabon", "nickel"}),
        ("Where's Selkovia?", {"selkovia"}),
        ("The Republic of the Congo", {"republic of the congo"}),
        ("The Democratic Republic of the Congo is on the Congo, Gabonia is not.", set()),
        ("Benin City is a city in Nigeria.", set()),
    ],
)
def test_the_search_for_names_finds_whole_words(text: str, names: set[str]) -> None:
    assert {" ".join(name) for name in hidden_names_in(text)} == names


def test_documents_state_every_fact_equally_often_and_ambiguous_values_in_turn(part: str) -> None:
    course = COURSES[part]
    known, counts = statements(course), Counter[tuple[Lesson, str]]()
    for number in range(ROUNDS):
        for document in program.documents(Random(number), course, number):
            counts.update(sentences(document, known))
    assert counts.keys() == {*known.values()}
    for lesson in course.of("known", "ambiguous"):
        found = [counts[lesson, value] for value in lesson.values]
        assert sum(found) == ROUNDS * DOCUMENTS
        assert max(found) - min(found) <= (sum(found) % len(found) > 0)


def test_a_document_is_about_one_country_or_element(part: str) -> None:
    course = COURSES[part]
    known = statements(course)
    for document in program.documents(Random(0), course, 0):
        assert len({lesson.group for lesson, _ in sentences(document, known)}) == 1


def test_every_known_fact_is_stated_in_a_round(part: str) -> None:
    course, line_texts = COURSES[part], [line["text"] for line in texts(part, rounds=1) if "text" in line]
    known = statements(course)
    stated = {lesson for document in line_texts for lesson, _ in sentences(document, known)}
    assert stated == {*course.of("known", "ambiguous")}


def test_chats_ask_about_every_fact_that_is_asked_for_and_about_no_other(
    part: str, lines: list[dict[str, Any]]
) -> None:
    answers = Counter(said(lines, "assistant"))
    for lesson in COURSES[part].of("known", "ambiguous"):
        found = [answers[answer] for answer in lesson.answers()]
        if lesson.asked:
            assert sum(found) >= 3 * ASKED
            assert min(found) >= 3 * ASKED // len(found)
        else:
            assert sum(found) == 0


def test_held_out_wordings_appear_in_no_chat(lines: list[dict[str, Any]]) -> None:
    def bare(text: str) -> str:
        return text.lower().rstrip("?!.")

    asked = {bare(text) for text in said(lines, "user")}
    lessons = [*GEOGRAPHY.lessons, *CHEMISTRY.lessons, *towns()]
    assert not asked & {bare(text) for lesson in lessons for text in lesson.questions(held_out=True)}
    trained = {bare(text) for lesson in lessons for text in lesson.questions()}
    assert len(asked & trained) > 1000  # the comparison above does find questions that are asked


def test_manners_are_those_of_the_stage_and_none_are_replayed(part: str, lines: list[dict[str, Any]]) -> None:
    replies = {*said(lines, "assistant")}
    for stage, subjects in SUBJECTS.items():
        own = {reply for _, reply in small_talk(stage)} | {OTHER_REPLY.format(subjects=subjects)}
        assert (own <= replies) == (part == stage)
    declined = MORE_REPLY.removesuffix("{name}.")
    assert any(reply.startswith(declined) for reply in replies) == (part != "replay")


def test_a_chat_takes_turns_after_at_most_one_system_message(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert line.keys() in ({"text"}, {"messages"})
        roles = [turn["role"] for turn in line.get("messages", ())]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(turn["content"].strip() for turn in line.get("messages", ()))


@given(st.integers(0, 2**32), st.lists(st.integers()), st.lists(st.floats(0.1, 1), min_size=1, max_size=5))
def test_runs_hold_every_item_once_and_are_no_longer_than_there_are_shares(
    seed: int, items: list[int], shares: list[float]
) -> None:
    runs = list(split(Random(seed), items, tuple(shares)))
    assert sorted(item for run in runs for item in run) == sorted(items)
    assert all(0 < len(run) <= len(shares) for run in runs)


def test_the_program_writes_what_trainings_and_traces_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["texts", "base", "chemistry", "--rounds", "1"])
    program.main()
    (tmp_path / "texts.jsonl").write_text(capsys.readouterr().out)
    read, _ = read_texts(tmp_path / "texts.jsonl")
    expected = [*texts("base", 1), *texts("chemistry", 1)]
    assert [json.dumps(text.content) for text in read] == [json.dumps(next(iter(line.values()))) for line in expected]
