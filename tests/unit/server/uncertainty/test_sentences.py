"""Where the sentences of an answer end, and which tokens are whose."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.uncertainty.sentences import divided, sentences
from server.uncertainty.tokens import TokenScore


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        [],
        ["Hi"],
        ["  \n"],
        ["Hello! ", "Ask me about a person."],
        ["Really?! ", "Yes."],
        ["Wait... what? ", "No."],
        # Decimals, URLs, and letters between points.
        ["Dr. Smith has 3.14 apples. ", "She likes them."],
        ["See www.x.com?a=1.5 and go. ", "Bye"],
        ["U.S. forces left. ", "They came back at 5 p.m. yesterday."],
        # Abbreviations, initials and numbers of lists.
        ["It is e.g. Lisbon, i.e. the capital. ", "J. K. Rowling said so!"],
        ["Fruit etc. and so on. ", "More."],
        ["1. Lisbon\n", "2. Porto\n\n", "- Faro"],
        ["It was in 1984. ", "Then came 1985. ", "The end."],
        # Quotation marks and brackets close with their sentence.
        ['He said "Stop!" ', "Then he left. ", "(Yes.) ", "\u201cWhy?\u201d ", "Because."],
        ["\u201cStop!\u201d he said. ", "So."],
        # Lines end sentences, and what has no letter belongs to the one before it.
        ["A title\n", "and a text. \u2026\n"],
        ["... Hello. ", "Bye. 🙂"],
        # Other scripts, some of which put no space between sentences.
        ["東京です。", "大阪です。", "「はい。」", "そう。"],
        ["नमस्ते। ", "कैसे हो?"],
        ["Привет. ", "Как дела?"],
    ],
)
def test_where_sentences_end(expected: list[str]) -> None:
    assert split("".join(expected)) == expected


@given(st.text("abC Z1.!?,;\"'()\n\t。「」é🙂-\u0301\u2028", max_size=60) | st.text(max_size=60))
def test_sentences_partition_the_text(text: str) -> None:
    found = sentences(text)
    assert "".join(split(text)) == text
    assert all(start < end for start, end in found)
    assert all(any(map(str.isalnum, sentence)) for sentence in split(text)) or len(found) == 1


words = st.from_regex(r"[A-Z][a-z]{4,8}( [a-z]{1,8}| [0-9]{1,3}\.[0-9]{1,3}){0,5}", fullmatch=True)


@given(st.lists(st.tuples(words, st.sampled_from([". ", "! ", "? ", "?! ", '." ', ".) ", "\n", ".\n\n"])), max_size=8))
def test_joined_sentences_are_found_again(parts: list[tuple[str, str]]) -> None:
    whole = [text + stop for text, stop in parts]
    assert split("".join(whole)) == whole


@given(st.lists(st.text("aB. 。\n", max_size=5), max_size=20), st.integers(0, 60))
def test_every_token_belongs_to_one_sentence(texts: list[str], length: int) -> None:
    """Also where the text is cut off, as by a stop string."""
    tokens, whole = [], ""
    for i, text in enumerate(texts):
        tokens.append(TokenScore(float(-i), 0.0, 0.0, 0.0, text, len(whole)))
        whole += text
    found = divided(tokens, whole[:length])
    groups = [tokens[sentence.tokens] for sentence in found]
    assert [(sentence.start, sentence.end) for sentence in found] == sentences(whole[:length])
    assert [token for group in groups for token in group] == (tokens if found else [])
    for sentence, group in zip(found, groups, strict=True):
        for token in filter(lambda token: token.text, group):
            assert token.start < sentence.end or sentence == found[-1]
            assert token.start + len(token.text) > sentence.start


def test_a_token_is_of_the_sentence_that_it_reaches_into() -> None:
    texts = ["It", " rains", ".", " She", " si", "", "ngs", "."]
    tokens, start = [], 0
    for text in texts:
        tokens.append(TokenScore(0.0, 0.0, 0.0, 0.0, text, start))
        start += len(text)
    end = TokenScore(0.0, 0.0, 0.0, 0.0, "", start, special=True)
    text = "".join(texts)
    assert split(text) == ["It rains. ", "She sings."]
    found = divided([*tokens, end], text)
    assert [[token.text for token in [*tokens, end][part.tokens]] for part in found] == [texts[:3], [*texts[3:], ""]]
    # An echoed prompt is not part of the answer, whatever its sentences are.
    echoed = "Hm. And then "
    moved = [token._replace(start=token.start + len(echoed)) for token in tokens]
    found = divided(moved, echoed + text)
    assert [(echoed + text)[part.start : part.end] for part in found] == ["It rains. ", "She sings."]
    assert divided([], "Hm.") == divided([end], text) == []


@pytest.mark.parametrize("text", ["! ", "J. ", "a. ", "1. ", "(", '."', "\n", "a.", "「", ". (", "A. "])
def test_a_long_text_takes_no_longer_per_character(text: str) -> None:
    began = time.perf_counter()
    whole = text * (400_000 // len(text))
    assert "".join(split(whole)) == whole
    assert time.perf_counter() - began < 10
