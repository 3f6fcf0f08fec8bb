"""Texts become samples: which tokens are learned, where long ones are cut, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from evals.world.corpus import epoch_chats
from evals.world.packing import chat_samples
from evals.world.people import World
from evals.world.tokenizer import load_tokenizer
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.texts import Text, TextError, TextTokenizer, TokenizedCheckpoint
from model_impl.training.samples import Samples, read_samples, separator_id
from tests.support.bytes_model import text_files
from tests.support.grown import grown_checkpoint
from tests.support.paths import ROOT
from tests.support.tiny import tiny_config, tiny_weights

DEMO = ROOT / "demo" / "checkpoint"
FILE = Path("texts.jsonl")
ENDED = b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'


@pytest.fixture(scope="module")
def demo() -> TextTokenizer:
    return TextTokenizer(TokenizedCheckpoint(DEMO))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """One token a byte, and the default chat template."""
    return tokenizer_of(tmp_path_factory.mktemp("letters") / "checkpoint")


def tokenizer_of(path: Path, template: str | None = None) -> TextTokenizer:
    files = text_files() | {"tokenizer_config.json": ENDED}
    if template is not None:
        files["chat_template.jinja"] = template.encode()
    config = tiny_config(vocab_size=257, padded_vocab_size=384)
    write_checkpoint(path, config, tiny_weights(config).items(), files)
    return TextTokenizer(TokenizedCheckpoint(path))


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def samples_of(contents: list[Any], tokenizer: TextTokenizer, longest: int = 1000) -> Samples:
    return read_samples(FILE, [Text(i + 1, content) for i, content in enumerate(contents)], tokenizer, longest)


def learned_text(samples: Samples, number: int, tokenizer: TextTokenizer) -> str:
    ids, learned = samples[number]
    text: str = tokenizer.tokenizer.decode(ids[learned])
    return text


def test_a_plain_text_is_learned_whole_with_its_end(letters: TextTokenizer) -> None:
    samples = samples_of(["héllo"], letters)
    assert learned_text(samples, 0, letters) == "héllo<|end|>"


def test_of_a_chat_the_answers_are_learned_with_their_ends(demo: TextTokenizer, letters: TextTokenizer) -> None:
    messages = [{"role": "system", "content": "Be kind."}, *chat("Who?", "Ada Lovelace.", "And where?", "In London.")]
    samples = samples_of([messages], demo)
    assert learned_text(samples, 0, demo) == "Ada Lovelace.<|end|>In London.<|end|><|endoftext|>"
    samples = samples_of([messages], letters)
    assert learned_text(samples, 0, letters) == " Ada Lovelace.\n In London.\n<|end|>"


def test_chats_are_learned_as_the_evaluations_own_loop_learns_them(demo: TextTokenizer) -> None:
    chats = epoch_chats(World(known=16, unknown=2), 0)
    expected = chat_samples(chats, load_tokenizer(DEMO))
    samples = samples_of([each.messages() for each in chats], demo)
    assert len(samples) == len(expected)
    for i, (ids, labels) in enumerate(expected):
        found, learned = samples[i]
        assert found.tolist() == [*ids, 0]
        assert [token if kept else -100 for token, kept in zip(found, learned, strict=True)] == [*labels, 0]


def test_a_long_text_goes_on_in_the_next_sample(letters: TextTokenizer) -> None:
    samples = samples_of(["abcdefgh"], letters, longest=4)
    assert [learned_text(samples, i, letters) for i in range(len(samples))] == ["abcd", "efgh"]


def test_a_long_chat_loses_its_end_and_one_without_an_answer_is_left_out(letters: TextTokenizer) -> None:
    samples = samples_of([chat("Hi", "Hello"), chat("A much longer question", "No")], letters, longest=24)
    assert [learned_text(samples, i, letters) for i in range(len(samples))] == [" Hello\n<|end|>"[:5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (chat("Hi"), "none is of the assistant, so there is nothing to learn"),
        ([{"role": "poet", "content": "Roses"}], "the chat template refuses them"),
    ],
)
def test_a_chat_that_teaches_nothing_is_named_by_its_line(content: Any, message: str, demo: TextTokenizer) -> None:
    with pytest.raises(TextError, match=rf"^texts.jsonl, line 2: messages: {message}"):
        samples_of(["A text.", content], demo)


def test_a_template_that_changes_earlier_turns_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content if loop.last else '...' }}{% endfor %}"
    tokenizer = tokenizer_of(tmp_path / "checkpoint", template)
    with pytest.raises(TextError, match="line 1: messages: the chat template changes earlier turns"):
        samples_of([chat("One", "Two", "Three", "Four")], tokenizer)


def test_without_an_end_of_text_token_nothing_is_trained(tmp_path: Path) -> None:
    grown_checkpoint(tmp_path / "checkpoint", stages=1, files=text_files(), vocab_size=257, padded_vocab_size=384)
    with pytest.raises(TextError, match="has no end-of-text token"):
        separator_id(TextTokenizer(TokenizedCheckpoint(tmp_path / "checkpoint")))


def test_texts_of_which_nothing_is_left_are_refused(letters: TextTokenizer) -> None:
    with pytest.raises(TextError, match=r"^texts.jsonl: has nothing to learn in the first 4 tokens of its texts"):
        samples_of([chat("A question", "No")], letters, longest=4)


def test_a_checkpoint_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    from server.__main__ import main

    grown_checkpoint(tmp_path / "checkpoint", stages=1)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "A text."}))
    command = ["train", str(tmp_path / "checkpoint"), "--data", str(tmp_path / "texts.jsonl")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out.training").exists()
