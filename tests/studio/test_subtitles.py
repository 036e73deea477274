"""Subtitle files as cue tracks."""

from pathlib import Path

import pytest

from longtake.core.errors import InputError
from longtake.studio.subtitles import read_subtitles

VTT = """WEBVTT - a story

NOTE a comment
of two lines

STYLE
::cue { color: red }

opening
00:00.000 --> 00:04.000 align:start
<v Anna>A tiger walks</v>
through a forest

00:04.500 --> 00:08.000
Snow &amp; wind

01:00:08.000 --> 01:00:10.000
night
"""
SRT = (
    "1\r\n00:00:01,000 --> 00:00:04,000\r\n{\\an8}A tiger\r\n\r\n2\r\n00:00:04,500 --> 00:00:08,000\r\n<i>night</i>\r\n"
)


def test_webvtt_and_subrip_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(VTT)
    (tmp_path / "a.srt").write_bytes(b"\xef\xbb\xbf" + SRT.encode())
    vtt, srt = (read_subtitles(tmp_path / name) for name in ("a.vtt", "a.srt"))
    assert [(c.at_s, c.prompt) for c in vtt] == [
        (0.0, "A tiger walks through a forest"),
        (4.5, "Snow & wind"),
        (3608.0, "night"),
    ]
    assert [(c.at_s, c.prompt) for c in srt] == [(0.0, "A tiger"), (4.5, "night")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WEBVTT\n", "holds no cue"),
        ("WEBVTT\n\n00:01 --> 00:02\na\n", "a time reads"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n\n", "empty"),
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\na\n\n00:03.000 --> 00:04.000\nb\n\n00:03.000 --> 00:05.000\nc\n",
            "not come after",
        ),
    ],
)
def test_a_file_that_is_no_cue_track_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.vtt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_subtitles(tmp_path / "a.vtt")
    with pytest.raises(InputError, match="cannot read"):
        read_subtitles(tmp_path / "none.vtt")
    (tmp_path / "b.vtt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read"):
        read_subtitles(tmp_path / "b.vtt")
