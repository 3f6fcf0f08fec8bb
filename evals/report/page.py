"""The report and its tables in Markdown, from the figures' JSON files: every number is computed, none is typed in."""

from __future__ import annotations

from collections.abc import Iterable

from evals.report.aggregate import DEVELOPMENT, Results
from evals.report.answers import answers, missing, nulls
from evals.report.at_hand import SHIFTS, AtHand, closed_form_table, transfer_table
from evals.report.shipped import shipped_table
from evals.report.tables import (
    HELD_OUT,
    NOT_ASKED,
    SCOPES,
    calibration_table,
    cell_tables,
    detection,
    exclusive_table,
    exposure_table,
    part_table,
    provenance_table,
    scope_table,
    seed_table,
    seeds,
    separation,
    study_table,
    style_table,
    value_token_table,
)
from evals.report.targets import targets
from evals.report.wording import (
    CALIBRATION,
    CLOSED_FORM,
    DETECTION,
    EXCLUSIVE,
    EXPOSURE,
    METHOD,
    PROVENANCE,
    SEPARATION,
    STUDY,
    STYLE,
    TRANSFER,
)
from server.calibrate.markdown import table


def report(results: Results, at_hand: AtHand, commands: str, machine: str) -> str:
    parts = [
        "# Does the score find hallucinations?",
        "Written by `make eval`. Targets, method and tables are in [TABLES.md](TABLES.md). All numbers are computed "
        f"from the JSON files beside it, which also have the signals that the tables leave out. {machine}",
        "## Answers",
        answers(results, at_hand),
        "## What is missing",
        missing(results, at_hand),
        "## Null results, and what this does not show",
        nulls(results),
        "## Commands",
        commands,
    ]
    return "\n\n".join(parts) + "\n"


def tables(results: Results, at_hand: AtHand) -> str:
    """The second file: targets, method and tables."""
    parts = [
        "# Targets and tables of the evaluation",
        "Written by `make eval`; the answers are in [REPORT.md](REPORT.md).",
        "## Targets",
        "Signals and settings were chosen on seeds "
        f"{names(DEVELOPMENT)} and are judged on the others, as mean ± standard deviation over those seeds. "
        "A task that has too few answers of one kind in a seed leaves that seed out.",
        table(["target", "at least", "signal", "held-out seeds", "met", "all seeds", "seed 0"], targets(results)),
        "## What was measured",
        METHOD,
        table(["seed", "world A", "base trained for", "grown", "twin"], seeds(results)),
        "## The models, by kind of question",
        "Right: exactly the sentence with a value that texts state. Entropy and epistemic uncertainty (median, nats) "
        "are those of the first value token; at a style position, those of what follows a name.",
        *cell_tables(results),
        "## Finding wrong answers",
        DETECTION,
        *(part for scope in SCOPES for part in detection(results, scope)),
        "### Seed by seed",
        "AUROC over all answers with 95 % bootstrap intervals over people; in brackets.",
        seed_table(results, "all"),
        "AUROC over facts with one answer:",
        seed_table(results, "one answer"),
        "### Without rare people",
        "The answers about rare people left out, which other seeds than 0 have: what remains is what texts mention in "
        "every epoch or never.",
        scope_table(results, ("all, without rare people", "one answer, without rare people")),
        "### People and wordings that chats never used",
        scope_table(results, ("one answer", NOT_ASKED, HELD_OUT)),
        "## Not knowing against knowing several answers",
        SEPARATION,
        *separation(results),
        "### Style positions",
        STYLE,
        style_table(results),
        "## The closed form beside the ensemble",
        CLOSED_FORM,
        closed_form_table(at_hand),
        "## Transfer",
        TRANSFER,
        "\n".join(f"- *{name}*: {what}." for name, what in SHIFTS.items()),
        f"One number per seed, of seeds {at_hand.names}; *models* has both.",
        transfer_table(at_hand),
        "## The ensemble's settings, and the control",
        STUDY,
        "![rates and members](study.svg)",
        study_table(results),
        part_table(results),
        "## First and later value tokens",
        "Facts with one answer whose value has at least two tokens (dishes, cities of two words): AUROC for right and "
        "wrong of the entropy at the value's first and last token, and the median entropy of wrong answers there.",
        value_token_table(results),
        "## Calibration",
        CALIBRATION,
        "![reliability](calibration.svg)",
        calibration_table(results),
        "With two thousand answers, the bins' chance alone is as large as the target.",
        "## The demo, made of real facts",
        "The calibrations that ship with `demo/checkpoint`, on answers about countries and elements that they were not "
        "fitted on (`tokenformer calibrate`):",
        shipped_table(),
        "## Exclusive catches",
        EXCLUSIVE,
        exclusive_table(results),
        "## How often texts mention a person",
        EXPOSURE,
        "![exposure](exposure.svg)",
        exposure_table(results),
        "## Which stage answered",
        PROVENANCE,
        provenance_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def names(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
