"""Measure how often a trace of the demo finds the text that a fact comes from: `python -m demo.trace`.

The grown checkpoint is asked about known people, in wordings of the training chats and in others, and traced at the
position that predicts the value. The corpus is one epoch of the training texts: documents and chats, or documents only,
so that no text has the question's own words. A text search by words is the baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from demo.texts import texts
from evals.world.people import WORLD_A, WORLD_B, Fact
from model_impl.reference.contributions import at_position
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.texts import TextTokenizer
from server.api.trace.index import CorpusIndex
from server.calibrate.markdown import table
from server.served.opening import open_model

STAGE = "world-b"


def prompts(fact: Fact, rng: Random, held_out: bool) -> tuple[str, str]:
    """A question, and the answer up to the value."""
    answer = fact.answer()
    return rng.choice(fact.questions(held_out)), answer[: answer.rindex(fact.value)].rstrip()


def states(text: str, fact: Fact) -> tuple[bool, bool]:
    """Whether a text names the fact's person, and whether it also states the fact."""
    sentences = [part for part in text.split(".") if fact.person.name in part]
    return bool(sentences), any(fact.predicate(fact.value, i) in part for part in sentences for i in range(3))


def nearest_by_trace(
    model: ReferenceTokenformer, tokenizer: TextTokenizer, index: CorpusIndex, question: str, beginning: str
) -> int:
    """The number of the corpus text that is most similar to the position that predicts the value."""
    ids = tokenizer.ids([{"role": "user", "content": question}], ask=True) + tokenizer.ids(beginning)
    found = at_position(model, ids, len(ids) - 1)
    return index.nearest(found.contributions.numpy(), 1)[0].text


def rates(found: Sequence[str], facts: Sequence[Fact]) -> list[str]:
    hits = np.array([states(text, fact) for text, fact in zip(found, facts, strict=True)])
    return [f"{share:.0%}" for share in hits.mean(axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--facts", type=int, default=200, help="known facts of each kind (default: 200)")
    options = parser.parse_args()
    tokenizer = TextTokenizer(open_model(str(options.checkpoint)))
    model, rng = load_reference(options.checkpoint), Random(0)
    known = [fact for world in (WORLD_A, WORLD_B) for fact in world.facts_of("known")]
    rows = []
    for chats in (True, False):
        corpus = [entry.get("text") or entry["messages"] for entry in texts(STAGE) if chats or "text" in entry]
        sequences = [tokenizer.ids(content) for content in corpus]
        shown = [tokenizer.tokenizer.decode(ids) for ids in sequences]
        index = CorpusIndex(sequences)
        index.build(model, -1)
        words = TfidfVectorizer().fit(shown)
        matrix = words.transform(shown)
        for asked in (True, False):
            facts = rng.sample([fact for fact in known if fact.person.asked == asked], options.facts)
            pairs = [prompts(fact, rng, held_out=not asked) for fact in facts]
            traced = [shown[nearest_by_trace(model, tokenizer, index, *pair)] for pair in pairs]
            queries = words.transform([f"{question} {beginning}" for question, beginning in pairs])
            searched = [shown[i] for i in np.asarray((queries @ matrix.T).argmax(axis=1)).ravel()]
            kind = "asked in training chats, in their wordings" if asked else "never asked, in other wordings"
            head = ["documents and chats" if chats else "documents only", kind]
            rows.append([*head, *rates(traced, facts), *rates(searched, facts)])
            print(rows[-1], flush=True)
    head = ["corpus", "people", "trace: person", "trace: fact", "search: person", "search: fact"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
