"""The labels for the demo checkpoint's calibration: their mix, and the right answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from demo.labels import READ, Labels
from evals.world.people import WORLD_A, WORLD_B
from evals.world.phrases import ATTRIBUTES, SMALL_TALK
from server.calibrate.labels import Label, read_labels
from tests.support.paths import ROOT


@pytest.fixture(scope="module", params=READ)
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def labels(stage: str, tmp_path_factory: pytest.TempPathFactory) -> list[Label]:
    """As the script writes them and `tokenformer calibrate` reads them."""
    file = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    with file.open("w") as stream:
        root = ROOT
        subprocess.run([sys.executable, "-m", "demo.labels", stage], stdout=stream, check=True, cwd=root)
    return read_labels(file).labels


def test_they_are_always_the_same(stage: str, labels: list[Label]) -> None:
    again = islice(Labels(READ[stage]), 50)
    assert [json.dumps(line["messages"]) for line in again] == [json.dumps(label.prompt) for label in labels[:50]]


def test_every_fact_of_the_people_read_about_is_asked_once_and_no_unknown_person_of_either_world(
    stage: str, labels: list[Label]
) -> None:
    read = READ[stage]
    known = {person.name for world in read for person in world.people if person.known}
    kept_back = {person.name for world in (WORLD_A, WORLD_B) for person in world.people} - known
    asked = Counter(label.group for label in labels)
    assert {asked[name] for name in known} == {6}
    assert not kept_back & asked.keys()
    facts: dict[str, list[set[str]]] = {
        fact.person.name: [] for world in read for fact in world.facts if fact.person.known
    }
    for fact in (fact for world in read for fact in world.facts if fact.person.known):
        facts[fact.person.name].append({fact.answer(value) for value, _ in fact.distribution})
    for name in list(known)[:100]:
        expected = [set(label.expected) for label in labels if label.group == name]
        assert sorted(expected, key=min) == sorted(facts[name], key=min)


def test_labels_have_the_documented_mix(stage: str, labels: list[Label]) -> None:
    known = {person.name for world in READ[stage] for person in world.people if person.known}
    names = {name for world in (WORLD_A, WORLD_B) for name in world.visitors}
    small_talk = {message.rstrip("!?.").lower() for messages, _ in SMALL_TALK for message in messages}
    last = [(label, str(label.prompt[-1]["content"])) for label in labels]  # type: ignore[index]
    talk = [label for label, text in last if text.rstrip("!?.").lower() in small_talk or label.group in names]
    about_known = [label for label in labels if label.group in known]
    size = len(labels)
    assert size > 10_000
    assert len(talk) / size == pytest.approx(0.05, abs=0.001)
    assert len(about_known) / (size - len(talk)) == pytest.approx(0.6, abs=0.01)
    assert sum(len(label.prompt) > 1 for label in labels) / size == pytest.approx(0.25, abs=0.02)
    assert all(label.answer is None and label.expected for label in labels)
    assert all(label.group for label in labels)
    topics = {label.topic for label in labels if label not in talk}
    assert topics == {attribute.name for attribute in ATTRIBUTES} and {label.topic for label in talk} == {"small talk"}
