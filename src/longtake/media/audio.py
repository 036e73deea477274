"""Addition of sound to a finished take: video packets are copied, sound is encoded as AAC."""

from pathlib import Path

import av
from av.audio.fifo import AudioFifo
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError

from longtake.core.errors import MediaError
from longtake.media.targets import Target, reason

RATE = 48_000
FRAME = 1024  # samples per AAC frame


def check_audio(path: Path) -> None:
    """Check that a file can be decoded as sound, before any work is done.

    Raises:
        MediaError: it is missing, damaged, or holds no sound.
    """
    if not path.is_file():
        raise MediaError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"cannot read {path} as sound: it holds no audio stream")
            next(container.decode(container.streams.audio[0]))
    except (FFmpegError, StopIteration) as error:
        raise MediaError(f"cannot read {path} as sound: {reason(error)}") from error


def add_audio(video: Path, audio: Path) -> None:
    """Add a sound track to an mp4, starting at its first frame and cut to the length of the video.

    Raises:
        MediaError: a file cannot be read, or the result cannot be written; the mp4 is unchanged.
    """
    target = Target(video)
    try:
        _mux(video, audio, target.sealing_path)
    except (FFmpegError, OSError) as error:
        target.sealing_path.unlink(missing_ok=True)
        raise MediaError(f"cannot put the sound of {audio} into {video}: {reason(error)}; it stays silent") from error
    target.commit(target.sealing_path)


def _mux(video: Path, audio: Path, out: Path) -> None:
    with (
        av.open(str(video)) as pictures,
        av.open(str(audio)) as sound,
        av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as joined,
    ):
        source = pictures.streams.video[0]
        picture_stream = joined.add_stream_from_template(source)
        sound_stream = joined.add_stream("aac", rate=RATE, layout="stereo")
        packets = [packet for packet in pictures.demux(source) if packet.dts is not None]
        length_s = float((packets[-1].pts + packets[-1].duration) * source.time_base)  # type: ignore[operator]
        for packet in packets:
            packet.stream = picture_stream
            joined.mux(packet)
        for frame in _frames(sound, round(length_s * RATE)):
            joined.mux(sound_stream.encode(frame))
        joined.mux(sound_stream.encode(None))


def _frames(sound: InputContainer, num_samples: int):
    """Yield the first `num_samples` samples of a sound track, in frames of AAC's size."""
    resampler = AudioResampler("fltp", "stereo", RATE)
    fifo = AudioFifo()
    done = 0
    for decoded in sound.decode(sound.streams.audio[0]):
        decoded.pts = None
        for frame in resampler.resample(decoded):
            fifo.write(frame)
        while done < num_samples and (frame := fifo.read(min(FRAME, num_samples - done))) is not None:
            frame.pts = done
            done += frame.samples
            yield frame
        if done >= num_samples:
            return
    rest = fifo.read(min(fifo.samples, num_samples - done), partial=True) if fifo.samples else None
    if rest is not None:
        rest.pts = done
        yield rest
