"""Put small faults into a copy of the package, one at a time, and see that the tests notice each.

python tests/mutants/run.py [--jobs 2] [--share K/N] [WORD ...]

With words: only faults in files whose name has one of them. With --share: every N-th of these, from number K on.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "longtake"
LARGE = {PACKAGE / "weights" / "data", PACKAGE / "worlds" / "assets"}  # linked, not copied

Fault = dict[str, Any]


def copied(folder: Path) -> None:
    """A copy of the package in `folder`."""

    def left_out(path: str, names: list[str]) -> set[str]:
        return {name for name in names if name == "__pycache__" or Path(path, name) in LARGE}

    shutil.copytree(PACKAGE, folder / "longtake", ignore=left_out)
    for data in LARGE:
        (folder / "longtake" / data.relative_to(PACKAGE)).symlink_to(data)


def noticed(fault: Fault) -> tuple[bool, float, str]:
    """Whether tests fail with the fault in the package, the seconds that took, and the end of what they said."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copied(folder)
        path = folder / "longtake" / fault["file"]
        text = path.read_text()
        if text.count(fault["before"]) != 1:
            raise SystemExit(f"{fault['file']} has {text.count(fault['before'])} times: {fault['before']}")
        path.write_text(text.replace(fault["before"], fault["after"]))
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", *fault["tests"]],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):  # 1: tests failed; others: they did not run
        raise SystemExit(f"{fault['file']}: the tests could not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1, time.perf_counter() - begun, done.stdout[-300:]


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run all faults, or those whose file has one of the words in its name; exit code 1 where one survives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--share", default="0/1", metavar="K/N")
    options = parser.parse_args()
    faults: list[Fault] = tomllib.loads(Path(__file__).with_name("faults.toml").read_text())["fault"]
    chosen = [f for f in faults if not options.words or any(word in f["file"] for word in options.words)]
    first, step = (int(number) for number in options.share.split("/"))
    chosen = chosen[first::step]
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for fault, (found, seconds, output) in zip(chosen, pool.map(noticed, chosen), strict=True):
            survivors += not found
            change = " ".join(fault["after"].split())[:70]
            say(f"{'noticed ' if found else 'SURVIVES'} {seconds:5.1f} s  {fault['file']}: {change}")
            if not found:
                say(output)
    say(f"{len(chosen) - survivors} of {len(chosen)} noticed")
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
