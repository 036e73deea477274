"""`longtake models`: lists, imports and checks models, and plans their use of device memory."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from longtake.cli.directing import Fp8, parsed_lora
from longtake.core.errors import InputError

if TYPE_CHECKING:
    from longtake.core.shapes import PictureSize

HUBS = {"wan-1.3b": "Wan-AI/Wan2.1-T2V-1.3B", "wan-14b": "Wan-AI/Wan2.1-T2V-14B"}


class Listing(TyperGroup):
    """Command group that runs `list` if no subcommand is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(
    help="List the models, import published ones, and say what they need.", rich_markup_mode=None, cls=Listing
)


class Precision(StrEnum):
    """Data type in which weights are stored."""

    BF16 = "bf16"
    FP32 = "fp32"


@models.command("list")
def list_(
    *,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a model.")] = False,
) -> None:
    """List the models that can be named, with parameters, file sizes and the hashes of their weights."""
    from longtake.weights.presets import list_models

    known = list_models()
    for model in known:
        if json_lines:
            sys.stdout.write(json.dumps(asdict(model), default=str) + "\n")
            continue
        sys.stdout.write(f"{model.name}: {model.description}\n  {model.path}\n")
        for net, sha256 in model.sha256.items():
            count = model.parameters.get(net)
            told = " " * 24 if count is None else f"{count:>13,} parameters"
            sys.stdout.write(f"  {net:<10} {told}   sha256 {sha256}\n")
        for file, size in model.files.items():
            sys.stdout.write(f"  {file:<36} {size / 1e6:>8.2f} MB\n")
    if not known and not json_lines:
        sys.stdout.write("no model ships with this installation; train one: longtake train tiny-world\n")


@models.command()
def show(
    name: Annotated[str, typer.Argument(help="A model's name or folder.")],
    *,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Print what a model is and which words it was trained on: subjects, places, motions, changes."""
    from longtake.weights.manifest import read_vocabulary
    from longtake.weights.presets import model_folder, preset_named

    preset, vocabulary = preset_named(name), read_vocabulary(model_folder(name))
    if json_lines:
        groups = {} if vocabulary is None else vocabulary.groups
        told = {"name": preset.name, "description": preset.description, "size": str(preset.size), "fps": preset.fps}
        sys.stdout.write(json.dumps({**told, "vocabulary": groups}) + "\n")
        return
    sys.stdout.write(f"{preset.name}: {preset.description}\n")
    if vocabulary is None:
        sys.stdout.write("its words are not listed: it was trained on captions of its own\n")
        return
    for group, things in vocabulary.groups.items():
        sys.stdout.write(f"\n{group}\n")
        for ways in things.values():
            first, *others = ways
            sys.stdout.write(f"  {first}{'  (' + ', '.join(others) + ')' if others else ''}\n")


@models.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or folder of weights, a hub's owner/name, or a name: wan-1.3b, wan-14b, causvid, "
            "self-forcing, causal-forcing, causal-forcing-frame (a folder of that name is ./causvid)."
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What it is called from now on.")] = None,
    student: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Which published student it is; without, a bidirectional model (a teacher)."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="An imported model that gives the codec and the text encoder it lacks."),
    ] = None,
    codec: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Wan2.1_VAE.pth, or taew2_1.pth for the light codec.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The UMT5 encoder: folder, or models_t5_umt5-xxl-enc-bf16.pth.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of UMT5, where it lies apart.")] = None,
    precision: Annotated[Precision, typer.Option(help="What the weights are stored in.")] = Precision.BF16,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:SCALE]", help="Merge a LoRA into the network, 1 times if no scale is given; several at will."
        ),
    ] = None,
) -> None:
    """Convert a published model once, so that it can be opened by its name.

    Known are the published Wan folder, its diffusers form, and the students of CausVid, Self-Forcing and
    Causal-Forcing; what a file is, is read from its names and shapes. Nothing in a file is ever run.
    """
    from dataclasses import replace

    import torch

    from longtake.cli.progress import Bars
    from longtake.weights.importing import import_model, parts_of
    from longtake.weights.presets import imported_models, model_folder, packaged_or_imported
    from longtake.weights.wan.presets import STUDENTS, student_preset

    path, loras = Path(source), tuple(parsed_lora(text) for text in lora or ())
    if loras and (there := packaged_or_imported(source)) is not None:
        path = there
        if name is None:
            raise InputError("a model with LoRAs merged into it needs a name of its own: --name NAME")
    if student is None and source in STUDENTS and path == Path(source):
        student = source
    hubs = {known.hub for known in STUDENTS.values()}
    if student is None and source in hubs:
        kinds = ", ".join(kind for kind, known in STUDENTS.items() if known.hub == source)
        raise InputError(f"{source} holds several things; say which student: --student {kinds}")
    if student is not None:
        student_preset(student)  # refuses unknown students before anything is downloaded
        base = base or (None if codec and text else STUDENTS[student].base)
    base_folder = None if base is None else model_folder(base)
    folder = imported_models() / (name or student or source.rstrip("/").rsplit("/", 1)[-1].lower())
    if folder.exists():
        raise InputError(f"{folder} is there already; give another --name, or remove it first")
    if path == Path(source) and (source in HUBS or source in STUDENTS or not path.exists()):
        path = _fetched(source, student)
    found = parts_of(path, student, base_folder)
    given = {"codec": codec, "text": text, "tokenizer": tokenizer}
    found = replace(found, loras=loras, **{part: value for part, value in given.items() if value is not None})
    with Bars() as bars:
        dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float32
        made = import_model(found, folder, bars.update, dtype, lambda line: sys.stderr.write(f"{line}\n"))
    sys.stdout.write(f"{made.name} is in {made}\n")


@models.command()
def plan(
    name: Annotated[str, typer.Argument(help="A model, or wan-1.3b, wan-14b and their students before they are here.")],
    *,
    gpu_memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Of the card; what is free on this machine's, if not given.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of the pictures; the model's own if not given.")
    ] = None,
    fp8: Fp8 = False,
) -> None:
    """Say how a model would be laid out in a GPU's memory, and how much of it each part takes."""
    import torch

    from longtake.cli.directing import parsed_size
    from longtake.weights.plan import GIB, plan_for
    from longtake.weights.plan import plan as planned
    from longtake.weights.presets import preset_named

    preset = preset_named(name)
    wanted: PictureSize | None = None if size is None else parsed_size(size)
    if gpu_memory is None:
        made = plan_for(preset, size=wanted, fp8=fp8)
    elif gpu_memory > 0:
        made = planned(preset, torch.device("cuda"), round(gpu_memory * GIB), wanted, fp8=fp8)
    else:
        raise InputError(f"--gpu-memory is in GiB and above 0, got {gpu_memory:g}")
    sys.stdout.write(f"{made.told()}\n")
    for part, size_bytes in made.parts.items():
        sys.stdout.write(f"  {part:<44} {size_bytes / GIB:>7.2f} GiB\n")
    sys.stdout.write("and for a while, one at a time:\n")
    for phase, size_bytes in made.phases.items():
        sys.stdout.write(f"  {phase:<44} {size_bytes / GIB:>7.2f} GiB\n")


@models.command()
def check(name: Annotated[str, typer.Argument(help="A model's name, or a folder.")]) -> None:
    """Read every byte of a model and compare it with its manifest."""
    from longtake.weights.presets import check_model, model_folder

    folder = model_folder(name)
    check_model(folder)
    sys.stdout.write(f"{folder} is whole\n")


def _fetched(source: str, student: str | None) -> Path:
    """Download a model from its hub repository; returns the path.

    Raises:
        InputError: the name is unknown.
    """
    from longtake.weights.wan.presets import STUDENTS

    repo, patterns = HUBS.get(source, source), ()
    if student is not None and source in (student, STUDENTS[student].hub):
        repo, patterns = STUDENTS[student].hub, (STUDENTS[student].file,)
    if repo.count("/") != 1:
        raise InputError(f'"{source}" is no file or folder here, no owner/name of a hub, and no name that is known')
    from longtake.weights.hub import fetch

    sys.stderr.write(f"fetching {repo}\n")
    return fetch(repo, patterns)
