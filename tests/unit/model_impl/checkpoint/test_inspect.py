"""`tokenformer inspect`, and the exit codes and imports of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import WEIGHTS
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import GrowthStage
from server.__main__ import main
from tests.support.paths import ROOT
from tests.support.tiny import TOKENS, tiny_config, tiny_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    grown = {"query": 2, "key": 2, "value": 2, "output": 0, "ffn": 4}
    stages = [GrowthStage("base", TOKENS), GrowthStage("grown", grown, dict.fromkeys(TOKENS, 1.5), norm_group=1)]
    config = tiny_config(
        dtype="bfloat16", tie_word_embeddings=False, growth_stages=[stage.to_dict() for stage in stages]
    )
    write_checkpoint(tmp_path / "model", config, tiny_weights(config).items(), {})
    return tmp_path / "model"


def test_json_holds_sizes_and_stages(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    tokens = {"query": 6, "key": 7, "value": 8, "output": 7, "ffn": 13}
    token_parameters = 2 * 2 * 8 * sum(tokens.values())  # layers, keys and values, width
    embedding = 2 * 16 * 8  # untied
    assert report["tokens"] == tokens
    assert report["token_parameters"] == token_parameters
    assert report["embedding_parameters"] == embedding
    assert report["parameters"] == token_parameters + embedding + 2 * 8
    assert report["kv_bytes_per_token"] == 2 * 2 * 8 * 2  # keys and values, layers, width, bytes of bfloat16
    assert report["dtype"] == "bfloat16"
    assert report["file_bytes"] == (checkpoint / WEIGHTS).stat().st_size
    assert report["fingerprint"] == fingerprint(checkpoint)
    assert (report["layers"], report["heads"], report["head_dim"], report["rotary_dim"]) == (2, 2, 4, 2)
    base, grown = report["stages"]
    assert (base["name"], base["group"], base["tokens"]) == ("base", 0, TOKENS)
    assert base["tau"]["query"] == 2.0
    assert (grown["name"], grown["group"], grown["tokens"]["ffn"]) == ("grown", 1, 4)
    assert grown["tau"] == {"query": 1.5, "key": 1.5, "value": 1.5, "output": None, "ffn": 1.5}


def test_the_table_has_a_line_per_fact_and_stage(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "KV cache            64 bytes per token" in lines
    assert "output head         untied" in lines
    assert f"fingerprint         {fingerprint(checkpoint)}" in lines
    header, base, grown, total = lines[-4:]
    for column in ("query", "key", "value", "output", "ffn"):
        start = header.index(column)
        assert base[start : start + 1].isdigit() and base[start - 1] == " "
    assert base.split()[:5] == ["base", "0", "4", "(tau", "2)"]
    assert grown.split()[:5] == ["grown", "1", "2", "(tau", "1.5)"]
    assert total.split() == ["parameter", "tokens", "6", "7", "8", "7", "13"]


def test_failures_are_one_line_and_exit_code_1(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint / "nowhere")]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {checkpoint / 'nowhere'}: no such checkpoint directory\n"
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert main(["inspect", str(checkpoint)]) == 1
    message = "tensor sequential.6.final_linear.weight is surplus: the config describes no such tensor"
    assert capsys.readouterr().err == f"tokenformer: error: {checkpoint}: {message}\n"


@pytest.mark.parametrize("argv", [[], ["explode"], ["inspect"], ["inspect", "x", "--yaml"]])
def test_wrong_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(argv)
    assert leave.value.code == 2
    assert "usage: tokenformer" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["chat", "--help"], ["inspect", "demo/checkpoint"]])
def test_commands_that_run_no_model_load_no_heavy_library(argv: list[str]) -> None:
    program = (
        "import sys; from server.__main__ import main\n"
        f"try: main({argv})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_nothing_here_loads_vllm() -> None:
    modules = "model_impl.checkpoint.convert, model_impl.checkpoint.inspection"
    program = f"import sys, {modules}\nprint([m for m in sys.modules if m.startswith('vllm')])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_delta_names_its_base_its_stage_and_its_tokens(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(checkpoint), str(tmp_path / "delta")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "delta"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    tokens = {"query": 2, "key": 2, "value": 2, "output": 0, "ffn": 4}
    base = fingerprint(checkpoint, 0)
    assert (report["stage"], report["group"], report["base_stages"]) == ("grown", 1, ["base"])
    assert (report["base_fingerprint"], report["tokens"], report["dtype"]) == (base, tokens, "bfloat16")
    assert report["parameters"] == 2 * 2 * 8 * sum(tokens.values())  # layers, keys and values, width
    assert main(["inspect", str(tmp_path / "delta")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"growth delta      {tmp_path / 'delta'}"
    assert f"base fingerprint  {base}" in lines
    assert "parameters        320" in lines
    assert lines[-1].split() == ["grown", "1", "2", "2", "2", "0", "4"]


def test_a_delta_alone_has_no_geometry(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["split", str(checkpoint), str(tmp_path / "delta")])
    assert main(["inspect", str(tmp_path / "delta"), "--geometry"]) == 1
    assert "a delta alone is no model" in capsys.readouterr().err


def test_a_damaged_delta_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["split", str(checkpoint), str(tmp_path / "delta")])
    (tmp_path / "delta" / "growth.safetensors").unlink()
    assert main(["inspect", str(tmp_path / "delta")]) == 1
    assert "growth.safetensors: No such file or directory" in capsys.readouterr().err
