"""The arithmetic of frames, latent frames, chunks and pictures holds for every length, not only for the usual ones."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import InputError, ShapeError
from longtake.core.shapes import PictureSize, Span, Stride, chunk_spans, chunks_for

strides = st.builds(Stride, time=st.integers(1, 8), space=st.sampled_from((1, 4, 8, 16)))
chunks = st.integers(1, 9)


@given(chunk=chunks, num=st.integers(1, 60), start=st.integers(0, 20))
def test_chunks_cover_latent_frames_without_gap_or_overlap(chunk: int, num: int, start: int) -> None:
    spans = list(islice(chunk_spans(chunk, start), num))
    covered = [frame for span in spans for frame in range(span.start, span.stop)]
    assert covered == list(range(start * chunk, (start + num) * chunk))
    assert [span.idx for span in spans] == list(range(start, start + num))
    assert {len(span) for span in spans} == {chunk}


@given(chunk=chunks, num=st.integers(1, 60), stride=strides)
def test_the_frames_of_chunks_cover_the_video_without_gap_or_overlap(chunk: int, num: int, stride: Stride) -> None:
    spans = list(islice(chunk_spans(chunk), num))
    covered = [frame for span in spans for frame in span.frames(stride)]
    assert covered == list(range(stride.frames(num * chunk)))


def test_a_first_chunk_of_wan_holds_nine_frames_and_each_later_one_twelve() -> None:
    spans = list(islice(chunk_spans(3), 7))
    assert [len(span.frames(Stride())) for span in spans] == [9, 12, 12, 12, 12, 12, 12]
    assert spans[-1].frames(Stride()).stop == 81


@given(latent_frames=st.integers(1, 10_000), stride=strides)
def test_latent_frames_to_frames_and_back_is_the_identity(latent_frames: int, stride: Stride) -> None:
    assert stride.latent_frames(stride.frames(latent_frames)) == latent_frames


@given(frames=st.integers(-20, 500), stride=strides)
def test_a_length_that_no_video_has_is_refused(frames: int, stride: Stride) -> None:
    whole = {stride.frames(n) for n in range(1, 501)}
    if frames in whole:
        assert stride.frames(stride.latent_frames(frames)) == frames
    else:
        with pytest.raises(ShapeError, match=f"got {frames}"):
            stride.latent_frames(frames)


def test_no_latent_frames_hold_no_frames() -> None:
    assert Stride().frames(0) == 0


@given(seconds=st.floats(0.01, 600), fps=st.sampled_from((8.0, 15.0, 16.0, 24.0)), chunk=chunks, stride=strides)
def test_chunks_for_is_the_fewest_chunks_that_last_long_enough(
    seconds: float, fps: float, chunk: int, stride: Stride
) -> None:
    num = chunks_for(seconds, fps=fps, chunk=chunk, stride=stride)
    tolerance = 1e-6  # frames
    assert num >= 1
    assert stride.frames(num * chunk) >= seconds * fps - tolerance
    if num > 1:
        assert stride.frames((num - 1) * chunk) < seconds * fps - tolerance


@given(num=st.integers(1, 200), chunk=chunks, fps=st.sampled_from((12.0, 16.0, 24.0)))
def test_a_duration_of_whole_chunks_is_not_rounded_up(num: int, chunk: int, fps: float) -> None:
    seconds = Stride().frames(num * chunk) / fps
    assert chunks_for(seconds, fps=fps, chunk=chunk, stride=Stride()) == num


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_duration_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="positive number"):
        chunks_for(seconds, fps=16.0, chunk=3, stride=Stride())


@given(height=st.integers(-8, 400), width=st.integers(-8, 400), patch=st.sampled_from((1, 2)))
def test_a_picture_fits_the_grid_or_is_refused_with_a_size_that_fits(height: int, width: int, patch: int) -> None:
    stride, unit = Stride(), 8 * patch
    size = PictureSize(height=height, width=width)
    if height > 0 and width > 0 and height % unit == 0 and width % unit == 0:
        rows, columns = size.latent(stride, patch)
        assert (rows * stride.space, columns * stride.space) == (height, width)
        assert rows % patch == columns % patch == 0
        return
    with pytest.raises(InputError, match="the nearest is") as told:
        size.latent(stride, patch)
    nearest = int(str(told.value).rsplit(" ", 1)[1])
    assert nearest > 0
    assert nearest % unit == 0


@given(width=st.integers(0, 10_000), height=st.integers(0, 10_000))
def test_a_size_is_read_as_it_is_written(width: int, height: int) -> None:
    size = PictureSize(height=height, width=width)
    assert PictureSize.parse(str(size)) == size
    assert PictureSize.parse(f"{width}X{height}") == size


@pytest.mark.parametrize("text", ["", "160", "x96", "160x", "160x96x3", "-160x96", "1.5x2", "wide x high", "160 x 96"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        PictureSize.parse(text)


def test_a_span_is_as_long_as_what_it_spans() -> None:
    assert len(Span(idx=2, start=6, stop=9)) == 3
