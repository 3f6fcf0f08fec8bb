"""The report's first page: what was asked, what was found, what is missing, and what came to nothing."""

from __future__ import annotations

from evals.report.aggregate import Results, spread
from evals.report.at_hand import CLOSED_FORM, ENSEMBLE, AtHand, answers_table, values
from evals.report.tables import CERTAIN
from evals.view import ENSEMBLE_PROBE, LEAKAGE, NAME

PROBE = "calibrated (probe)"


def answers(results: Results, at_hand: AtHand) -> str:
    def figure(signal: str, scope: str) -> str:
        return spread(results.values("base", "detection", scope, "signals", signal, "auroc"), 2)

    def apart(signal: str, kind: str = "unknown") -> str:
        return spread(results.values("base", "separation", kind, "signals", signal, "matched"), 2)

    def here(signal: str, task: str) -> str:
        return values(at_hand.errors(signal, task))

    def moved(method: str, figure: str, shift: str) -> str:
        seen, unseen = (values(at_hand.transfer(shift, method, how, figure)) for how in ("seen", "unseen"))
        return f"{seen} to {unseen}"

    def stage(signal: str) -> str:
        return spread(results.values("grown", "provenance", "signals", signal), 2)

    before = results.values("base", "calibration", "all", "1 - probability of the answer (before)", "ece")
    after = results.values("base", "calibration", "all", ENSEMBLE_PROBE, "ece")
    told = "unknown or never stated"
    return f"""\
AUROC unless said otherwise; mean ± standard deviation over {len(results.seeds)} seeds, or one number per seed, of seeds
{at_hand.names}, whose models are at hand.

{answers_table(results, at_hand)}

*Does not know*: unknown people and never stated facts (all seeds: unknown people alone) against ambiguous facts, at
equal entropy of the first value token.

- **Is the answer wrong?** Where a fact has one answer, plain probability tells ({figure(CERTAIN, "one answer")}), as
  well as a calibrated probe ({figure(PROBE, "one answer")}). With ambiguous facts among the questions, where being torn
  is right, it takes more than probability ({figure(CERTAIN, "all")}): the ensemble {figure(ENSEMBLE, "all")}, a probe
  {figure(PROBE, "all")}, both {figure(ENSEMBLE_PROBE, "all")}.
- **Which of the facts that it has read does it get wrong?** Rare ones, and probability tells
  ({figure(CERTAIN, "known people")}).
- **Does it not know, or does it know several answers?** At equal entropy the ensemble tells {apart(ENSEMBLE)}, mean
  variance from one pass {apart("variance, mean")}, max probability {apart(CERTAIN)}.
- **Does one pass do?** The closed form of the ensemble tells not knowing with {here(CLOSED_FORM, told)}, the ensemble
  with {here(ENSEMBLE, told)}; it finds wrong answers among all with {here(CLOSED_FORM, "all")}, the ensemble with
  {here(ENSEMBLE, "all")}; among facts with one answer {here(CLOSED_FORM, "one answer")} against
  {here(ENSEMBLE, "one answer")}.
- **Does a Tokenformer matter?** {verdict(results)}
  The closed form of the twin's hidden units {twin(at_hand)}.
- **Does a calibration hold elsewhere?** The probe on attributes that it was not fitted on: AUROC from
  {moved(PROBE, "auroc", "attributes")}, calibration error from {moved(PROBE, "ece", "attributes")}. On another world,
  known to the same model: from {moved(PROBE, "auroc", "worlds")}, and from {moved(PROBE, "ece", "worlds")}. On a kind
  of facts that the fit lacks altogether: from {moved(PROBE, "auroc", "kinds of facts")}, and from
  {moved(PROBE, "ece", "kinds of facts")}.
- **Against what any client can compute?** Fitted on the same labels, the published WEPR reaches
  {here("WEPR (published)", "all")} among all answers, EPR {here("EPR (published)", "all")}, the probe
  {here(PROBE, "all")}. On attributes that it was not fitted on, WEPR goes from
  {moved("WEPR (published)", "auroc", "attributes")}.
- **Is the risk a probability?** The calibration error over all answers goes from {spread(before)} to {spread(after)} by
  a fit on other people, of which chance makes {chance(results)}.
- **Which stage answered?** What the growth stage adds to the value's logit tells {stage(ATTRIBUTION)}, from the same
  pass; the older share of squared contributions {stage("share, answer (served)")}; the probability under both stages,
  for a second prefill, {stage("log p(answer): grown minus base")}."""


ATTRIBUTION = "attribution, first value token, share"


def chance(results: Results) -> str:
    return spread(results.values("base", "calibration", "all", ENSEMBLE_PROBE, "ece_by_chance"))


def twin(at_hand: AtHand) -> str:
    """The study's figures of the served setting for twins."""
    found = [at_hand.study[name][STUDIED]["wrong"] for name in at_hand.studied("twin")]
    if not found:
        return "was not measured: no twin is at hand"
    return f"finds wrong answers with {', '.join(f'{value:.2f}' for value in found)}"


STUDIED = "last feed-forward, 32 words, max"


def missing(results: Results, at_hand: AtHand) -> str:
    """The figures that this report lacks, and why."""
    seeds = ", ".join(map(str, at_hand.missing(results)))
    absent = [f"those of seeds {seeds}"] if seeds else []
    if not at_hand.studied("twin"):
        absent.append("every twin, so that whether a Tokenformer matters is answered for the ensemble alone")
    lacking = f"""\
- The closed form, the published scores and transfer of models that are not at hand:
  {"; ".join(absent)}.
  `make eval` trains them; `python -m evals.transfer` and `python -m evals.closed_form` then measure these.
"""
    return f"""\
{lacking if absent else ""}- The closed form of the grown stage, and the published scores at equal entropy.
- The ensemble here masks parameter tokens at all positions of question and answer."""


def verdict(results: Results) -> str:
    """The ensemble compared with the twin: the same signal from an ordinary transformer, on the same seeds."""
    paths = {
        "not knowing against knowing several answers": ("separation", "unknown", "signals", ENSEMBLE, "matched"),
        "finding wrong answers among all": ("detection", "all", "signals", ENSEMBLE, "auroc"),
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
