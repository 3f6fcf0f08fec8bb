"""A directory to train in."""

from pathlib import Path

import pytest
import yaml

from server.__main__ import main
from tests.unit.model_impl.training.room import SHAPE, facts, train


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a shape, texts, and a trained and a grown checkpoint."""
    path = tmp_path_factory.mktemp("room")
    (path / "shape.yml").write_text(yaml.safe_dump(SHAPE))
    facts(path / "old.jsonl", "ABCDEFGH", mentioned="STUV")
    facts(path / "new.jsonl", "STUV")
    train(path, "shape.yml", "base", data="old", epochs=120)
    tokens = "query=16,key=16,value=16,output=16,ffn=32"
    assert main(["grow", str(path / "base"), str(path / "grown"), "--tokens", tokens, "--name", "more"]) == 0
    return path
