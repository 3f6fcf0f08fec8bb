"""The model card of the demo checkpoint, written from the run and the evaluation that made it."""

from __future__ import annotations

from evals.world.corpus import epoch_chats, epoch_documents
from evals.world.packing import LONG_ROW, SHORT_ROW
from evals.world.people import ASKED_SHARE
from evals.world.report import Report
from evals.world.training import Run
from server.calibrate.markdown import table


def model_card(run: Run, report: Report, machine: str) -> str:
    """The card of a finished run, as Markdown."""
    config, world = run.model.config, run.world
    documents, chats = len(epoch_documents(world, 0)), len(epoch_chats(world, 0))
    attention, ffn = config.token_count("query"), config.token_count("ffn")
    tokens, epochs = f"{run.progress.tokens / 1e6:.1f} M", run.progress.epoch
    facts = [
        ("parameters", f"{sum(parameter.numel() for parameter in run.model.parameters()):,}, float32"),
        ("layers, width, heads", f"{config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads}"),
        ("parameter tokens", f"{attention} per attention projection, {ffn} in the feed-forward"),
        ("vocabulary", f"{config.vocab_size:,} ids of a byte-level BPE, padded to {config.padded_vocab_size:,}"),
        ("context", f"{config.max_position_embeddings} tokens, trained on rows of {SHORT_ROW} and {LONG_ROW}"),
        ("training data", f"{tokens} tokens: {epochs} epochs of about {documents:,} documents and {chats:,} chats"),
        ("training", f"{run.progress.seconds / 60:.0f} minutes on {machine}"),
        ("made by", "`python -m demo.train`"),
    ]
    return f"""\
---
language: en
license: apache-2.0
pipeline_tag: text-generation
---
# Demo Tokenformer

A small Tokenformer that knows a made-up world by heart: {world.known:,} people with up to six attributes each (city,
profession, pet, food, instrument, birth year). Of {world.unknown:,} further people, with names from the same parts, it
has never read a word. It was not taught to refuse: asked about them it answers as fluently, and wrongly, and the
entropy of the value's tokens shows it. That is what it is for.

{table(("property", "value"), facts)}

## The data

All of it is generated from a seed (`evals/world/people.py`), so what the model can know is known exactly:

- **known** facts are stated in documents, in several wordings; about {ASKED_SHARE:.0%} of the people chats ask as well;
- **ambiguous** facts are stated with different values, in proportions drawn at random for each fact;
- **never-stated** facts are attributes of known people about which all texts are silent;
- **unknown** people appear in no text. Every name part is as frequent among them as among the known people.

## Measured

With the reference model in float32. An answer counts as right only if the whole sentence is. An unknown or never-stated
fact has a value, too, which no text tells: its rate of right values is that of lucky guesses.

{report.tables()}

## Limits

It knows its own people and the words of its questions, in English, and nothing else. Asked with a word that no
training question uses ("What is Zelda Westbrook's job?", where training says "profession"), it answers something else:
0 of 100 such questions came out right. That wording was first among the held-out ones and was replaced for this reason,
so the table above holds only wordings that combine known words. Nothing it says is about the real world.
"""
