"""Charts of the seconds per chunk: stacked columns by stage, with a line at real time."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from longtake.core.errors import MediaError
from longtake.media.sheets import BACKGROUND, CAPTION_INK, LABEL_INK, MARGIN_PX

COLOURS = ((242, 184, 92), (120, 170, 235), (96, 200, 160), (214, 120, 160), (170, 150, 230), (150, 155, 162))
WIDTH_PX = 960
PLOT_PX = 300
LINE_PX = 22


def chunk_chart(
    chunks: Sequence[Mapping[str, float]], real_time_s: float, title: str, notes: Sequence[str]
) -> Image.Image:
    """Draw a chart of the time that each chunk took.

    Args:
        chunks: seconds by stage, one mapping per chunk.
        real_time_s: playing time of a chunk; columns below this line are faster than real time.
        title: title above the chart.
        notes: lines of text below the chart.

    Raises:
        MediaError: there are no chunks.
    """
    if not chunks:
        raise MediaError("a chart needs at least one chunk")
    stages = list(dict.fromkeys(stage for chunk in chunks for stage in chunk))
    longest = max(real_time_s, *(sum(chunk.values()) for chunk in chunks)) * 1.08
    bottom = MARGIN_PX + 2 * LINE_PX + PLOT_PX
    chart = Image.new("RGB", (WIDTH_PX, bottom + (2 + len(notes)) * LINE_PX + MARGIN_PX), BACKGROUND)
    draw, font = ImageDraw.Draw(chart), ImageFont.load_default(15)
    draw.text((MARGIN_PX, MARGIN_PX), title, CAPTION_INK, font)
    step = (WIDTH_PX - 2 * MARGIN_PX) / len(chunks)
    for column, chunk in enumerate(chunks):
        left, base = MARGIN_PX + column * step, float(bottom)
        for stage in stages:
            height = PLOT_PX * chunk.get(stage, 0.0) / longest
            colour = COLOURS[stages.index(stage) % len(COLOURS)]
            draw.rectangle((left, base - height, left + max(1.0, 0.8 * step), base), colour)
            base -= height
    line = bottom - PLOT_PX * real_time_s / longest
    draw.line((MARGIN_PX, line, WIDTH_PX - MARGIN_PX, line), CAPTION_INK, 1)
    draw.text(
        (WIDTH_PX - MARGIN_PX, line - 3), f"real time, {real_time_s:.2f} s a chunk", CAPTION_INK, font, anchor="rs"
    )
    draw.line((MARGIN_PX, bottom, WIDTH_PX - MARGIN_PX, bottom), LABEL_INK, 1)
    left = float(MARGIN_PX)
    for stage, colour in zip(stages, COLOURS * len(stages), strict=False):
        draw.rectangle((left, bottom + 12, left + 11, bottom + 23), colour)
        draw.text((left + 18, bottom + 10), stage, LABEL_INK, font)
        left += 40 + font.getlength(stage)
    for row, note in enumerate(notes):
        draw.text((MARGIN_PX, bottom + 40 + row * LINE_PX), note, LABEL_INK, font)
    return chart
