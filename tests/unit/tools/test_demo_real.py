"""The checkpoint of a real model: a GGUF file becomes a plain one, and only a right answer puts it in its place."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo import real

WIDTH, UNITS, CONTEXT = 32, 64, 128
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "Ċ" * 2]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def blocks_of_4_bits(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Random weights as Q4_1 stores them."""
    weights = generator.normal(size=shape).astype(np.float32)
    return gguf.quantize(weights, gguf.GGMLQuantizationType.Q4_1)


def write_gguf(path: Path, rule: str = "smollm") -> dict[str, np.ndarray]:
    """A random Llama of one block; its matrices in float32, by their names in the file."""
    generator, writer = np.random.default_rng(0), gguf.GGUFWriter(path, "llama")
    writer.add_name("A name in the file")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(UNITS)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 3 + [1] * (len(WORDS) - 3))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    square, up, down = (WIDTH, WIDTH), (UNITS, WIDTH), (WIDTH, UNITS)
    shapes = {f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate.weight": up, "blk.0.ffn_up.weight": up, "blk.0.ffn_down.weight": down}
    matrices = {}
    for name, shape in ({"token_embd.weight": (len(WORDS), WIDTH)} | shapes).items():
        packed = blocks_of_4_bits(shape, generator)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        matrices[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return matrices


def test_a_converted_model_is_a_plain_one_with_the_dequantised_weights(tmp_path: Path) -> None:
    matrices = write_gguf(tmp_path / "tiny.gguf")
    real.convert(tmp_path / "tiny.gguf", tmp_path / "made")
    config = json.loads((tmp_path / "made/config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "bfloat16"
    assert not {"quantization_config", "_model_name_or_path", "_name_or_path"} & config.keys()
    generation = json.loads((tmp_path / "made/generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (1, 2, 2)
    weights = load_file(tmp_path / "made/model.safetensors")
    for ours, theirs in (("embed_tokens", "token_embd"), ("layers.0.mlp.down_proj", "blk.0.ffn_down")):
        expected = torch.from_numpy(matrices[f"{theirs}.weight"]).bfloat16()
        assert torch.equal(weights[f"model.{ours}.weight"], expected)
    assert "lm_head.weight" not in weights
    logits = AutoModelForCausalLM.from_pretrained(tmp_path / "made")(torch.tensor([[5, 6]])).logits
    assert logits.shape == (1, 2, len(WORDS)) and logits.isfinite().all()


def test_a_converted_tokenizer_splits_digits_off_first_as_the_file_says(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    real.convert(tmp_path / "tiny.gguf", tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert tokenizer.model_max_length == CONTEXT
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"
    # Words are split after digits, so both line feeds stay one word; before a letter they would be two.
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    assert tokenizer.tokenize("\n\nab") == ["Ċ", "Ċ", "a", "b"]
    assert tokenizer.decode(tokenizer.encode("Zürich, 1987\n\n")) == "Zürich, 1987\n\n"


def test_a_file_that_splits_words_otherwise_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", rule="llama-bpe")
    with pytest.raises(SystemExit, match="splits words by 'llama-bpe'"):
        real.convert(tmp_path / "tiny.gguf", tmp_path / "made")


def test_a_wrong_answer_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(folder: Path) -> Path:
        write_gguf(folder / "tiny.gguf")
        return folder / "tiny.gguf"

    monkeypatch.setattr(real, "fetch", fetch)
    with pytest.raises(SystemExit, match="not by"):
        real.main(["--out", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(real, "answer", lambda directory, question: real.ANSWER)
    real.main(["--out", str(tmp_path / "made")])
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_package_with_another_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index").mkdir()
    name, version = real.PACKAGE.replace("-", "_").split("==")
    with ZipFile(tmp_path / "index" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(SystemExit, match="could not be fetched"):
        real.main(["--out", str(tmp_path / "made")])
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_finished_directory_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    real.main(["--out", str(tmp_path)])
    assert "is there already" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
