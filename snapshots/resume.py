"""Put a snapshot into a run's folder, so that the run goes on from it; or write one.

python snapshots/resume.py tiny_world_320 RUN             codec as a finished stage, teacher as a state to resume
python snapshots/resume.py tiny_world_320 RUN --save      write the averaged teacher of RUN into the snapshot

Weights of the teacher are its average; the optimizers begin anew, which the learning rate's level survives.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from longtake.weights.checkpoint import read_weights, save_weights

HERE = Path(__file__).parent


def save(snapshot: Path, run: Path) -> None:
    """Write the average of the teacher in `run` and the step that it has reached."""
    state = torch.load(run / "teacher" / "state.pt", map_location="cpu", weights_only=True)
    prefix = "teacher/ema/"
    weights = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    folder = snapshot / "teacher"
    folder.mkdir(exist_ok=True)
    save_weights(folder, "teacher", weights, dtype=torch.float16)
    (folder / "step.json").write_text(json.dumps({"step": int(state["step"])}) + "\n")


def resume(snapshot: Path, run: Path) -> None:
    """Copy the codec, and write a state of the teacher at the step of the snapshot."""
    shutil.copytree(snapshot / "codec", run / "codec", dirs_exist_ok=True)
    if not (snapshot / "teacher").exists():
        return
    step = json.loads((snapshot / "teacher" / "step.json").read_text())["step"]
    weights = {name: tensor.float() for name, tensor in read_weights(snapshot / "teacher", "teacher").items()}
    state = {"step": torch.tensor(step), "teacher/averaged": torch.tensor(step)}
    for kind in ("net", "ema"):
        state |= {f"teacher/{kind}/{name}": tensor for name, tensor in weights.items()}
    (run / "teacher").mkdir(parents=True, exist_ok=True)
    torch.save(state, run / "teacher" / "state.pt")


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
