"""Contact sheets of rendered clips, one row per clip."""

from collections.abc import Sequence

from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from longtake.worlds.captions import captions_for
from longtake.worlds.render import Look, render
from longtake.worlds.scenes import Scene

_TEXT_ROWS = 12


def contact_sheet(
    scenes: Sequence[Scene],
    *,
    columns: int = 6,
    look: Look = "full",
    caption_seed: int = 0,
    scale: int = 1,
) -> Image.Image:
    """Draw one row per clip, with frames spaced evenly over time and the clip's captions below.

    Args:
        scenes: scenes of equal size, one per row; their lengths may differ.
        columns: frames shown per clip.
        look: as in `render`.
        caption_seed: seed of the captions.
        scale: whole-number enlargement of the frames.
    """
    rows = []
    for scene in scenes:
        texts = captions_for(scene, caption_seed)
        lines = [f"0: {texts[0]}"]
        lines += [f"{idx}: {text}" for idx, text in enumerate(texts) if idx and text != texts[idx - 1]]
        rows.append((render([scene], look)[0], lines))
    return sheet_of(rows, columns=columns, scale=scale)


def sheet_of(
    rows: Sequence[tuple[UInt8[Tensor, "f h w c"], Sequence[str]]],
    *,
    columns: int = 6,
    scale: int = 1,
) -> Image.Image:
    """Draw a sheet of clips, each with its lines of text below."""
    height, width = (side * scale for side in rows[0][0].shape[1:3])
    tall = sum(height + _TEXT_ROWS * len(lines) + 4 for _, lines in rows)
    sheet = Image.new("RGB", (columns * (width + 2), tall), (18, 18, 20))
    pen = ImageDraw.Draw(sheet)
    y = 0
    for frames, lines in rows:
        for column in range(columns):
            idx = round(column * (len(frames) - 1) / max(1, columns - 1))
            picture = Image.fromarray(frames[idx].cpu().numpy())
            if scale > 1:
                picture = picture.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (width + 2), y))
        y += height
        for line in lines:
            pen.text((3, y), line, fill=(225, 225, 225))
            y += _TEXT_ROWS
        y += 4
    return sheet
