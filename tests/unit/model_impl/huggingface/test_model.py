"""The transformers model equals the reference, cached, padded and saved, and trains what it is told to."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from model_impl.checkpoint.delta import split
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import CheckpointError, check_tensors, load_config, tensor_shapes
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import ConfigError, TokenformerConfig
from model_impl.huggingface import HuggingFaceConfig, TokenformerForCausalLM
from model_impl.reference.model import ReferenceTokenformer, load_reference
from tests.conformance.models import VARIANTS, random_weights, variant_config
from tests.support.golden_cases import CASES, GROWN_CASES, PROMPT_TOKENS, TOLERANCE, load_case
from tests.support.grown import VOCABULARY, grown_checkpoint
from tests.support.paths import ROOT
from tests.support.tiny import tiny_config

DEMO = ROOT / "demo" / "checkpoint"
CLOSE = {"atol": 1e-5, "rtol": 0}


def model_of(path: Path, **kwargs: Any) -> TokenformerForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    assert type(model) is TokenformerForCausalLM
    return model.eval()


def some_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def greedy(reference: ReferenceTokenformer, ids: torch.Tensor, count: int, stage: int = -1) -> torch.Tensor:
    for _ in range(count):
        ids = torch.cat([ids, reference(ids, stage)[:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_golden_cases_hold(name: str, path: Path) -> None:
    case = load_case(name)
    write_checkpoint(path, case.config, case.weights.items(), {})
    model, ids = model_of(path), case.io["input_ids"]
    logits = model(ids).logits
    torch.testing.assert_close(logits, load_reference(path)(ids), **CLOSE)
    torch.testing.assert_close(logits, case.io["logits"][..., : case.config.vocab_size], atol=TOLERANCE, rtol=0)
    expected = case.io["greedy_ids"]
    assert model.generate(expected[:, :PROMPT_TOKENS], max_length=expected.shape[1], eos_token_id=-1).equal(expected)


@pytest.mark.parametrize("name", GROWN_CASES)
@torch.no_grad()
def test_an_earlier_stage_of_a_golden_case_is_the_ungrown_model(name: str, path: Path) -> None:
    case = load_case(name)
    write_checkpoint(path, case.staged_config(), case.weights.items(), {})
    logits = model_of(path, stage="base")(case.io["input_ids"]).logits
    torch.testing.assert_close(logits, case.io["ungrown_logits"][..., : case.config.vocab_size], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_every_kind_of_model_equals_the_reference_and_generates_as_it_does(name: str, path: Path) -> None:
    config = variant_config(name)
    write_checkpoint(path, config, random_weights(config).items(), {})
    model, reference, ids = model_of(path), load_reference(path), some_ids(3, 17) % config.vocab_size
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)
    for use_cache in (True, False):
        generated = model.generate(ids, max_new_tokens=8, use_cache=use_cache)
        assert generated.equal(greedy(reference, ids, 8))


@given(
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    stage=st.sampled_from(["base", "grown-1", "grown-2"]),
    seed=st.integers(0, 100),
)
@torch.no_grad()
def test_a_sequence_in_chunks_over_the_cache_has_the_logits_of_the_whole(
    grown: tuple[TokenformerForCausalLM, ReferenceTokenformer], cuts: list[int], stage: str, seed: int
) -> None:
    model, reference = grown
    ids = some_ids(2, sum(cuts), seed=seed)
    cache, parts = None, []
    for chunk in ids.split(cuts, dim=1):
        out = model.at_stage(stage)(chunk, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits)
    expected = reference(ids, ["base", "grown-1", "grown-2"].index(stage))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenformerForCausalLM, ReferenceTokenformer]:
    path = tmp_path_factory.mktemp("grown") / "checkpoint"
    grown_checkpoint(path, stages=3)
    return model_of(path).double(), load_reference(path).double()  # other shapes are summed in another order


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), left=st.booleans(), seed=st.integers(0, 100))
@torch.no_grad()
def test_padding_changes_nothing(
    grown: tuple[TokenformerForCausalLM, ReferenceTokenformer], lengths: list[int], left: bool, seed: int
) -> None:
    model, reference = grown
    model.at_stage("grown-2")
    longest = max(lengths)
    ids = some_ids(len(lengths), longest, seed=seed)
    places = torch.arange(longest).expand_as(ids)
    counts = torch.tensor(lengths)[:, None]
    mask = places >= longest - counts if left else places < counts
    logits = model(ids, attention_mask=mask.long()).logits
    for row, kept, found in zip(ids, mask, logits, strict=True):
        torch.testing.assert_close(found[kept], reference(row[kept][None])[0], **CLOSE)  # rotary: float32
    if left:
        generated = model.generate(ids, attention_mask=mask.long(), max_new_tokens=4, pad_token_id=0)
        for row, kept, found in zip(ids, mask, generated, strict=True):
            assert found[-4:].equal(greedy(reference, row[kept][None], 4)[0, -4:])


@torch.no_grad()
def test_float16_scores_whose_squares_overflow_are_normalised(path: Path) -> None:
    reference = grown_checkpoint(path, stages=1, dtype="float16")
    for name, parameter in reference.named_parameters():
        if name.endswith("key_param_tokens"):
            parameter.mul_(300)  # the norm divides it away
    config = load_config(path)
    state = {name: tensor.half() for name, tensor in reference.state_dict().items()}
    write_checkpoint(path.with_name("large"), config, state.items(), {})
    model, plain = model_of(path.with_name("large"), dtype="float16"), model_of(path, dtype="float16")
    ids = some_ids(2, 9)
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, atol=0.2, rtol=0.02)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "affine_block_norms": True}], ids=str)
def test_gradients_are_the_references_with_and_without_checkpointing(path: Path, changes: dict[str, Any]) -> None:
    grown_checkpoint(path, stages=2, **changes)
    reference, ids = load_reference(path).requires_grad_(True), some_ids(2, 12)
    labels = torch.where(torch.arange(12) < 4, -100, ids)
    logits = reference(ids)[:, :-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
    for checkpointing in (False, True):
        model = model_of(path).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        out = model(ids, labels=labels)
        assert out.past_key_values is None
        out.loss.backward()
        for name, parameter in reference.named_parameters():
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, **CLOSE)


def test_the_loss_is_summed_over_the_items_of_a_whole_batch(path: Path) -> None:
    grown_checkpoint(path, stages=1)
    model, ids = model_of(path), some_ids(2, 12)
    mean, summed = model(ids, labels=ids).loss, model(ids, labels=ids, num_items_in_batch=44).loss
    torch.testing.assert_close(summed, mean / 2)


def test_logits_and_hidden_states_are_given_as_asked(path: Path) -> None:
    grown_checkpoint(path, stages=1)
    model, ids = model_of(path), some_ids(2, 12)
    whole = model(ids, output_hidden_states=True)
    assert model(ids, logits_to_keep=3).logits.equal(whole.logits[:, -3:])
    assert len(whole.hidden_states) == 3
    torch.testing.assert_close(whole.hidden_states[1], load_reference(path).hidden_states(ids)[0], **CLOSE)
    assert model(ids, return_dict=False)[0].equal(whole.logits)
    embedded = model(inputs_embeds=model.get_input_embeddings()(ids))
    assert embedded.logits.equal(whole.logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_saved_is_a_checkpoint_of_the_same_model(name: str, path: Path, tmp_path: Path) -> None:
    config = variant_config(name)
    write_checkpoint(path, config, random_weights(config).items(), {})
    model_of(path).save_pretrained(tmp_path / "saved")
    saved = load_config(tmp_path / "saved")
    check_tensors(saved, tensor_shapes(tmp_path / "saved"))
    assert saved == load_config(path)
    assert fingerprint(tmp_path / "saved") == fingerprint(path)


def test_a_new_model_has_the_references_initialisation() -> None:
    config = variant_config("untied head, affine norms, full rotary")
    fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    states = []
    for make, made in ((TokenformerForCausalLM, HuggingFaceConfig(**fields)), (ReferenceTokenformer, config)):
        torch.manual_seed(5)
        states.append(make(made).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(tensor.equal(states[1][name]) for name, tensor in states[0].items())


def test_the_demo_keeps_greedy_decoding_when_it_is_saved(tmp_path: Path) -> None:
    """Its generation configuration has temperature 0, which transformers would refuse to write."""
    model_of(DEMO).save_pretrained(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(DEMO)
    saved, original = (json.loads((p / "generation_config.json").read_text()) for p in (tmp_path, DEMO))
    assert original.items() <= saved.items()


def test_a_base_with_a_delta_is_the_grown_model(path: Path, tmp_path: Path) -> None:
    reference, ids = grown_checkpoint(path, stages=2), some_ids(2, 12)
    base = tmp_path / "base"
    grown_checkpoint(base, stages=1)
    delta = split(path, tmp_path / "delta").path
    model = TokenformerForCausalLM.from_delta(base, delta)
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)
    model.save_pretrained(tmp_path / "joined")
    assert fingerprint(tmp_path / "joined") == fingerprint(path)
    assert TokenformerForCausalLM.from_delta(base, delta, stage="base")(ids).logits.equal(model_of(base)(ids).logits)
    other = tmp_path / "other"
    grown_checkpoint(other, stages=1, base_seed=1)
    with pytest.raises(CheckpointError, match="grew on another base"):
        TokenformerForCausalLM.from_delta(other, delta)


def test_a_stage_that_cannot_be_computed_is_named(path: Path) -> None:
    grown_checkpoint(path, stages=2)
    with pytest.raises(ConfigError, match="stage 'grown-9': the model can compute base, grown-1"):
        model_of(path, stage="grown-9")
    with pytest.raises(ConfigError, match="stage 'x' is unknown; known are base, grown-1"):
        model_of(path).freeze_before("x")


def test_a_stage_that_later_training_changed_is_not_computed(path: Path) -> None:
    grown_checkpoint(path, stages=2)
    file = path / "config.json"
    entries = json.loads(file.read_text())
    entries["growth_stages"][1]["retrained"] = True
    file.write_text(json.dumps(entries))
    with pytest.raises(ConfigError, match="the model can compute grown-1"):
        model_of(path, stage="base")


def train_steps(model: TokenformerForCausalLM, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    model.train()
    for step in range(steps):
        ids = some_ids(4, 16, seed=step)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("norm", ["grouped", "joint"])
@pytest.mark.parametrize("untied", [False, True])
def test_training_a_stage_leaves_every_bit_of_earlier_ones(path: Path, tmp_path: Path, norm: str, untied: bool) -> None:
    before = grown_checkpoint(path, 3, norm=norm, tie_word_embeddings=not untied, affine_block_norms=untied)
    model = model_of(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5)
    train_steps(model, optimizer)  # leaves momentum, and moves everything
    model.load_state_dict(before.state_dict())
    model.freeze_before("grown-2")
    trained = [p for p in model.parameters() if p.requires_grad]
    train_steps(model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5))
    model.save_pretrained(tmp_path / "trained")
    config, after = load_config(path), load_reference(tmp_path / "trained").state_dict()
    moved = 0
    for name, old in before.state_dict().items():
        layer = before.get_submodule(name.rpartition(".")[0])
        kept = config.token_count(layer.projection, 1) if hasattr(layer, "projection") else len(old)
        assert after[name][:kept].equal(old[:kept]), name
        moved += int((after[name][kept:] != old[kept:]).any(dim=-1).sum()) if old.ndim == 2 else 0
    new = 2 * config.num_hidden_layers * sum(config.stages[2].tokens.values())
    assert moved == new == sum(map(len, trained))
    assert fingerprint(tmp_path / "trained", stage=1) == fingerprint(path, stage=1)
    assert fingerprint(tmp_path / "trained") != fingerprint(path)


def test_a_frozen_model_computes_and_keeps_names_as_before(path: Path) -> None:
    reference, ids = grown_checkpoint(path, stages=3), some_ids(2, 12)
    model = model_of(path)
    for stage in ("grown-1", "grown-2", "base", "grown-1"):  # freezing again starts from the whole tensors
        model.freeze_before(stage)
        assert model.state_dict().keys() == reference.state_dict().keys()
        assert all(tensor.equal(reference.state_dict()[name]) for name, tensor in model.state_dict().items())
        torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)
    other = grown_checkpoint(path.with_name("other"), stages=3, base_seed=7)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(ids).logits, other(ids), **CLOSE)


def test_the_trainer_of_transformers_trains_and_saves_a_stage(path: Path, tmp_path: Path) -> None:
    grown_checkpoint(path, stages=2)
    model = model_of(path).freeze_before("grown-1")
    data = [{"input_ids": row, "labels": row} for row in some_ids(16, 12)]
    settings: dict[str, Any] = {"per_device_train_batch_size": 8, "learning_rate": 0.05, "report_to": "none"}
    arguments = TrainingArguments(str(tmp_path / "run"), use_cpu=True, num_train_epochs=12, **settings)
    trainer = Trainer(model, arguments, train_dataset=data)
    before = trainer.evaluate(data)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(data)["eval_loss"] < before - 0.1
    trainer.save_model(str(tmp_path / "saved"))
    assert fingerprint(tmp_path / "saved", stage=0) == fingerprint(path, stage=0)
    loaded = load_reference(tmp_path / "saved")
    torch.testing.assert_close(loaded(some_ids(2, 9)), model.eval()(some_ids(2, 9)).logits, **CLOSE)


def test_vllms_plugin_imports_no_transformers_model() -> None:
    script = (
        "import sys; from model_impl.plugin import register; register(); "
        "assert 'model_impl.hf_config' in sys.modules; "
        "sys.exit(any(name.startswith('model_impl.huggingface') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=120).returncode == 0


def test_every_field_of_a_configuration_survives_saving(tmp_path: Path) -> None:
    """transformers writes only what differs from its defaults, which must then be ours."""
    for number, changes in enumerate(({}, {"rope_theta": 500.0, "ensemble_rate": 0.1, "bos_token_id": 3})):
        config = TokenformerConfig(**changes)
        fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
        HuggingFaceConfig(**fields).save_pretrained(tmp_path / str(number))
        assert load_config(tmp_path / str(number)) == config


def test_the_vocabulary_is_fixed() -> None:
    model = TokenformerForCausalLM(HuggingFaceConfig(**asdict(tiny_config())))
    with pytest.raises(CheckpointError, match="vocabulary is fixed"):
        model.resize_token_embeddings(50)
