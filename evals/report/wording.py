"""The report's texts about how the figures were measured, section by section."""

METHOD = """\
Every seed is a world of made-up people of its own and models trained on it from nothing: a Tokenformer (1.25 M
parameters), which is then grown on a second world B, and its *twin*, an ordinary transformer of the same parameter
count, depth, width, vocabulary, data and recipe. Seed 0 is committed. In the other seeds a quarter
of the known people are *rare*: texts mention them in 1, 2, 4, 8 or 16 epochs only. Names of known, rare and unknown
people use the same name parts equally often.

All answers are greedy, scored by the reference model, and right if they equal the chat's sentence with a value that
texts state for the fact (of an ambiguous fact: any of its values). Half of the questions use wordings that training
never used. Everything fitted predicts only people of whom the fit saw no answer (five folds). Intervals are 95 %
bootstrap intervals over people, the same resamples for every signal. Signals "of value" know where the value stands in
the sentence, and so does "+ ensemble", which reads the ensemble there; a server, which does not, reads the mean and the
highest over all tokens of the answer (demo/checkpoint/calibration.md has those of the demo).

The ensemble has 16 members and masks 3 % of the parameter tokens of the output projections and the feed-forwards, as
served by default, which the study of settings on seed 0 led to; the twin's drops 3 % of the MLPs' hidden units by the
same hash."""

DETECTION = """\
AUROC: how often a wrong answer gets the higher value than a right one; 0.5 is chance. PRR: 1 perfect, 0 random. Three
sets of answers: *all* four kinds of facts, where an ambiguous fact's answer is right although the model is rightly
torn; *one answer*, without ambiguous facts; and *known people*, facts that texts state, where errors come from
rarity."""

EXCLUSIVE = """\
Each signal flags the 20 % of the answers that it is least sure of. Of all wrong answers, the share that it flags; that
it flags and entropy (highest of the value) does not; and that entropy flags and it does not. All kinds of facts, mean
over seeds."""

SEPARATION = """\
An unknown fact and an ambiguous one can look alike: high entropy. Of answers to unknown people (or to facts never
stated about known people) and to ambiguous facts, both kinds are weighted so that their histograms of the entropy at
the first value token agree (bins of 0.1 nat); entropy itself then has AUROC 0.5. Positive is not knowing. Fitted probes
are also tested on held-out shapes: ambiguous facts with a number of values (2 to 6) that no fact of the fit has."""

STYLE = """\
After a name at the beginning of a document, what comes next is a matter of style and choice: which fact, in which of
three wordings. AUROC of unknown people's first value token against these positions, at matched entropy. The two barely
overlap in entropy, so few positions match and intervals are wide."""

CLOSED_FORM = """\
The mutual information of the ensemble to second order, from one pass, of output projections and feed-forwards of all
blocks, or of the last feed-forward, which is what is served; over the likeliest words. Its largest value over the
value's tokens. *Does not know*: facts about unknown people and never stated ones against ambiguous ones, at equal
entropy of the first value token. One number per seed at hand. All settings are in closed-form.md."""

TRANSFER = """\
Every calibration method is fitted twice and judged on the same answers. *Seen*: on other people's answers. *Unseen*: on
other people's answers that are also unlike those judged, and so on fewer: about five in six by attribute, half by
wording. A fit that lacks a kind of facts learns another share of wrong answers, and what is torn and right looks to it
like what is unknown and wrong. *models*: on the other seed's model and its world. What is unseen:"""

STUDY = """\
AUROC at matched entropy, unknown people against ambiguous facts (120 of each), of the epistemic uncertainty at the
first value token, given the right sentence up to there. Mean ± standard deviation over seeds."""

CALIBRATION = """\
Expected calibration error in 15 bins of equal size, and Brier score, before and after. Even a perfectly calibrated risk
has an ECE above 0 in finite bins: *by chance* is what it would have on average with these very risks."""

EXPOSURE = """\
Known facts by the number of training epochs whose texts mention the person (each states the fact twice in documents
and, for people asked about, once in a chat); the signals are medians in nats, averaged over the seeds with rare people.
Spearman: rank correlation of that number with the signal."""

PROVENANCE = """\
Right answers of the grown model about known facts of world B, which only the growth stage learned, against those of
world A. AUROC of the growth stage's part in the answer. A *share* sums w² ‖v‖² over parameter tokens, as the server
does; a *log share* is the logarithm of new over old per layer and projection, averaged. *Attribution* is what the
growth stage's output and feed-forward tokens add to the logit of the value's first token, above what they add to its
ten likeliest rivals, and its share among both stages. *grown minus base* compares the answer's log-probability under
the two stages, which takes a second prefill."""
