"""The choice of doubted words, and their reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.uncertainty.score import ChoiceScore
from server.uncertainty.spans import STANDS_OUT, UNDECIDED_ENTROPY, reason, undecided_spans, words
from server.uncertainty.tokens import TokenScore

SURE, UNSURE = 0.1, math.log(6)


def token(text: str, entropy: float = SURE, logprob: float = -0.1, special: bool = False) -> TokenScore:
    return TokenScore(logprob, entropy, 0.5, 0.3, text, special=special)


def put_together(parts: Sequence[TokenScore]) -> tuple[list[TokenScore], str]:
    """The tokens at their places, and the text that they make."""
    tokens, text = [], ""
    for part in parts:
        tokens.append(part._replace(start=len(text)))
        text += part.text
    return tokens, text


def doubted(*parts: TokenScore, length: int | None = None) -> list[str]:
    """The words doubted in the first `length` characters."""
    tokens, text = put_together(parts)
    spans = undecided_spans(tokens, text[:length])
    return [text[:length][span.start : span.end] for span in spans]


def test_a_token_is_doubted_above_two_equally_likely_words() -> None:
    assert doubted(token("yes", math.nextafter(UNDECIDED_ENTROPY, 9))) == ["yes"]
    assert doubted(token("yes", UNDECIDED_ENTROPY)) == []
    assert pytest.approx(-2 * 0.5 * math.log(0.5)) == UNDECIDED_ENTROPY


def test_an_unlikely_choice_is_doubted() -> None:
    assert doubted(token("yes", SURE, -SURE - STANDS_OUT - 1e-9)) == ["yes"]
    assert doubted(token("yes", SURE, -SURE - STANDS_OUT + 1e-9)) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_the_likeliest_word_never_stands_out(weights: list[float]) -> None:
    p = [weight / math.fsum(weights) for weight in weights]
    entropy = -math.fsum(x * math.log(x) for x in p)
    assert "unlikely" not in reason(token("yes", entropy, math.log(max(p))))


def test_doubt_spreads_to_the_whole_word_and_no_further() -> None:
    assert doubted(token("in "), token("Lis", UNSURE), token("bon"), token(".")) == ["Lisbon"]
    assert doubted(token("in"), token(" Lis"), token("bon.", UNSURE)) == ["Lisbon"]
    assert doubted(token("Lis", UNSURE), token("bon", UNSURE), token(" or"), token(" Bern", UNSURE)) == [
        "Lisbon",
        "Bern",
    ]


def test_a_token_of_several_words_makes_one_span() -> None:
    assert doubted(token("in"), token(" New York", UNSURE), token("ers")) == ["New Yorkers"]
    assert doubted(token("N", UNSURE), token("ew Yor", UNSURE), token("k C", UNSURE), token("ity")) == ["New York City"]


def test_only_letters_and_digits_are_doubted() -> None:
    assert doubted(*(token(text, UNSURE) for text in (" ", "\n", ".", "🙂", "--", "“"))) == []
    assert doubted(*(token(text, UNSURE) for text in ("7", " ", "é", " ", "名"))) == ["7", "é", "名"]


def test_special_tokens_are_not_doubted_even_where_the_text_shows_them() -> None:
    end = token("<|end|>", UNSURE, special=True)
    assert doubted(token("yes", UNSURE), end) == ["yes"]
    assert doubted(token("yes"), end) == []
    assert doubted(token("yes"), end._replace(text="")) == []


def test_a_character_split_over_tokens_is_doubted_for_any_of_them() -> None:
    """The text of the character comes with its last token."""
    parts = [token("in "), token("", UNSURE), token("", SURE), token("日", SURE), token("本", SURE)]
    assert doubted(*parts) == ["日"]
    assert doubted(token("caf"), token("", UNSURE), token("é")) == ["café"]
    assert doubted(token("a "), token("", UNSURE), token("", UNSURE), token("🙂")) == []
    assert doubted(token("a "), token("", UNSURE), token("", UNSURE)) == [], "cut within the character"


def test_a_stop_string_may_cut_a_word() -> None:
    parts = [token("in "), token("Lisbon", UNSURE), token(" or"), token(" Bern", UNSURE)]
    assert doubted(*parts, length=6) == ["Lis"]
    assert doubted(*parts, length=9) == ["Lisbon"]
    assert doubted(*parts, length=14) == ["Lisbon", "B"]
    assert doubted(*parts, length=3) == doubted(*parts, length=0) == doubted() == []


def test_what_is_a_word() -> None:
    def found(text: str) -> list[str]:
        return [text[start:end] for start, end in words(text)]

    assert found("It isn\u2019t 3.14, Jean-Luc.") == ["It", "isn\u2019t", "3.14", "Jean-Luc"]
    assert found('{"place_name": ["x1",2]}') == ["place_name", "x1", "2"]
    assert found("cafe\u0301 हिन्दी") == ["cafe\u0301", "हिन्दी"]
    assert found("東京へ") == ["東", "京", "へ"]
    assert found("-- ' … 🙂") == found("") == []


def test_the_reason_says_how_undecided_the_model_was() -> None:
    assert reason(token("Lis", UNSURE)) == (
        "high entropy at the first token of the word: as undecided as among 6 words"
    )
    assert reason(token("bon", math.log(3)), begins=False) == (
        "high entropy inside the word: as undecided as among 3 words"
    )
    assert reason(token("Lis", SURE, math.log(0.03))) == "an unlikely word was chosen (the model gave it 3 %)"
    assert reason(token("Lis", SURE, -9999.0)) == "an unlikely word was chosen (the model gave it less than 1 %)"


@pytest.mark.parametrize(
    ("epistemic", "said"),
    [
        (None, ""),
        (0.0, "; several answers are familiar"),
        (0.14, "; several answers are familiar"),
        (0.2, ""),
        (0.31, "; unfamiliar to the model's parameters"),
    ],
)
def test_the_ensemble_tells_why_the_entropy_is_high(epistemic: float | None, said: str) -> None:
    plain = reason(token("Lis", UNSURE))
    assert reason(token("Lis", UNSURE), epistemic=epistemic) == plain + said
    tokens, text = put_together([token("in", SURE), token(" ", UNSURE), token("Lis", UNSURE)])
    (span,) = undecided_spans(tokens, text, [0.0, 0.2, epistemic])
    assert span.reason == plain + said


def test_the_worst_token_of_a_word_gives_the_reason() -> None:
    tokens, text = put_together([token("Li", math.log(3)), token("s", SURE), token("bon", math.log(9))])
    (span,) = undecided_spans(tokens, text)
    assert span.reason == "high entropy inside the word: as undecided as among 9 words"
    tokens, text = put_together([token(" Li", math.log(3)), token("s", SURE, -5.0), token("bon", math.log(2.5))])
    (span,) = undecided_spans(tokens, text)
    assert span.reason == "an unlikely word was chosen (the model gave it less than 1 %)"
    assert [score.text for score in span.tokens] == [" Li", "s", "bon"]


pieces = st.builds(
    token,
    st.text("ab é日🙂.-'\n<", max_size=4),
    st.floats(0, 4),
    st.floats(-8, 0),
    st.booleans(),
)


@given(st.lists(pieces, max_size=30), st.integers(0, 60), st.data())
def test_spans_are_whole_words_in_order_and_hold_what_is_doubted(
    parts: list[TokenScore], length: int, data: st.DataObject
) -> None:
    tokens, whole = put_together(parts)
    text = whole[:length]
    spans = undecided_spans(tokens, text)
    starts, ends = {start for start, _ in words(text)}, {end for _, end in words(text)}
    position = 0
    for span in spans:
        assert position <= span.start < span.end <= len(text)
        assert span.start in starts
        assert span.end in ends
        assert span.tokens
        position = span.end
    # What is visible of a doubted letter lies in a span.
    for part in tokens:
        if part.special or part.entropy <= UNDECIDED_ENTROPY or not any(map(str.isalnum, part.text)):
            continue
        for place in range(part.start, min(part.start + len(part.text), len(text))):
            if text[place].isalnum():
                assert any(span.start <= place < span.end for span in spans)
    # However a stream delivers the tokens.
    cut = data.draw(st.integers(0, len(tokens)))
    score = ChoiceScore.of(tokens[:cut])
    score.summary(text=text)
    for part in tokens[cut:]:
        score.add(part)
    assert score.summary(text=text) == ChoiceScore.of(tokens).summary(text=text)
