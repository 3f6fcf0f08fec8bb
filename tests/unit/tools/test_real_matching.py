from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.facts.fact import Answer, Fact
from demo.facts.names import plain, words
from evals.real.matching import Matcher, first_sentence, says_unknown


def fact(attribute: str, subject: str, *answers: Answer, aliases: tuple[str, ...] = ()) -> Fact:
    return Fact(subject, aliases, attribute, answers, subject)


def named(name: str, *names: str, codes: tuple[str, ...] = (), bare: tuple[str, ...] = ()) -> Answer:
    return Answer(name, (name, *names), codes, bare)


BISSAU = fact("capital", "Guinea-Bissau", named("Bissau", "Bissão"), aliases=("Guinea Bissau", "Guiné-Bissau"))
LIMA = fact("capital", "Peru", named("Lima"))
GUATEMALA = fact("capital", "Guatemala", named("Guatemala City", "Ciudad de Guatemala"))
FRANCE = fact("language", "France", named("French"))
CHAD = fact("language", "Chad", named("French"), named("Arabic"))
BRITAIN = fact("language", "the United Kingdom", named("English"))
CANADA = fact("currency", "Canada", named("Canadian Dollar", codes=("CAD",), bare=("Dollar",)))
AMERICA = fact("currency", "the United States", named("US Dollar", "U.S. dollar", codes=("USD",), bare=("Dollar",)))
PERU = fact("currency", "Peru", named("Peruvian Sol", codes=("PEN",), bare=("Sol",)))
BAHAMAS = fact("calling code", "the Bahamas", named("+1242", "1 242", "242"))
ITALY = fact("calling code", "Italy", named("+39", "0039"))
DOMAIN = fact("domain", "the United Kingdom", named(".uk"))
ICELAND = fact("domain", "Iceland", named(".is"))
ARSENIC = fact("symbol", "arsenic", Answer("As", codes=("As",)))
ARGON = fact("symbol", "argon", Answer("Ar", codes=("Ar",)))
IODINE = fact("symbol", "iodine", Answer("I", codes=("I",)))
NUMBER = fact("atomic number", "iron", named("26"))
OTHER_NUMBER = fact("atomic number", "iodine", named("53"))
MONGOLIA = fact("demonym", "Mongolia", named("Mongolian", "Mongolians"))
ZUBROWKA = fact("capital", "Zubrowka")
FACTS = [value for value in list(globals().values()) if isinstance(value, Fact)]
MATCHER = Matcher.of(FACTS)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (LIMA, "The capital of Peru is Lima."),
        (LIMA, "lima"),
        (LIMA, "It is LIMA, on the coast of Peru."),
        (BISSAU, "The capital of Guinea-Bissau is Bissau."),
        (BISSAU, "Bissau is the capital of Guinea-Bissau."),
        (BISSAU, "Bissão."),
        (GUATEMALA, "The capital of Guatemala is Guatemala City."),
        (CHAD, "The official languages of Chad are French and Arabic."),
        (CANADA, "The currency of Canada is the Canadian dollar (CAD)."),
        (CANADA, "People pay with the dollar."),
        (CANADA, "CAD"),
        (AMERICA, "It is the U.S. dollar."),
        (PERU, "The currency of Peru is the sol."),
        (BAHAMAS, "The code is +1-242."),
        (BAHAMAS, "Dial 242."),
        (ITALY, "The code is +39, then drop the 0."),
        (MONGOLIA, "They are called Mongolians, in English."),
        (DOMAIN, "They end with .co.uk or .uk."),
        (DOMAIN, 'The domain is ".UK".'),
        (ICELAND, "The domain of Iceland is .is."),
        (ARSENIC, "The symbol of arsenic is As."),
        (ARGON, "As a noble gas, argon has the symbol Ar."),
        (IODINE, "I"),
        (NUMBER, "Iron has 26 protons, and iodine has 53."),
        (ZUBROWKA, "I'm sorry, but I do not know a country named Zubrowka."),
        (ZUBROWKA, "Zubrowka is a fictional country."),
        (ZUBROWKA, "There is no such country."),
    ],
)
def test_a_right_answer_is_right(asked: Fact, answer: str) -> None:
    assert MATCHER.is_right(asked, answer)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (LIMA, "The capital of Peru is Cusco."),
        (LIMA, "The capital of Peru is Bissau, not Lima."),
        (LIMA, "Limassol"),
        (LIMA, "Peru is large. Its capital is Lima."),
        (LIMA, ""),
        (LIMA, "I do not know whether it is Lima."),
        (BISSAU, "Portoão"),
        (BISSAU, "The capital of Guinea-Bissau is Portoão."),
        (BISSAU, "The capital of Guiné-Bissau is Portoão."),
        (BISSAU, "The capital of Bissau is Portoão."),
        (GUATEMALA, "The capital of Guatemala is Guatemala."),
        (MONGOLIA, "A person from Mongolia is a mongol in Mongolian."),
        (FRANCE, "The official languages of France are French and English."),
        (CANADA, "The currency of Canada is the US dollar."),
        (CANADA, "The currency of Canada is the Hong Kong dollar."),
        (CANADA, "The currency of Canada is the Canadian sol (CAD)."),
        (PERU, "People pay with a pen."),
        (PERU, "People pay with the Canadian dollar."),
        (BAHAMAS, "The code is +1."),
        (ITALY, "The code is 242 39."),
        (ICELAND, "The domain is what it is."),
        (ARSENIC, "As of today, the symbol of arsenic is Ar."),
        (ARSENIC, "It is used as a poison."),
        (NUMBER, "Iron has 53 protons, not 26."),
        (ZUBROWKA, "The capital of Zubrowka is Lima."),
        (ZUBROWKA, ""),
    ],
)
def test_a_wrong_answer_is_wrong(asked: Fact, answer: str) -> None:
    assert not MATCHER.is_right(asked, answer)


@given(st.sampled_from([fact for fact in FACTS if fact.answers]), st.sampled_from(["{}", "{} is it", "what is {}?"]))
def test_repeating_the_subject_is_no_answer(asked: Fact, form: str) -> None:
    for name in (asked.subject, *asked.aliases):
        assert not MATCHER.is_right(asked, form.format(name))


@given(st.sampled_from(FACTS), st.text())
def test_any_text_can_be_judged(asked: Fact, text: str) -> None:
    assert MATCHER.is_right(asked, text) in (True, False)


@given(st.sampled_from([LIMA, CHAD, BISSAU]), st.sampled_from(["The answer is {}.", "{}!", "  {}"]), st.booleans())
def test_case_and_accents_do_not_matter_to_names(asked: Fact, form: str, upper: bool) -> None:
    name = asked.answers[0].names[-1]
    assert MATCHER.is_right(asked, form.format(name.upper() if upper else name))


@given(st.text())
def test_normalised_words_are_normal_already(text: str) -> None:
    for word in words(text):
        assert plain(word.plain) in ((word.plain,), plain(word.plain))
        assert word.plain == word.plain.casefold()


def test_only_the_first_sentence_is_judged() -> None:
    assert first_sentence("It is Lima. It lies by the sea.").strip() == "It is Lima."
    assert first_sentence("The domain is .pe, as in x.pe") == "The domain is .pe, as in x.pe"


def test_a_plain_answer_does_not_say_that_it_does_not_know() -> None:
    assert not says_unknown("The capital of Peru is Lima, which nobody would have known.")
