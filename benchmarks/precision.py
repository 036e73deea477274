"""Full-size Wan with random weights: how far are bf16 and FP8 from fp32? One line of JSON.

python -m benchmarks.precision [--model wan-1.3b] [--size 832x480] [--device cuda] [--chunks 2]

The velocity of one chunk after `chunks - 1` remembered ones, from the same noise and text, in all precisions. Weights
are drawn once, in bf16, so that all networks begin with the same numbers. Norms and modulations are random like the
rest: with a head of zeros any two networks agree.
"""

import argparse
import json
from copy import deepcopy

import torch

from longtake.core.noise import noise_for
from longtake.core.shapes import PictureSize
from longtake.flow.schedule import sigmas_of
from longtake.nets.dit import DiT
from longtake.nets.float8 import has_float8, in_float8
from longtake.nets.kv_cache import KVCache
from longtake.sample.denoise import Schedule
from longtake.weights.presets import RandomStates, preset_named


@torch.inference_mode()
def velocities(dit: DiT, size: PictureSize, model: str, chunks: int) -> list[torch.Tensor]:
    """Of the last chunk, at each of the student's noise levels."""
    preset = preset_named(model)
    height, width = preset.latent_grid(size)
    shape = (1, preset.dit.in_dim, preset.stream.chunk, height, width)
    states = RandomStates(preset.dit.text_len, preset.dit.text_dim)("a red boat on the sea")
    text = dit.project_text(states.to(dit.device))
    schedule, cache = Schedule.at(dit, sigmas_of(preset.student)), KVCache()
    for idx in range(chunks - 1):
        clean = noise_for(0, ("clean", idx), shape).to(dit.device)
        cache = cache.append(
            dit.clean_pass(clean, schedule.clean, text, dit.rotated_context(cache, shape)), preset.stream
        )
    past = dit.rotated_context(cache, shape)
    x = noise_for(0, ("noisy",), shape).to(dit.device)
    return [dit.forward_cached(x, level, text, past).float().cpu() for level in schedule.modulations]


def main() -> None:
    """Compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="wan-1.3b")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--chunks", type=int, default=2)
    options = parser.parse_args()
    size = PictureSize.parse(options.size)
    with torch.device("meta"):
        dit = DiT(preset_named(options.model).dit).to(torch.bfloat16)
    dit.to_empty(device=options.device)
    rng = torch.Generator(options.device).manual_seed(0)
    for name, p in dit.named_parameters():
        gain = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        p.data.normal_(std=0.02, generator=rng).add_(gain)
    made = {"bf16": velocities(dit, size, options.model, options.chunks)}
    full = velocities(deepcopy(dit).float(), size, options.model, options.chunks)
    if has_float8(dit.device):
        in_float8(dit)
        made["fp8"] = velocities(dit, size, options.model, options.chunks)
    errors = {
        name: [round(float((a - b).norm() / b.norm()), 5) for a, b in zip(v, full, strict=True)]
        for name, v in made.items()
    }
    metrics = {"model": options.model, "size": str(size), "device": options.device, "chunks": options.chunks}
    print(json.dumps({**metrics, "relative_error": errors, "std": round(float(full[0].std()), 4)}))


if __name__ == "__main__":
    main()
