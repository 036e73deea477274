"""A file appears whole, or not at all."""

from pathlib import Path

import pytest

from longtake.core.files import atomic


def test_it_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with atomic(path) as part:
        part.write_text("half")
        assert path.read_text() == "before"
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail() -> None:
        with atomic(path) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
