"""A very long take: does it drift, does it grow? One line of JSON a minute, and a sheet with a picture of each.

python -m benchmarks.soak [--model M] [--minutes 30] [--prompt P] [--out out/soak.png]

Luminance, saturation and sharpness are means over one frame a second: luma in 0..255, the distance of the largest from
the smallest colour in 0..255, and the mean size of the luma's Laplacian. Memory is that of the process; the spool is on
disk and grows by the latents of the take.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import longtake
from longtake.core.shapes import Pictures
from longtake.media.sheets import Row, contact_sheet, save_sheet


def looks(pictures: Pictures) -> dict[str, float]:
    """What a minute looks like."""
    colours = pictures.float()
    luma = colours @ torch.tensor([0.2126, 0.7152, 0.0722])
    around = (luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]) / 4
    return {
        "luminance": round(float(luma.mean()), 2),
        "saturation": round(float((colours.amax(-1) - colours.amin(-1)).mean()), 2),
        "sharpness": round(float((luma[:, 1:-1, 1:-1] - around).abs().mean()), 3),
    }


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def soak(model: str, minutes: int, prompt: str, out: Path) -> None:
    """Stream, measure, draw."""
    shown = []
    with longtake.open(model) as studio:
        take = studio.take(prompt)
        for minute in range(1, minutes + 1):
            started = time.perf_counter()
            sampled = [chunk.frames[:1].clone() for chunk in take.stream(seconds=60)]
            wall_s = time.perf_counter() - started
            pictures = torch.cat(sampled)
            shown.append(pictures[-1:])
            figures = {"minute": minute, "fps": round(60 * studio.fps / wall_s, 1), "rss_mib": round(resident_mib(), 1)}
            print(json.dumps({**figures, **looks(pictures)}), flush=True)
    save_sheet(
        contact_sheet([Row(pictures=torch.cat(shown), caption=f"{prompt}: a picture a minute")], columns=10), out
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Stream for a long time.")
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--prompt", default="a tiger walks through a forest")
    parser.add_argument("--out", type=Path, default=Path("out/soak.png"))
    options = parser.parse_args()
    soak(options.model, options.minutes, options.prompt, options.out)


if __name__ == "__main__":
    main()
