"""Answer only where the risk of being wrong is low enough; otherwise say so."""

import os
import sys

from openai import OpenAI

LIMIT = 0.5  # leave it out to use the limit of the calibration: `tokenformer calibrate --abstain`

client = OpenAI(base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
model = client.models.list().data[0].id
for question in sys.argv[1:] or ["What is the capital of Peru?", "What is the capital of Selkovia?"]:
    (choice,) = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        extra_body={"uncertainty": {"on_doubt": "replace", "abstain_above": LIMIT}},
    ).choices
    withheld = choice.finish_reason == "content_filter"
    print(f"{question}  {'(withheld) ' if withheld else ''}{choice.message.content}")
