"""Contact sheets: one picture with a captioned row per clip, time running to the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from longtake.core.errors import MediaError
from longtake.core.shapes import Pictures
from longtake.media.targets import Target, reason

BACKGROUND = (24, 25, 28)
CAPTION_INK = (226, 227, 230)
LABEL_INK = (140, 144, 152)
GAP_PX = 4
MARGIN_PX = 20
ROW_GAP_PX = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One clip of a sheet; the label (a model, a number, a time) is drawn in grey before the caption."""

    pictures: Pictures
    caption: str
    label: str = ""


def contact_sheet(rows: Sequence[Row], *, columns: int = 8, scale: float = 1.0) -> Image.Image:
    """Draw a dark sheet with one strip per row: `columns` pictures spaced evenly over the clip, both ends included.

    A clip of fewer pictures than columns shows each once. Captions wrap at the width of the sheet.

    Args:
        rows: rows from top to bottom; their pictures may differ in size.
        columns: pictures per row.
        scale: enlargement of the pictures; captions are not scaled.

    Raises:
        MediaError: there are no rows, a row has no pictures, or `columns` or `scale` is not positive.
    """
    if not rows or any(len(row.pictures) == 0 for row in rows):
        raise MediaError("a contact sheet needs at least one row, and at least one picture in every row")
    if columns < 1 or scale <= 0:
        raise MediaError(f"columns and scale must be positive, got {columns} and {scale}")
    strips = [_strip(row.pictures, columns, scale) for row in rows]
    content_px = max(strip.width for strip in strips)
    font = ImageFont.load_default(size=max(13, min(20, content_px // 64)))
    texts = [_wrap(row, font, content_px) for row in rows]
    line_px = round(font.getbbox("Ag")[3] * 1.3)
    heights = [len(text) * line_px + 6 + strip.height for text, strip in zip(texts, strips, strict=True)]
    sheet = Image.new(
        "RGB",
        (content_px + 2 * MARGIN_PX, sum(heights) + ROW_GAP_PX * (len(rows) - 1) + 2 * MARGIN_PX),
        BACKGROUND,
    )
    ink = ImageDraw.Draw(sheet)
    top = MARGIN_PX
    for row, text, strip, height in zip(rows, texts, strips, heights, strict=True):
        for num, line in enumerate(text):
            left, label = MARGIN_PX, f"{row.label}  " if row.label and num == 0 else ""
            ink.text((left, top + num * line_px), label, LABEL_INK, font)
            ink.text((left + font.getlength(label), top + num * line_px), line, CAPTION_INK, font)
        sheet.paste(strip, (MARGIN_PX, top + height - strip.height))
        top += height + ROW_GAP_PX
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG; the file appears whole or not at all.

    Raises:
        MediaError: the path cannot be written, or the disk is full.
    """
    target = Target(path)
    target.prepare()
    try:
        sheet.save(target.growing_path, format="PNG")
    except OSError as error:
        target.discard()
        raise MediaError(f"cannot write {path}: {reason(error)}") from error
    target.commit(target.growing_path)


def _strip(pictures: Pictures, columns: int, scale: float) -> Image.Image:
    """Draw the pictures of one row side by side."""
    shown = torch.linspace(0, len(pictures) - 1, min(columns, len(pictures))).round().long().tolist()
    height, width = (max(1, round(side * scale)) for side in pictures.shape[1:3])
    strip = Image.new("RGB", (len(shown) * (width + GAP_PX) - GAP_PX, height), BACKGROUND)
    enlarged = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    for column, idx in enumerate(shown):
        picture = Image.fromarray(pictures[idx].cpu().numpy())
        if picture.size != (width, height):
            picture = picture.resize((width, height), enlarged)
        strip.paste(picture, (column * (width + GAP_PX), 0))
    return strip


def _wrap(row: Row, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Wrap a caption to a width, leaving room for the label in the first line; longer words are broken."""
    lines, line = [], ""
    room = width_px - (font.getlength(f"{row.label}  ") if row.label else 0)
    for word in row.caption.split():
        rest = word
        while rest:
            joined = f"{line} {rest}".lstrip()
            if font.getlength(joined) <= room:
                line, rest = joined, ""
            elif line:
                lines.append(line)
                line, room = "", width_px
            else:
                fit = max(1, next((n for n in range(len(rest), 0, -1) if font.getlength(rest[:n]) <= room), 1))
                lines.append(rest[:fit])
                rest, room = rest[fit:], width_px
    return [*lines, line] if line or (row.label and not lines) else lines
