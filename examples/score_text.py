"""Score texts that are given, such as the answers of another model: which one does this model hold likely?"""

import os

from openai import OpenAI

ANSWERS = ["The capital of Peru is Lima.", "The capital of Peru is Oslo."]

client = OpenAI(base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
request = {
    "model": client.models.list().data[0].id,
    "messages": [{"role": "user", "content": "What is the capital of Peru?"}],
    "completion": ANSWERS,
    "uncertainty": {"spans": True},
}
for answer, choice in zip(ANSWERS, client.post("/uncertainty", body=request, cast_to=object)["choices"], strict=True):
    summary = choice["uncertainty"]
    doubtful = ", ".join(span["text"] for span in summary["spans"]) or "nothing"
    print(
        f"{answer}  risk {summary['risk']:.2f}, least likely token {summary['min_logprob']:.1f}, doubtful: {doubtful}"
    )
