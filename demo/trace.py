"""Measure how often a trace of the demo finds the text that a fact comes from: `python -m demo.trace`.

The newest stage is asked about known facts, in wordings of the training chats and in others, and traced at the position
that predicts the value. The corpus is a round of the training texts of both stages: documents and chats, or documents
only, so that no text has the question's own words. A text search by words is the baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from demo.course import Lesson
from demo.measure import COURSES
from demo.texts import texts
from model_impl.reference.contributions import at_position
from model_impl.reference.model import ReferenceTokenformer, load_reference
from model_impl.texts import TextTokenizer
from server.api.trace.index import CorpusIndex
from server.calibrate.markdown import table
from server.served.opening import open_model

STAGE = "chemistry"


def prompts(lesson: Lesson, rng: Random, held_out: bool) -> tuple[str, str]:
    """A question, and the answer up to the value."""
    return rng.choice(lesson.questions(held_out)), lesson.answer().removesuffix(f" {lesson.values[0]}.")


def states(text: str, lesson: Lesson) -> tuple[bool, bool]:
    """Whether a text names the fact's subject, and whether it states the fact."""
    return lesson.subject in text, any(lesson.statement(lesson.values[0], i) in text for i in range(4))


def nearest_by_trace(
    model: ReferenceTokenformer, tokenizer: TextTokenizer, index: CorpusIndex, question: str, beginning: str
) -> int:
    """The number of the corpus text that is most similar to the position that predicts the value."""
    ids = tokenizer.ids([{"role": "user", "content": question}], ask=True) + tokenizer.ids(beginning)
    found = at_position(model, ids, len(ids) - 1)
    return index.nearest(found.contributions.numpy(), 1)[0].text


def rates(found: Sequence[str], lessons: Sequence[Lesson]) -> list[str]:
    hits = np.array([states(text, lesson) for text, lesson in zip(found, lessons, strict=True)])
    return [f"{share:.0%}" for share in hits.mean(axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--facts", type=int, default=200, help="known facts of each kind (default: 200)")
    options = parser.parse_args()
    tokenizer = TextTokenizer(open_model(str(options.checkpoint)))
    model, rng = load_reference(options.checkpoint), Random(0)
    known = [lesson for course in COURSES[STAGE] for lesson in course.of("known")]
    lines = [line for part in ("base", STAGE) for line in texts(part, rounds=1)]
    rows = []
    for chats in (True, False):
        sequences = [tokenizer.ids(next(iter(line.values()))) for line in lines if chats or "text" in line]
        shown = [tokenizer.tokenizer.decode(ids) for ids in sequences]
        index = CorpusIndex(sequences)
        index.build(model, -1)
        words = TfidfVectorizer().fit(shown)
        matrix = words.transform(shown)
        for asked in (True, False):
            lessons = rng.sample([lesson for lesson in known if lesson.asked == asked], options.facts)
            pairs = [prompts(lesson, rng, held_out=not asked) for lesson in lessons]
            traced = [shown[nearest_by_trace(model, tokenizer, index, *pair)] for pair in pairs]
            queries = words.transform([f"{question} {beginning}" for question, beginning in pairs])
            searched = [shown[i] for i in np.asarray((queries @ matrix.T).argmax(axis=1)).ravel()]
            kind = "asked in training chats, in their wordings" if asked else "never asked, in other wordings"
            head = ["documents and chats" if chats else "documents only", kind]
            rows.append([*head, *rates(traced, lessons), *rates(searched, lessons)])
            print(rows[-1], flush=True)
    head = ["corpus", "facts", "trace: subject", "trace: fact", "search: subject", "search: fact"]
    print(f"{len(lines):,} texts\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
