"""Sound beside pictures: same pictures, sound from the first frame on, cut to their length."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.audio import add_audio, check_audio
from longtake.media.clips import read_video
from longtake.media.encode import Mp4Writer

SIZE = PictureSize(height=32, width=48)


def tone(path: Path, seconds: float, rate: int = 22_050) -> Path:
    samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def clip(path: Path, frames: int = 32) -> Path:
    rng = torch.Generator().manual_seed(0)
    with Mp4Writer(path, fps=16, size=SIZE) as writer:
        writer.push(torch.randint(0, 256, (frames, 32, 48, 3), generator=rng, dtype=torch.uint8))
    return path


@pytest.mark.parametrize("seconds", [0.5, 2.0, 7.3])
def test_sound_is_cut_to_the_pictures_and_pictures_stay_as_they_are(tmp_path: Path, seconds: float) -> None:
    video = clip(tmp_path / "a.mp4")
    before = read_video(video)
    add_audio(video, tone(tmp_path / "a.wav", seconds))
    assert torch.equal(read_video(video), before)
    with av.open(str(video)) as container:
        sound = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(sound))
        assert sound.rate == 48_000
    expected = min(seconds, 2.0)
    assert samples / 48_000 == pytest.approx(expected, abs=2.5 * 1024 / 48_000)  # AAC begins with silence of its own
    assert not list(tmp_path.glob("*.seal*"))


def test_what_is_no_sound_is_refused_and_the_video_stays(tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4")
    before = video.read_bytes()
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    for path in (tmp_path / "none.wav", tmp_path / "bad.wav", video, tmp_path):
        with pytest.raises(MediaError):
            check_audio(path)
    with pytest.raises(MediaError, match="stays silent"):
        add_audio(video, tmp_path / "bad.wav")
    assert video.read_bytes() == before
    check_audio(tone(tmp_path / "a.wav", 0.1))
