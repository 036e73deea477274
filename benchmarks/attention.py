"""Which of torch's attention kernels is the fastest where a student spends its time? A line of JSON for each window.

python -m benchmarks.attention [--model wan-1.3b] [--size 832x480] [--window 9] [--window 21] [--device cuda]

The queries of one chunk against the keys and values of a full window, one layer. Kernels that cannot run here are left
out; `chosen` is what torch takes by itself. Times are medians, in milliseconds.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from longtake.core.bf16 import has_bf16_units
from longtake.core.shapes import PictureSize
from longtake.nets.attention import attention
from longtake.weights.presets import preset_named

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
REPEATS = 20


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - began))
    return round(median(times[REPEATS // 4 :]), 3)  # the first ones warm up


@torch.inference_mode()
def compared(model: str, size: PictureSize, window: int, device: torch.device) -> dict[str, float]:
    """Kernel -> milliseconds."""
    preset = preset_named(model)
    height, width = preset.latent_grid(size)
    per_frame = height * width // preset.dit.patch**2
    dtype = torch.bfloat16 if has_bf16_units(device) else torch.float32
    heads = preset.dit.num_heads, preset.dit.head_dim
    q = torch.randn(1, preset.stream.chunk * per_frame, *heads, device=device, dtype=dtype)
    k, v = (torch.randn(1, window * per_frame, *heads, device=device, dtype=dtype) for _ in range(2))
    found = {"chosen": timed(device, lambda: attention(q, k, v))}
    for name, kernel in KERNELS.items():
        with sdpa_kernel(kernel):
            try:
                attention(q, k, v)
            except RuntimeError:  # torch: no such kernel here
                continue
            found[name] = timed(device, lambda: attention(q, k, v))
    return found


def main() -> None:
    """Time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="wan-1.3b")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--window", type=int, action="append")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    for window in options.window or (9, 21):
        size, device = PictureSize.parse(options.size), torch.device(options.device)
        metrics = {"model": options.model, "size": str(size), "window": window, "device": options.device}
        print(json.dumps({**metrics, "ms": compared(options.model, size, window, device)}))


if __name__ == "__main__":
    main()
