"""API keys: their sources, and no place that shows them."""

import pickle
from pathlib import Path

import pytest

from server.gate.keys import KEYS_VARIABLE, VLLM_VARIABLE, ApiKeyError, ApiKeys, readable_by_all, take_keys


def test_every_source_counts(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nfirst-key\n\n  second-key  \r\n")
    environment = {KEYS_VARIABLE: "third,fourth\nfifth", VLLM_VARIABLE: "sixth", "PATH": "/bin"}
    keys = take_keys(file, environment)
    assert keys is not None
    for key in ("first-key", "second-key", "third", "fourth", "fifth", "sixth"):
        assert keys.salt(key), key
    for key in ("", "# of the team", "first", "first-key ", "FIRST-KEY", "third,fourth", "/bin", "é"):
        assert keys.salt(key) is None, key
    assert environment == {"PATH": "/bin"}, "no child process inherits the keys"


def test_no_source_no_keys() -> None:
    assert take_keys(None, {}) is None


@pytest.mark.parametrize("value", ["", " \n", "# none", "with space", "schlüssel", "tab\there"])
def test_a_source_without_a_usable_key_does_not_open_the_server(tmp_path: Path, value: str) -> None:
    file = tmp_path / "keys"
    file.write_text(value)
    for source, environment in ((file, {}), (None, {KEYS_VARIABLE: value}), (None, {VLLM_VARIABLE: value})):
        with pytest.raises(ApiKeyError) as caught:
            take_keys(source, environment)
        assert "\n" not in str(caught.value)
        for word in ("space", "schl", "here"):
            assert word not in str(caught.value), "an error shows no part of a key"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(ApiKeyError, match=str(file)):
            take_keys(file, {})


def test_nothing_of_a_key_is_kept() -> None:
    keys = ApiKeys.of(["hidden-key"])
    assert b"hidden" not in pickle.dumps(keys)
    assert repr(keys) == "ApiKeys()", "settings are logged"
    assert pickle.loads(pickle.dumps(keys)).salt("hidden-key") == keys.salt("hidden-key"), "API processes get a copy"


def test_every_key_has_a_salt_of_its_own_that_is_new_in_every_process() -> None:
    first, second = ApiKeys.of(["one", "two"]), ApiKeys.of(["one", "two"])
    assert len({keys.salt(key) for keys in (first, second) for key in ("one", "two")}) == 4


def test_who_can_read_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    assert not readable_by_all(file)
    file.chmod(0o644)
    assert readable_by_all(file)
