"""What `longtake serve` arranges before it serves."""

import pytest
import torch

from longtake.cli.serve import checked_root, leave_a_core
from longtake.core.errors import InputError


@pytest.mark.parametrize(("cores", "given", "expected"), [(8, None, [7]), (1, None, [1]), (8, "8", [])])
def test_a_core_is_left_to_sockets_unless_told_otherwise(
    cores: int, given: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    leave_a_core()
    assert told == expected


def test_a_root_path_is_a_path_and_has_no_slash_at_its_end() -> None:
    assert [checked_root(path) for path in ("", "/", "/studio", "/a/b.c/")] == ["", "", "/studio", "/a/b.c"]
    for wrong in ("studio", "https://x.example/studio", "/a b", "/a?b", "//", "/a//b"):
        with pytest.raises(InputError, match="--root-path"):
            checked_root(wrong)
