"""Put a snapshot into a run's folder, so that the run goes on from it; or write one.

python snapshots/resume.py tiny_world_320 RUN             states of the codec and the teacher, to resume
python snapshots/resume.py tiny_world_320 RUN --save      write the averaged networks of RUN into the snapshot

Weights are averages; the optimizers begin anew, which the learning rate's level survives.
"""

import argparse
import json
from pathlib import Path

import torch

from longtake.weights.checkpoint import read_weights, save_weights

HERE = Path(__file__).parent
STAGES = ("codec", "teacher")


def save(snapshot: Path, run: Path) -> None:
    """Write the averages of the stages in `run` that have a state, and the steps that they have reached."""
    for stage in STAGES:
        if not (run / stage / "state.pt").exists():
            continue
        state = torch.load(run / stage / "state.pt", map_location="cpu", weights_only=True)
        weights = {}
        for kind in ("net", "ema"):  # averages in place of the network's own, where there are any
            prefix = f"{stage}/{kind}/"
            weights |= {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
        folder = snapshot / stage
        folder.mkdir(exist_ok=True)
        save_weights(folder, stage, weights, dtype=torch.float16)
        (folder / "step.json").write_text(json.dumps({"step": int(state["step"])}) + "\n")


def resume(snapshot: Path, run: Path) -> None:
    """Write states of the stages at the steps of the snapshot."""
    for stage in STAGES:
        if not (snapshot / stage).exists():
            continue
        step = json.loads((snapshot / stage / "step.json").read_text())["step"]
        weights = {name: tensor.float() for name, tensor in read_weights(snapshot / stage, stage).items()}
        state = {"step": torch.tensor(step), f"{stage}/averaged": torch.tensor(step)}
        for kind in ("net", "ema"):
            state |= {f"{stage}/{kind}/{name}": tensor for name, tensor in weights.items()}
        (run / stage).mkdir(parents=True, exist_ok=True)
        torch.save(state, run / stage / "state.pt")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("snapshot")
    parser.add_argument("run", type=Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    (save if options.save else resume)(HERE / options.snapshot, options.run)


if __name__ == "__main__":
    main()
