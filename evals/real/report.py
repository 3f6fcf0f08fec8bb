"""The report on real facts in Markdown: every number comes from the figures, none is typed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.real.figures import RATES
from evals.real.methods import BLOCKS, BOTH, LOGITS, METHODS, NEW, PROBE
from server.calibrate.markdown import table

Figures = Mapping[str, Any]

COMMAND = """\
```sh
make real        # once: the model
make eval-real   # answers, passes and samples that are not kept yet (hours on two cores), then this report
```"""


def report(found: Figures, study: Figures, checked: Figures, model: str, machine: str) -> str:
    parts = [
        "# Does the score find wrong answers about real facts?",
        f"Written by `make eval-real`; all numbers come from the JSON beside it. Model: {model}. {machine}",
        METHOD.format(**checked),
        "## In short",
        in_short(found),
        "## Answers",
        answers_table(found["answers"]),
        "## Targets",
        targets(found),
        "## Wrong answers about countries",
        SIGNALS,
        signal_table(found["countries"]["signals"]),
        "## Within each attribute",
        attribute_table(found["by attribute"]),
        "## Transfer",
        TRANSFER,
        transfer_table(found["transfer"]["by method"]),
        attribute_table(found["transfer"]["by attribute"]),
        "## Elements, the last test",
        ELEMENTS,
        signal_table(found["elements"]["signals"]),
        attribute_table(found["elements by attribute"]),
        "## Invented places",
        INVENTED,
        invented_table(found["invented"]["signals"]),
        "Countries and invented places together, fitted on both:",
        signal_table(pick(found["countries and invented"]["signals"], METHODS)),
        "## Flags at a fixed rate",
        flag_table(found["flags"]),
        "## Words at a fixed rate",
        SPANS.format(**found["spans"]),
        flag_table({name: one["rates"] for name, one in found["spans"]["signals"].items()}),
        "## The closed form by block",
        STUDY,
        study_table(study),
        "## Commands",
        COMMAND,
    ]
    return "\n\n".join(parts) + "\n"


METHOD = """\
Every fact is asked for once, in one of three or four wordings by chance. The answer is greedy, of at most 32 tokens;
its first sentence, with the end token where it follows, is judged and scored. It is right if it states a name of a
right answer and no other value of the attribute; the question's own words count for nothing. Of {checked} labels read
by hand {wrong} were wrong ({rate:.0%}; `evals/real/checked.jsonl`). Samples: ten at temperature 1, for some of the
questions by chance, most of them drawn by vLLM from the same weights; two agree if their first new words in a row are
the same. AUROC has 95 % bootstrap intervals over
countries or elements. "Within" is the mean AUROC within the attributes that have ten right and ten wrong answers:
pooled figures also reward a signal that orders attributes by their difficulty. New words are those that the question
has not and that are no stop words; "first new word" is the first token of the first of them."""

SIGNALS = "Fitted signals are those of fits on other countries, of all attributes (five folds)."
TRANSFER = """\
Seen: fitted on other countries, all attributes. Unseen: fitted on all other attributes. The second table has the AUROC
within each attribute of fits that have not seen it."""
ELEMENTS = (
    "No element was used for a fit. Blocks and aggregates were chosen on countries. "
    "Fits are those on all countries and invented places."
)
INVENTED = """\
Every answer about an invented place is wrong, unless it says that it does not know or that there is no such place.
AUROC of these answers against the right ones about countries; fits have seen countries alone."""
SPANS = """\
{words} words of answers about countries that their questions have not; {wrong} of them stand in wrong answers and count
as wrong, though not each of them is. A word's signal is the highest of its tokens."""
STUDY = """\
AUROC of wrong answers by the mean and the maximum over the answer's tokens, for the sums of the closed form over some
blocks. Chosen on countries; elements are shown, and were not looked at for the choice. Cost is that of the blocks'
products, in multiples of one block's."""


def pick(signals: Figures, names: Sequence[str] | Mapping[str, Any]) -> Figures:
    return {name: signals[name] for name in names if name in signals}


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: Figures) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def answers_table(answers: Figures) -> str:
    rows = [[name, one["answers"], f"{1 - one['wrong'] / one['answers']:.0%}"] for name, one in answers.items()]
    return table(["questions", "number", "right"], rows)


def signal_table(signals: Figures) -> str:
    rows = [
        [name, with_interval(one["auroc"]), number(one["within"]), number(one["prr"]), number(one.get("ece")),
         number(one.get("ece_by_chance")) if "ece" in one else "-", one.get("answers", "all")]
        for name, one in sorted(signals.items(), key=lambda item: -item[1]["auroc"]["value"])
    ]  # fmt: skip
    return table(["signal", "AUROC", "within", "PRR", "ECE", "ECE by chance", "answers"], rows)


SHOWN = (
    "max probability, max",
    "max probability, first new word",
    "entropy, max",
    "variance, mean",
    "closed form, max",
    "WEPR (published)",
    PROBE,
)


def attribute_table(attributes: Figures) -> str:
    shown = [name for name in SHOWN if any(name in one.get("auroc", {}) for one in attributes.values())]
    rows = [
        [name, one["answers"], f"{1 - one['wrong'] / one['answers']:.0%}",
         *(number(one.get("auroc", {}).get(signal)) for signal in shown)]
        for name, one in attributes.items()
    ]  # fmt: skip
    return table(["attribute", "answers", "right", *shown], rows)


def transfer_table(methods: Figures) -> str:
    rows = [
        [name, *(text for how in ("seen", "unseen") for text in
                 (with_interval(one[how]["auroc"]), number(one[how]["within"]), number(one[how].get("ece"))))]
        for name, one in methods.items()
    ]  # fmt: skip
    head = [f"{name}, {how}" for how in ("seen", "unseen") for name in ("AUROC", "within", "ECE")]
    return table(["fit", *head], rows)


def invented_table(signals: Figures) -> str:
    rows = [
        [name, number(one["auroc"]), number(one.get("mean risk")), number(one.get("above 0.5"))]
        for name, one in sorted(signals.items(), key=lambda item: -(item[1]["auroc"] or 0))
    ]
    return table(["signal", "AUROC", "mean risk", "share with a risk above 0.5"], rows)


def flag_table(flags: Figures) -> str:
    rates = [f"{rate:.0%}" for rate in RATES]
    rows = [
        [name, *(f"{one[rate]['precision']:.2f} / {one[rate]['recall']:.2f}" for rate in rates)]
        for name, one in flags.items()
    ]
    return table(["signal", *(f"{rate} flagged: precision / recall" for rate in rates)], rows)


def study_table(study: Figures) -> str:
    """Without the aggregate that never tells, and sums of few units that differ little from those of all."""
    rows = [
        [name, one["cost"], *(number(one[task][figure]) for task in ("country", "element") for figure in FIGURES)]
        for name, one in study.items()
        if not name.endswith("first") and ("all units" in name or "largest weights" in name)
    ]
    head = [f"{task}, {figure}" for task in ("countries", "elements") for figure in FIGURES]
    return table(["blocks, units, aggregate", "cost", *head], rows)


def in_short(found: Figures) -> str:
    countries, moved = found["countries"]["signals"], found["transfer"]["by method"]

    def value(name: str) -> str:
        return number(countries[name]["auroc"]["value"], 2)

    def unseen(name: str) -> str:
        return number(moved[name]["unseen"]["auroc"]["value"], 2)

    drawn = {name: one.get("answers", "all") for name, one in countries.items() if "samples" in name}
    samples = [f"{name} {value(name)} ({answers} answers)" for name, answers in drawn.items()]
    places = found["invented"]["signals"]
    invented = places[PROBE]
    return f"""\
AUROC of wrong answers about countries, pooled over all attributes.

- **Without labels**, the highest entropy finds {value("entropy, max")}, max probability
  {value("max probability, max")}, mean variance {value("variance, mean")}, the closed form
  {value("closed form, max")}. Self-certainty of the new words alone, those that the question has not, finds
  {value("self-certainty, max of new words")}.
- **Samples**: {", ".join(samples) or "too few were drawn"}.
- **Calibrated**, the probe finds {value(PROBE)}, WEPR {value("WEPR (published)")}. On attributes that it has not seen
  it goes to {unseen(PROBE)}, WEPR to {unseen("WEPR (published)")}.
- **The closed form in the probe**: {value(LOGITS)} without it, {value(BOTH)} with it; on unseen attributes
  {unseen(LOGITS)} and {unseen(BOTH)}. With that of every block by itself {value(BLOCKS)}, unseen {unseen(BLOCKS)}.
- **New words in the probe**: {value(NEW)}, on unseen attributes {unseen(NEW)}.
- **Invented places**: the probe, which has seen none, tells their answers from right ones with
  {number(invented["auroc"], 2)}; their mean risk is {number(invented["mean risk"], 2)}. The highest entropy tells them
  with {number(places["entropy, max"]["auroc"], 2)}, the closed form with
  {number(places["closed form, max"]["auroc"], 2)} (below 0.5 it takes them for known)."""


FIGURES = ("pooled", "within")


def targets(found: Figures) -> str:
    """The best signal is chosen on countries by its pooled AUROC; the report says what it is."""
    countries = found["countries"]["signals"]
    alone = {name: one["auroc"]["value"] for name, one in countries.items()
             if name not in METHODS and "samples" not in name}  # fmt: skip
    best = max(alone, key=lambda name: alone[name])
    moved = found["transfer"]["by method"][PROBE]["unseen"]
    figures = {
        f"one pass, unsupervised, pooled ({best})": (alone[best], 0.82),
        "calibrated on other questions of the same attributes": (countries[PROBE]["auroc"]["value"], 0.88),
        "transferred to other attributes": (moved["auroc"]["value"], 0.80),
        "transferred to elements": (found["elements"]["signals"][PROBE]["auroc"]["value"], 0.80),
    }
    rows = [[name, number(value), f"{goal:.2f}", met(value >= goal)] for name, (value, goal) in figures.items()]
    error = countries[PROBE]["ece"]
    rows.append(["calibration error (ECE)", number(error), "0.05", met(error <= 0.05)])
    return table(["target", "found", "wanted", ""], rows)


def met(reached: bool) -> str:
    return "met" if reached else "missed"
