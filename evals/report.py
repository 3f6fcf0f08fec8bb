"""The report in Markdown, from the seeds' JSON files: every number in it is computed, none is typed in."""

from __future__ import annotations

from collections.abc import Iterable

from evals.aggregate import DEVELOPMENT, Results, spread
from evals.tables import (
    CERTAIN,
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
    shipped_table,
    study_table,
    style_table,
    value_token_table,
)
from evals.targets import targets
from evals.view import LEAKAGE, NAME
from evals.wording import CALIBRATION, DETECTION, EXCLUSIVE, EXPOSURE, METHOD, PROVENANCE, SEPARATION, STUDY, STYLE
from server.calibrate.report import table


def report(results: Results, commands: str, machine: str) -> str:
    parts = [
        "# Does the score find hallucinations?",
        f"Written by `make eval`; all numbers are computed from `evals/results/seed-*.json`. {machine}",
        "## In plain language",
        summary(results),
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
        "With two thousand answers, the bins' chance alone is as large as the target. The calibrations that ship with "
        "the demo checkpoint are fitted on more answers, and measured on more, by `tokenformer calibrate`:",
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
        "## Null results, and what this does not show",
        nulls(results),
        "## Commands",
        commands,
    ]
    return "\n\n".join(parts) + "\n"


def names(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def summary(results: Results) -> str:
    def figure(signal: str, scope: str) -> str:
        return spread(results.values("base", "detection", scope, "signals", signal, "auroc"), 2)

    def apart(signal: str, kind: str = "unknown") -> str:
        return spread(results.values("base", "separation", kind, "signals", signal, "matched"), 2)

    epistemic, entropy = EPISTEMIC, "entropy, first value token"
    after = results.values("base", "calibration", "all", "calibrated (probe) + ensemble", "ece")
    before = results.values("base", "calibration", "all", "1 - probability of the answer (before)", "ece")
    chance = results.values("base", "calibration", "all", "calibrated (probe) + ensemble", "ece_by_chance")

    def stage(signal: str) -> str:
        return spread(results.values("grown", "provenance", "signals", signal), 2)

    return f"""\
Over {len(results.seeds)} seeds, {len(results.paired.seeds)} of them with a twin; AUROC unless said otherwise, as mean ±
standard deviation over seeds.

- **Is the answer wrong?** Where facts have one answer, plain probability and entropy do all the work: max probability
  {figure(CERTAIN, "one answer, without rare people")} where texts mention everybody in every epoch or never, and
  {figure(CERTAIN, "one answer")} with rare people among them, entropy {figure(entropy, "one answer")}, the ensemble's
  epistemic part {figure(epistemic, "one answer")}, a calibrated probe {figure("calibrated (probe)", "one answer")}.
- With ambiguous facts among the questions, where being torn is right, it takes more: max probability
  {figure(CERTAIN, "all")}, entropy {figure(entropy, "all")}, the ensemble {figure(epistemic, "all")}, a calibrated
  probe {figure("calibrated (probe)", "all")}, with the ensemble {figure("calibrated (probe) + ensemble", "all")}.
- **Which of the facts that it has read does it get wrong?** Rare ones, and probability tells: max probability
  {figure(CERTAIN, "known people")}.
- **Does it not know, or does it know several answers?** At equal entropy the ensemble tells {apart(epistemic)} (facts
  never stated about known people: {apart(epistemic, kind="never_stated")}); from one pass mean variance tells
  {apart("variance, mean")}, max probability {apart(CERTAIN)}.
- **Because it is a Tokenformer?** {verdict(results)}
- **Calibration** takes the expected calibration error over all answers from {spread(before)} to {spread(after)};
  chance alone makes {spread(chance)} of that with so few answers.
- **Which stage answered?** The served share tells {stage("share, answer (served)")}; what the growth stage adds to the
  value's logit, from the same pass, {stage("attribution, first value token, share")}; the answer's probability under
  both stages, for a second prefill, {stage("log p(answer): grown minus base")}."""


def verdict(results: Results) -> str:
    """The ensemble compared with the twin: the same signal from an ordinary transformer, on the same seeds."""
    paths = {
        "not knowing against knowing several answers": ("separation", "unknown", "signals", EPISTEMIC, "matched"),
        "finding wrong answers among all": ("detection", "all", "signals", EPISTEMIC, "auroc"),
    }
    compared = {
        task: found
        for task, path in paths.items()
        if all(found := [results.paired.values(model, *path) for model in ("base", "twin")])
    }
    if not compared:
        return "Not measured: no twin was scored."
    ahead = {task: sum(base[seed] > twin[seed] for seed in base) for task, (base, twin) in compared.items()}
    every = all(ahead[task] == len(base) for task, (base, _) in compared.items())
    lead = "The ensemble does better than the control on every seed" if every else "Not shown"
    told = ";\n  ".join(
        f"{task} {spread(base, 2)}, twin {spread(twin, 2)}, the Tokenformer ahead on {ahead[task]} of {len(base)} seeds"
        for task, (base, twin) in compared.items()
    )
    return f"{lead} (the control: hidden units dropped in the MLP twin, same seeds):\n  {told}."


EPISTEMIC = "ensemble epistemic, max of value"


def nulls(results: Results) -> str:
    def found(signal: str, scope: str = "one answer") -> str:
        return spread(results.values("base", "detection", scope, "signals", signal, "auroc"))

    return f"""\
AUROC for right and wrong, facts with one answer.

- Text only (TF-IDF of question and answer): {found(LEAKAGE)}. All kinds of people use every name part equally often,
  so a part that was wrong more often in the fit is right more often elsewhere, and a fit to names falls below chance.
  Nothing leaks that helps.
- Hidden states, linear probe: {found("hidden-state probe")}.
- Pattention internals (score norm, kurtosis, participation ratio, positive share), linear probe:
  {found("Pattention internals probe")}. Added to the calibration's features they change its
  {found("calibrated (probe)")} to {found("calibrated (probe) + internals")}.
- LogTokU: {found("LogTokU, first value token")}, its epistemic part {found("LogTokU epistemic, first value token")}:
  the size of these models' logits carries little of what the method reads from it.
- Standardised surprisal: {found("server: standardised surprisal")}. A greedy answer surprises the less the more the
  model is torn, so for greedy answers its sign is the wrong way round.
- Ten samples cost ten generations and find less than one pass: semantic entropy
  {found("10 samples: semantic entropy")}, disagreement {found("10 samples: disagreement")}, semantic energy
  {found("10 samples: semantic energy")}, against max probability {found(CERTAIN)}.
- An unfamiliar name finds unknown people, and nothing else: name surprisal {found(NAME)} here, and at matched entropy
  {spread(results.values("base", "separation", "never_stated", "signals", NAME, "matched"))} for facts never stated
  about known people.
- All of this is one kind of synthetic world, short answers of one form, and models of 1.25 M parameters that have seen
  most facts more than a hundred times. What a large model does that has read natural text once is not shown."""
