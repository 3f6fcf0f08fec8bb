"""The synthetic world and its texts: the stated facts, their counts, and the facts never stated."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from evals.world.corpus import DOCUMENT_PASSES, epoch_chats, epoch_documents
from evals.world.people import DECK_SIZE, KINDS, WORLD_A, WORLD_B, Fact, World
from evals.world.phrases import ATTRIBUTES, FIRST_NAMES, INTRODUCTION_REPLIES, INTRODUCTIONS, LAST_NAMES, SMALL_TALK

WORLD = World(seed=3, known=128, unknown=64)


def texts(world: World, epochs: int) -> list[str]:
    """Every document and every chat message."""
    chats = [chat for epoch in range(epochs) for chat in epoch_chats(world, epoch)]
    documents = [text for epoch in range(epochs) for text in epoch_documents(world, epoch)]
    return documents + [message["content"] for chat in chats for message in chat.messages()]


def stated_values(fact: Fact, documents: list[str]) -> Counter[str]:
    """How often each value of the attribute follows one of its predicates in the sentences about the person."""
    counts: Counter[str] = Counter()
    for document in documents:
        for sentence in document.split(".")[:-1]:
            if sentence.strip().startswith(fact.person.name + " "):
                for clause in sentence.replace(" and ", ", ").split(", "):
                    for predicate in fact.attribute.predicates:
                        _, found, value = clause.partition(predicate + " ")
                        if found and value in fact.attribute.values:
                            counts[value] += 1
    return counts


def test_a_seed_gives_one_world_and_another_seed_another() -> None:
    again = World(seed=3, known=128, unknown=64)
    assert again.people == WORLD.people and again.facts == WORLD.facts
    assert epoch_documents(again, 5) == epoch_documents(WORLD, 5) and epoch_chats(again, 5) == epoch_chats(WORLD, 5)
    assert epoch_documents(WORLD, 6) != epoch_documents(WORLD, 5)
    assert World(seed=4, known=128, unknown=64).people != WORLD.people


def test_world_a_is_as_large_as_promised_and_has_all_kinds_of_facts() -> None:
    assert sum(person.known for person in WORLD_A.people) >= 1000 and len(ATTRIBUTES) >= 6
    kinds = Counter(fact.kind for fact in WORLD_A.facts)
    assert all(kinds[kind] >= 300 for kind in KINDS)


def test_no_person_lives_in_both_worlds() -> None:
    assert not {person.name for person in WORLD_A.people} & {person.name for person in WORLD_B.people}


def test_people_of_one_seed_are_disjoint_across_worlds_and_roles() -> None:
    here, there = World(seed=3, known=128, unknown=64), World(seed=3, known=128, unknown=64, offset=192)
    names = [person.name for person in here.people + there.people] + list(here.visitors)
    assert len(set(names)) == len(names)
    assert here.visitors == there.visitors


def test_every_name_part_is_as_frequent_among_unknown_people_as_among_known_ones() -> None:
    for part, size in ((0, len(FIRST_NAMES)), (1, len(LAST_NAMES))):
        known = Counter(person.name.split()[part] for person in WORLD.people if person.known)
        unknown = Counter(person.name.split()[part] for person in WORLD.people if not person.known)
        assert len(known) == size and set(known.values()) == {2} and set(unknown.values()) == {1}


def test_a_world_that_needs_more_names_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 3072 names"):
        World(known=3000, unknown=100)


def test_distributions_sum_to_one_over_values_with_different_first_words() -> None:
    for fact in WORLD.facts:
        values, shares = zip(*fact.distribution, strict=True)
        assert sum(round(share * DECK_SIZE) for share in shares) == DECK_SIZE
        assert shares == tuple(sorted(shares, reverse=True)) and set(values) <= set(fact.attribute.values)
        assert len({value.split()[0] for value in values}) == len(values)
        assert (2 <= len(values) <= 6) == (fact.kind == "ambiguous")


def test_documents_carry_each_distribution_exactly_and_are_silent_about_the_rest() -> None:
    documents = [text for epoch in range(DECK_SIZE // DOCUMENT_PASSES) for text in epoch_documents(WORLD, epoch)]
    by_person = {person.name: [text for text in documents if person.name in text] for person in WORLD.people}
    for fact in WORLD.facts:
        counts = stated_values(fact, by_person[fact.person.name])
        stated = {value: round(share * DECK_SIZE) for value, share in fact.distribution} if fact.stated else {}
        assert counts == stated, fact


def test_chats_carry_the_distributions_of_asked_people_exactly() -> None:
    turns = [turn for epoch in range(DECK_SIZE) for chat in epoch_chats(WORLD, epoch) for turn in chat.turns]
    answers = Counter(answer for _, answer in turns)
    for fact in WORLD.facts:
        asked = fact.stated and fact.person.asked
        for value, share in fact.distribution:
            assert answers[fact.answer(value)] == (round(share * DECK_SIZE) if asked else 0), fact


def test_unknown_people_appear_in_no_text_and_visitors_only_in_introductions() -> None:
    corpus = texts(WORLD, 3)
    joined = "\n".join(corpus)
    assert not any(person.name in joined for person in WORLD.people if not person.known)
    visited = [text for text in corpus if any(name in text for name in WORLD.visitors)]
    forms = {form.lower().rstrip(".") for form in INTRODUCTIONS + INTRODUCTION_REPLIES}
    assert visited
    for text in visited:
        name = next(name for name in WORLD.visitors if name in text)
        assert text.replace(name, "{name}").lower().rstrip(".") in forms


def test_no_chat_asks_with_a_held_out_wording() -> None:
    asked = {text.lower().rstrip("?.") for text in texts(WORLD, 6)}
    for fact in WORLD.facts:
        assert not asked & {question.lower().rstrip("?.") for question in fact.questions(held_out=True)}
    used = {question for fact in WORLD.facts for question in fact.questions() if question.lower().rstrip("?.") in asked}
    assert len(used) > 1000  # the comparison above does find questions that are asked


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_every_attribute_has_several_wordings_and_some_held_out(attribute) -> None:
    assert len(set(attribute.predicates)) >= 3
    assert len(attribute.questions) >= 6 and len(attribute.held_out_questions) >= 3
    assert not set(attribute.questions) & set(attribute.held_out_questions)
    assert len(set(attribute.values)) == len(attribute.values) >= 30


def test_held_out_wordings_combine_words_of_training_questions() -> None:
    trained = {word for attribute in ATTRIBUTES for text in attribute.questions for word in re.findall(r"\w+", text)}
    held_out = {
        word for attribute in ATTRIBUTES for text in attribute.held_out_questions for word in re.findall(r"\w+", text)
    }
    assert held_out <= trained


def test_small_talk_covers_greetings_identity_and_thanks() -> None:
    messages = {message for group, _ in SMALL_TALK for message in group}
    assert {"Hello!", "Who are you?", "Thanks", "Bye"} <= messages
    assert messages <= set(texts(WORLD, 4))
