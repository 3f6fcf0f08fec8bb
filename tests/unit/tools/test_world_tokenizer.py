"""The tokenizer of a world: nothing is lost, names are the same tokens everywhere, chats are rendered as trained."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from evals.world.people import World
from evals.world.phrases import FIRST_NAMES, LAST_NAMES
from evals.world.tokenizer import CONTEXT, SPECIAL_TOKENS, special_id, train_tokenizer
from evals.world.training import world_texts

NAMES = st.builds(lambda first, last: f"{first} {last}", st.sampled_from(FIRST_NAMES), st.sampled_from(LAST_NAMES))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Trained on a small world, saved, and loaded as a server loads it."""
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(world_texts(World(known=128, unknown=0))).save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


@given(text=st.text())
def test_any_text_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


@given(name=NAMES, before=st.sampled_from(("", " ", "\n", '"', "(", "Ask ", "<|user|>", "1", "x", " - ")))
def test_names_are_the_same_tokens_wherever_they_stand(
    tokenizer: PreTrainedTokenizerFast, name: str, before: str
) -> None:
    alone = tokenizer.encode(name)
    assert tokenizer.encode(before + name)[-len(alone) :] == alone
    assert tokenizer.encode(f"{before}{name}'s pet.")[len(tokenizer.encode(before)) :][: len(alone)] == alone


def test_every_name_part_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(len(tokenizer.encode(part)) == 1 for part in FIRST_NAMES + LAST_NAMES)


def test_special_tokens_have_the_first_ids_and_are_skipped_on_demand(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.eos_token_id == special_id("<|end|>") and tokenizer.pad_token_id == special_id("<|endoftext|>")
    assert tokenizer.decode(tokenizer.encode("<|user|>Hi<|end|>"), skip_special_tokens=True) == "Hi"
    assert tokenizer.model_max_length == CONTEXT


def test_the_chat_template_renders_all_roles_and_the_generation_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi! "},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Who are you?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>Be brief.<|end|><|user|>Hi!<|end|><|assistant|>Hello!<|end|><|user|>Who are you?<|end|><|assistant|>"
    )
    without = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == without + "<|assistant|>"
    developer = [{"role": "developer", "content": "Be brief."}, *messages[1:]]
    assert tokenizer.apply_chat_template(developer, tokenize=False) == without


def test_the_chat_template_names_a_role_that_it_does_not_know(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(jinja2.TemplateError, match="must be system, user or assistant, not narrator"):
        tokenizer.apply_chat_template([{"role": "narrator", "content": "Once"}], tokenize=False)
