"""`python -m benchmarks.importing`: peak memory while a checkpoint of Wan 1.3B's size is imported.

A `.pt` as CausVid publishes it (fp32, under "generator"), the Wan VAE at full size and a shallow UMT5 encoder of full
width are written to a temporary folder (7 GB) and imported by the command in a process of its own. The weights are
zeros: only their sizes matter here.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from longtake.core.configs import WanVAEConfig
from longtake.nets.dit import DiT
from longtake.nets.wan_vae import WanVAE
from longtake.weights.wan.presets import WANS
from tests.published import original_text, write_tokenizer


def zeros_like(net: nn.Module) -> dict[str, torch.Tensor]:
    """A state of the size of a network on the meta device."""
    return {name: torch.zeros(tensor.shape) for name, tensor in net.state_dict().items()}


def published(folder: Path) -> Path:
    """The three files; gives the student's."""
    with torch.device("meta"):
        dit, vae = DiT(WANS["wan-1.3b"].dit), WanVAE(WanVAEConfig())
        config = UMT5Config(vocab_size=64, d_model=4096, d_kv=64, d_ff=256, num_layers=1, num_heads=64,
                            feed_forward_proj="gated-gelu")  # fmt: skip
        text = UMT5EncoderModel(config)
    torch.save({"generator": zeros_like(dit)}, folder / "model.pt")
    torch.save(zeros_like(vae), folder / "Wan2.1_VAE.pth")
    torch.save(original_text(zeros_like(text)), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    write_tokenizer(folder / "tokenizer")
    return folder / "model.pt"


def measured() -> dict[str, object]:
    """Import it and look at what the process needed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        student = published(folder)
        command = [
            *(sys.executable, "-m", "longtake", "models", "import", str(student), "--student", "causvid"),
            *("--codec", str(folder / "Wan2.1_VAE.pth"), "--text", str(folder / "models_t5_umt5-xxl-enc-bf16.pth")),
            *("--tokenizer", str(folder / "tokenizer"), "--name", "measured"),
        ]
        begun = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "XDG_DATA_HOME": temporary}, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        made = sum(path.stat().st_size for path in folder.glob("longtake/**/*.safetensors"))
        return {
            "file_gib": round(student.stat().st_size / 1024**3, 2),
            "model_gib": round(made / 1024**3, 2),
            "peak_rss_gib": round(peak / 1024**3, 2),
            "seconds": round(seconds, 1),
        }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(measured()))
