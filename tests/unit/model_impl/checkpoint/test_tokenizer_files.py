"""The tokenizer of a converted checkpoint is the source's, with a chat template in any case."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig

from model_impl.checkpoint.convert import convert
from model_impl.checkpoint.grow import grow
from model_impl.checkpoint.reading import CheckpointError
from model_impl.config import PROJECTIONS, ConfigError
from tests.support.tiny import tiny_config, tiny_weights, write_source


def write_tokenizer(directory: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=["a", "b"], show_progress=False)
    tokenizer.train_from_iterator(["abab baba"], trainer)
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer


def test_the_converted_tokenizer_is_that_of_the_source(tmp_path: Path) -> None:
    config = tiny_config()
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    source = write_source(tmp_path / "source", config, tiny_weights(config), vocab_size=None)
    found = convert(source, tmp_path / "model", tokenizer=tmp_path / "tokenizer" / "tokenizer.json")
    assert found.vocab_size == tokenizer.get_vocab_size()
    assert found.padded_vocab_size == 16
    assert found.eos_token_id == 0
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == 0
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.eos_token == "<|endoftext|>"
    assert loaded("abab baba").input_ids == tokenizer.encode("abab baba").ids
    assert loaded.decode(loaded("abab baba").input_ids) == "abab baba"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hello "}]
    chat += [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"}]
    text = loaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "Be brief.\n\nUser: hello\nAssistant: hi\nUser: more\nAssistant:"
    assert loaded.apply_chat_template(chat[1:3], tokenize=False) == "User: hello\nAssistant: hi\n"
    assert GenerationConfig.from_pretrained(tmp_path / "model").stop_strings == ["\nUser:"]
    grow(tmp_path / "model", tmp_path / "grown", dict.fromkeys(PROJECTIONS, 4))
    assert GenerationConfig.from_pretrained(tmp_path / "grown").stop_strings == ["\nUser:"]


def test_tokenizer_settings_of_the_source_are_kept(tmp_path: Path) -> None:
    config = tiny_config()
    source = write_source(tmp_path / "source", config, tiny_weights(config))
    write_tokenizer(source)
    settings = {"eos_token": {"content": "a", "__type": "AddedToken"}, "chat_template": "{{ messages[0].content }}!"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    found = convert(source, tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.eos_token == "a"
    assert found.eos_token_id == loaded.eos_token_id
    assert loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x!"
    assert not (tmp_path / "model" / "chat_template.jinja").exists()
    assert GenerationConfig.from_pretrained(tmp_path / "model").stop_strings is None


def test_a_tokenizer_must_fit_the_embedding(tmp_path: Path) -> None:
    config = tiny_config()
    write_tokenizer(tmp_path / "tokenizer")
    source = write_source(tmp_path / "source", config, tiny_weights(config), vocab_size=2)
    with pytest.raises(ConfigError, match=r"vocab_size: 2, but the tokenizer has \d+ ids"):
        convert(source, tmp_path / "model", tokenizer=tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"not a tokenizer.json"):
        convert(source, tmp_path / "model", tokenizer=tmp_path / "tokenizer")
