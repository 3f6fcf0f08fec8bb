"""The changelog has Keep a Changelog's form, and tells of the version that pyproject.toml names."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "CHANGELOG.md").read_text()
HEADINGS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def releases() -> list[tuple[Version, date]]:
    """Versions and their days, in the order of the file."""
    found = [RELEASE.fullmatch(heading) for heading in HEADINGS[1:]]
    assert all(found), HEADINGS
    return [(Version(match[1]), date.fromisoformat(match[2])) for match in found if match]


def test_what_is_not_released_comes_first() -> None:
    assert HEADINGS[0] == "[Unreleased]"


def test_the_newest_release_is_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert releases()[0][0] == Version(project["version"])


def test_releases_go_back_in_time() -> None:
    assert releases() == sorted(releases(), reverse=True)
    assert len({version for version, _ in releases()}) == len(releases())


def test_changes_are_sorted_by_kind() -> None:
    for release in re.split(r"^## .+$", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        before_the_first_kind = release.split("###")[0]
        assert not before_the_first_kind.strip()
