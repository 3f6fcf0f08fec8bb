"""`tokenformer train`: from a shape to a grown stage, resumed, and read by everything else."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import check_tensors, iterate_tensors, load_config, tensor_shapes
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.reference.model import load_reference
from model_impl.training.progress import Progress
from server.__main__ import main
from tests.unit.model_impl.training.room import PLACES, answer, refused, train


def test_a_new_model_learns_its_texts(room: Path) -> None:
    base = room / "base"
    check_tensors(load_config(base), tensor_shapes(base))
    assert load_config(base).token_count("ffn") == 48
    assert [answer(base, name) for name in "ABC"] == [f"{place}.<|end|>" for place in PLACES[:3]]
    assert json.loads((base / "generation_config.json").read_text())["eos_token_id"] == [1, 0]
    record = json.loads((base / "training.json").read_text())
    losses = [entry["loss"] for entry in record["history"] if "loss" in entry]
    assert losses[-1] < losses[0] / 4
    assert record["data"]["texts"] == 20
    assert not (room / "base.training").exists()


def test_a_stage_with_replay_learns_and_leaves_every_old_bit(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: shape, train, grow, train the stage; then inspect and the reference read it."""
    replay = ("--replay", str(room / "old.jsonl"))
    out = train(room, "grown", "more", "--stage", "more", *replay, epochs=120)
    assert "warning" not in capsys.readouterr().err
    config, before, after = load_config(out), *(dict(iterate_tensors(room / name)) for name in ("base", "more"))
    for name, old in before.items():
        assert after[name][: len(old)].equal(old), name
    assert fingerprint(out, stage=0) == fingerprint(room / "base")
    assert config.servable_stages == [0, 1]
    assert [answer(out, name) for name in "ATV"] == ["Bonn.<|end|>", "Lima.<|end|>", "Rome.<|end|>"]
    assert answer(out, "A", stage="base") == answer(room / "base", "A")
    assert main(["inspect", str(out), "--json"]) == 0
    assert [stage["servable"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [True, True]
    ids = torch.arange(40)[None]
    logits = AutoModelForCausalLM.from_pretrained(out)(ids).logits
    torch.testing.assert_close(load_reference(out)(ids), logits, atol=1e-5, rtol=0)
    assert main(["split", str(out), str(room / "delta")]) == 0


def test_without_replay_it_warns_that_old_facts_are_lost(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(room, "grown", "forgetful", "--stage", "more", epochs=1)
    assert "warning: without --replay the model forgets" in capsys.readouterr().err
    train(room, "shape.yml", "another", epochs=1)
    assert "warning" not in capsys.readouterr().err


def test_only_the_main_process_speaks(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(room, "grown", "main", epochs=1)
    spoken = capsys.readouterr()
    assert "stage more" in spoken.out
    assert "warning: " in spoken.err
    monkeypatch.setenv("RANK", "1")
    train(room, "grown", "not-main", epochs=1)
    spoken = capsys.readouterr()
    assert "stage more" not in spoken.out
    assert "warning: " not in spoken.err


def test_training_everything_says_that_earlier_stages_are_gone(room: Path) -> None:
    out = train(room, "grown", "everything", epochs=1)
    assert load_config(out).servable_stages == [1]
    assert load_config(train(room, "base", "longer", epochs=1)).servable_stages == [0]
    changed = dict(iterate_tensors(out))["sequential.2.mlp.key_param_tokens"][:48]
    assert not changed.equal(dict(iterate_tensors(room / "base"))["sequential.2.mlp.key_param_tokens"])


@pytest.mark.parametrize(("model", "flags"), [("shape.yml", ()), ("grown", ("--stage", "more"))])
def test_a_resumed_run_ends_as_if_nothing_had_happened(
    room: Path, model: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    kind = model.partition(".")[0]
    whole = train(room, model, f"{kind}-whole", "--eval-share", "0.2", *flags)
    step = Progress.on_step_end

    def interrupt(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step(self, args, state, control, **kwargs)
        if state.global_step == state.max_steps // 2 + 1:
            raise KeyboardInterrupt

    broken = f"{kind}-broken"
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_step_end", interrupt)
        train(room, model, broken, "--eval-share", "0.2", *flags, code=130)
    assert not (room / broken).exists()
    assert "is the state of an interrupted run" in refused(room, capsys, model, broken, "--eval-share", "0.2", *flags)
    other = refused(room, capsys, model, broken, "--eval-share", "0.3", "--resume", *flags)
    assert "is the state of a run with another model, other settings or texts" in other
    state = room / f"{broken}.training"
    saved = max(state.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    shutil.copytree(saved, state / "checkpoint-1000")  # a later save that was interrupted
    (state / "checkpoint-1000" / "trainer_state.json").write_text('{"epoch": ')
    (state / "checkpoint-1001").mkdir()
    resumed = train(room, model, broken, "--eval-share", "0.2", "--resume", *flags)
    assert fingerprint(resumed) == fingerprint(whole)
    assert not (room / f"{broken}.training").exists()


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json", "shape.yml"])
def test_a_run_is_resumed_only_from_the_same_model_and_tokenizer(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    shutil.copy(room / "new.jsonl", tmp_path)
    shutil.copy(room / "shape.yml", tmp_path)
    shutil.copytree(room / "base", tmp_path / "base")
    model = "shape.yml" if changed == "shape.yml" else "base"

    def interrupt(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_step_end", interrupt)
        train(tmp_path, model, "out", code=130)
    if changed == "model.safetensors":
        tensors = {name: tensor + 1 for name, tensor in iterate_tensors(tmp_path / model)}
        save_file(tensors, tmp_path / model / changed)
    else:
        file = tmp_path / model / changed if model == "base" else tmp_path / changed
        file.write_text(file.read_text() + "\n")
    message = refused(tmp_path, capsys, model, "out", "--resume")
    assert "is the state of a run with another model, other settings or texts" in message


def test_losses_on_texts_held_out_are_reported_for_new_and_old_ones(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay = ("--replay", str(room / "old.jsonl"), "--eval-share", "0.25")
    out = train(room, "grown", "watched", "--stage", "more", *replay, epochs=4)
    history = json.loads((out / "training.json").read_text())["history"]
    assert {name for entry in history for name in entry if name.endswith("_loss")} >= {"eval_new_loss", "eval_old_loss"}
    assert "loss on texts held out: new" in capsys.readouterr().err


def test_a_stage_of_16_bit_numbers_keeps_its_dtype_and_its_old_bits(room: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in iterate_tensors(room / "grown")}
    config = load_config(room / "grown")
    config.dtype = "float16"
    files = {file.name: file.read_bytes() for file in (room / "grown").glob("*token*")}
    write_checkpoint(room / "half", config, tensors.items(), files)
    out = train(room, "half", "half-trained", "--stage", "more", "--dtype", "bfloat16", epochs=2)
    assert fingerprint(out, stage=0) == fingerprint(room / "half", stage=0)
    assert fingerprint(out) != fingerprint(room / "half")


def test_a_run_of_one_update_trains(room: Path) -> None:
    out = train(room, "base", "one-update", "--batch-tokens", "2048", "--row-tokens", "64", epochs=1)
    assert json.loads((out / "training.json").read_text())["history"][-1]["step"] == 1
    assert fingerprint(out) != fingerprint(room / "base")


def test_accumulated_parts_are_one_update(room: Path) -> None:
    sizes = ("--row-tokens", "32", "--dtype", "float32")
    whole = train(room, "base", "one-part", *sizes, epochs=2)
    parts = train(room, "base", "two-parts", *sizes, "--accumulate", "2", "--gradient-checkpointing", epochs=2)
    for (name, one), (_, two) in zip(iterate_tensors(whole), iterate_tensors(parts), strict=True):
        torch.testing.assert_close(one, two, atol=2e-3, rtol=0, msg=name)


def test_a_new_model_takes_a_tokenizer_that_is_given(room: Path) -> None:
    out = train(room, "shape.yml", "same-words", "--tokenizer", str(room / "base"), epochs=1)
    assert (out / "tokenizer.json").read_bytes() == (room / "base" / "tokenizer.json").read_bytes()
    assert load_config(out).eos_token_id == 1


def test_chats_that_are_too_long_are_counted_in_one_warning(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question, answer = {"role": "user", "content": "A?"}, {"role": "assistant", "content": "Bonn. " * 60}
    short = {"messages": [question, {"role": "assistant", "content": "Bonn."}]}
    lines = [short, {"messages": [question, answer]}, {"text": "Bonn. " * 60}, {"messages": [question, answer]}]
    (room / "long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train(room, "grown", "long", "--stage", "more", "--eval-share", "0.5", data="long", epochs=1)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "--row-tokens" in line]
    assert len(warnings) == 1
    assert "long.jsonl, line 2: 2 of 4 texts are chats of more than 64 tokens" in warnings[0]


def test_the_command_line_needs_no_torch_to_describe_itself() -> None:
    import subprocess

    script = "import sys; from server.__main__ import _parser; _parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
