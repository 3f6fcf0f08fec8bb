"""artefactual: EPR and WEPR detectors are fitted on a server's answers, of chats and of responses, and judge others.

Arguments: the server's address, and a file of questions with the answer that would be right. It prints, as JSON, the
AUROC of each detector for other questions, and of one answer the log-probabilities and the features of both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from artefactual.scoring import EPR, WEPR
from openai import OpenAI
from sklearn.metrics import roc_auc_score

RANKS = 15
client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
questions = json.loads(Path(sys.argv[2]).read_text())


def chat(question: str, **options: Any) -> Any:
    asked = {"model": "demo", "messages": [{"role": "user", "content": question}], "logprobs": True}
    return client.chat.completions.create(**asked, top_logprobs=RANKS, max_tokens=32, **options)


answers = [chat(question["text"], temperature=0) for question in questions]
wrong = np.array([a.choices[0].message.content != q["right"] for a, q in zip(answers, questions, strict=True)])
found: dict[str, Any] = {"wrong": int(wrong.sum())}
for detector in (EPR(k=RANKS), WEPR(k=RANKS)):
    name = type(detector).__name__
    detector.fit(answers[::2], wrong[::2])
    found[name] = roc_auc_score(wrong[1::2], detector.predict_proba(answers[1::2])[:, 1])
    found[f"{name} features"] = detector[:-1].transform(answers[:1])[0].tolist()
    tokens = detector.predict_token_proba(answers[:1])[0, :, 0]
    assert len(tokens) == len(answers[0].choices[0].logprobs.content)
    assert ((tokens >= 0) & (tokens <= 1)).all()
    assert detector.predict_proba([chat(questions[0]["text"], temperature=1, n=3)]).shape == (3, 2)
    asked: dict[str, Any] = {"model": "demo", "input": questions[0]["text"], "temperature": 0, "max_output_tokens": 32}
    response = client.responses.create(**asked, top_logprobs=RANKS, include=["message.output_text.logprobs"])
    np.testing.assert_allclose(detector[:-1].transform([response])[0], found[f"{name} features"], atol=1e-3)
found["log_probs"] = [[top.logprob for top in token.top_logprobs] for token in answers[0].choices[0].logprobs.content]
print(json.dumps(found))
