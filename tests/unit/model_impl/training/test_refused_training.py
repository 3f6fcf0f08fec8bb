"""What `tokenformer train` refuses, in one line and without a trace."""

import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from model_impl.checkpoint.reading import iterate_tensors
from model_impl.training import run as training
from model_impl.training.progress import Progress
from tests.unit.model_impl.training.room import SHAPE, refused, train


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("nothing", (), "nothing: no such checkpoint directory or shape file"),
        ("old.jsonl", (), "neither a checkpoint directory nor a shape"),
        ("base", ("--stage", "x"), "has no stage 'x'; it has base"),
        ("base", ("--stage", "base"), "'base' is the whole model"),
        ("grown", ("--stage", "base"), "'more' grew on 'base', which must stay"),
        ("grown", ("--tokenizer", "base"), "--tokenizer: "),
        ("shape.yml", ("--stage", "base"), "is a new model, without growth stages"),
        ("shape.yml", ("--replay", "old.jsonl"), "is a new model, which has learned nothing yet"),
        ("grown", ("--row-tokens", "65"), "--row-tokens: the model takes at most 64"),
        ("grown", ("--row-tokens", "1"), "--row-tokens: must be at least 2"),
        ("grown", ("--batch-tokens", "31", "--row-tokens", "32"), "update of 1 x 32 tokens does not fit"),
        ("grown", ("--accumulate", "3", "--row-tokens", "32"), "update of 3 x 32 tokens does not fit"),
        ("grown", ("--batch-tokens", "1"), "update of 1 x 2 tokens does not fit"),
        ("grown", ("--epochs", "0"), "--epochs: must be at least 1"),
        ("grown", ("--learning-rate", "-1"), "--learning-rate: must be above 0"),
        ("grown", ("--weight-decay", "-0.1"), "--weight-decay: must be at least 0 and at most 1"),
        ("grown", ("--weight-decay", "nan"), "--weight-decay: must be at least 0 and at most 1"),
        ("grown", ("--seed", "-1"), "--seed: must be at least 0 and below 2**32"),
        ("grown", ("--seed", str(2**32)), "--seed: must be at least 0 and below 2**32"),
        ("grown", ("--replay-share", "1"), "--replay-share: must be between 0 and 1"),
        ("grown", ("--eval-share", "1"), "--eval-share: must be at least 0 and below 1"),
        ("grown", ("--dtype", "int8"), "--dtype: 'int8' is none of auto, bfloat16, float32"),
        ("grown", ("--resume",), "--resume: there is no interrupted run in"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    room: Path, capsys: pytest.CaptureFixture[str], model: str, flags: tuple[str, ...], message: str
) -> None:
    assert message in refused(room, capsys, model, "refused", *flags)
    assert not list(room.glob("refused*"))


def test_bfloat16_on_a_gpu_without_it_is_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: False)
        message = refused(room, capsys, "grown", "refused", "--dtype", "bfloat16")
    assert message.startswith("--dtype bfloat16: Your setup doesn't support bf16/gpu")
    assert not list(room.glob("refused*"))


def test_a_run_that_fails_before_its_first_save_leaves_nothing(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Progress, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_step_end", fail)
        train(room, "shape.yml", "early", code=130)
    assert not list(room.glob("early*"))


def test_a_checkpoint_that_lacks_a_tensor_is_refused(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = room / "lacking"
    shutil.copytree(room / "base", lacking)
    tensors = dict(iterate_tensors(lacking))
    del tensors["sequential.2.mlp.key_param_tokens"]
    save_file(tensors, lacking / "model.safetensors")
    message = refused(room, capsys, "lacking", "refused")
    assert message.startswith(f"{lacking}: ")
    assert "sequential.2.mlp.key_param_tokens" in message
    assert not list(room.glob("refused*"))


def test_a_destination_with_files_is_left_alone(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not empty; name a new or empty directory, or remove it" in refused(room, capsys, "grown", "base")


def test_bad_texts_are_named_by_line_and_leave_nothing(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "bad.jsonl").write_text('{"text": "Fine."}\n{"txt": "Not."}\n')
    assert "bad.jsonl, line 2: 'txt': unknown field" in refused(room, capsys, "grown", "refused", data="bad")
    (room / "bad.jsonl").write_text('{"messages": [{"role": "poet", "content": "Roses"}]}\n')
    assert "bad.jsonl, line 1: messages: " in refused(room, capsys, "grown", "refused", data="bad")
    assert not list(room.glob("refused*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size: missing from the official config"),
        ({"ffn_slot_num": 0}, "ffn_slot_num: 0 is no positive int"),
        ({"num_attention_heads": 5}, "hidden_size: 32 is not divisible by 5 attention heads"),
        ({"pos_emb": "learned"}, "pos_emb: 'learned' is not supported"),
        ({"num_layers": 10**9}, "num_layers: must be at most 4096"),
    ],
)
def test_a_shape_that_is_no_model_is_one_line(
    room: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    shape = {key: value for key, value in (SHAPE | changes).items() if value is not None}
    (room / "bad.yml").write_text(yaml.safe_dump(shape))
    found = refused(room, capsys, "bad.yml", "refused")
    assert message in found
    assert "bad.yml" in found
    assert not list(room.glob("refused*"))


def test_without_accelerate_it_says_what_to_install(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "is_accelerate_available", lambda: False)
    assert refused(room, capsys, "grown", "refused") == (
        "training needs accelerate: pip install 'tokenformer-server[train]'"
    )


@pytest.mark.parametrize("room_for", [100, 5_000, 30_000, 60_000])
def test_a_full_disk_is_one_line_that_names_the_place(
    room: Path, capsys: pytest.CaptureFixture[str], room_for: int
) -> None:
    """No file may grow beyond `room_for` bytes: from the first settings to the Trainer's largest file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_for, hard))
    try:
        line = refused(room, capsys, "shape.yml", "full", epochs=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(room / "full") in line or (room_for == 5_000 and tempfile.gettempdir() in line)  # the tokenizer's
    assert "File too large" in line
    assert not (room / "full").exists()
