"""`longtake models`: lists, imports and checks models, and plans their use of device memory."""

import json
import re
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
    from longtake.core.configs import SamplingConfig, StreamConfig
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
            help="A file or folder of weights, a hub's owner/name or web address, or a name that longtake models "
            "catalogue lists, such as self-forcing (a folder of that name is ./self-forcing)."
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What it is called from now on.")] = None,
    student: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Which published student it is; without, a bidirectional model (a teacher)."),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="It is a bidirectional model, though its names look like a student's.")
    ] = False,
    sigmas: Annotated[
        str | None,
        typer.Option(metavar="S,S,...", help="Noise levels of a student without a name: 1,0.9375,0.83,0.625."),
    ] = None,
    first_sigmas: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Noise levels of its first chunk, where it has others.")
    ] = None,
    chunk: Annotated[int | None, typer.Option(metavar="N", help="Its latent frames per chunk; 3 if not given.")] = None,
    window: Annotated[
        int | None,
        typer.Option(metavar="N", help="Latent frames that it sees, chunk and sink included; 21 if not given."),
    ] = None,
    sink: Annotated[
        int | None, typer.Option(metavar="N", help="Latent frames at the start that it always sees.")
    ] = None,
    from_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="The entry of a .pt file that holds the network: generator_ema.")
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

    Known are the published Wan folder, its diffusers form, GGUF and 8-bit files, and the students that longtake models
    catalogue lists; what a file is, is read from its names and shapes. Nothing in a file is ever run.
    """
    from dataclasses import replace

    import torch

    from longtake.cli.progress import Bars
    from longtake.weights.importing import import_model, parts_of
    from longtake.weights.presets import imported_models, model_folder, packaged_or_imported
    from longtake.weights.wan.presets import STUDENTS, student_preset

    if name is not None:
        _check_name(name)
    source, file = _without_address(source)
    path, loras = Path(source), tuple(parsed_lora(text) for text in lora or ())
    if loras and (there := packaged_or_imported(source)) is not None:
        path = there
        if name is None:
            raise InputError("a model with LoRAs merged into it needs a name of its own: --name NAME")
    if student is None and source in STUDENTS and path == Path(source):
        student = source
    hubs = {known.hub for known in STUDENTS.values()}
    sampling, stream = _own_sampling(student, sigmas, first_sigmas, chunk, window, sink)
    if student is None and sampling is None and source in hubs:
        kinds = ", ".join(kind for kind, known in STUDENTS.items() if known.hub == source)
        raise InputError(f"{source} holds several things; say which student: --student {kinds}")
    if student is not None:
        student_preset(student)  # refuses unknown students before anything is downloaded
        base = base or (None if codec and text else STUDENTS[student].base)
    base_folder = None if base is None else model_folder(base)
    folder = imported_models() / (name or student or _name_from(source))
    if folder.exists():
        raise InputError(f"{folder} is there already; give another --name, or remove it first")
    if path == Path(source) and (source in HUBS or source in STUDENTS or not path.exists()):
        path = _fetched(source, student, file)
    found = parts_of(path, student, base_folder)
    given = {"codec": codec, "text": text, "tokenizer": tokenizer}
    found = replace(found, sampling=sampling, stream=stream, key=from_key, is_teacher=teacher)
    found = replace(
        found, loras=(*found.loras, *loras), **{part: value for part, value in given.items() if value is not None}
    )
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


def _check_name(name: str) -> None:
    """Raise an InputError if a model cannot be called so: its name is that of a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f'a model\'s name has letters, digits, ".", "-" and "_", and begins with one of the first; got "{name}"'
        )


def _name_from(source: str) -> str:
    """Name of a model after the file, folder or repository that it comes from."""
    stem = re.sub(r"[^a-z0-9._-]+", "-", source.rstrip("/").rsplit("/", 1)[-1].lower())
    return stem.strip("-.") or "imported"


def _without_address(source: str) -> tuple[str, str | None]:
    """Take a hub's web address apart: owner/name, and the path of a file if the address has one."""
    match = re.fullmatch(
        r"https?://(?:www\.)?huggingface\.co/([^/]+/[^/?#]+)(?:/(?:blob|resolve)/[^/]+/([^?#]+))?/?(?:[?#].*)?", source
    )
    return (source, None) if match is None else (match[1], match[2])


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError:
        raise InputError(f'noise levels are numbers with commas between them, got "{text}"') from None


def _own_sampling(
    student: str | None,
    sigmas: str | None,
    first_sigmas: str | None,
    chunk: int | None,
    window: int | None,
    sink: int | None,
) -> "tuple[SamplingConfig | None, StreamConfig | None]":
    """Sampling and stream of a student without a name, or those in which it differs from the named one.

    Raises:
        InputError: they are given for a teacher, or noise levels for a named student.
        ConfigError: they contradict each other.
    """
    from longtake.core.configs import SamplingConfig, StreamConfig
    from longtake.weights.wan.presets import STUDENTS, THREES

    if student is not None and (sigmas or first_sigmas):
        raise InputError(f"{student} has its noise levels; leave out --student for a student of your own")
    sampling = None
    if sigmas is not None:
        levels = _levels(sigmas)
        first = () if first_sigmas is None else _levels(first_sigmas)
        sampling = SamplingConfig(num_steps=len(levels), shift=5.0, sigmas=levels, first_sigmas=first)
    given = {name: value for name, value in (("chunk", chunk), ("window", window), ("sink", sink)) if value is not None}
    if not given:
        return sampling, None if sampling is None else THREES
    if student is None and sampling is None:
        raise InputError("chunk, window and sink are those of a causal student: say which, --student, or give --sigmas")
    own = THREES if student is None or student not in STUDENTS else STUDENTS[student].stream
    return sampling, StreamConfig(**{"chunk": own.chunk, "window": own.window, "sink": own.sink, **given})


@models.command()
def catalogue(
    *,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a model.")] = False,
) -> None:
    """List the published models that can be imported by name: sampling, memory they need, licence, source."""
    import torch

    from longtake.weights.plan import GIB
    from longtake.weights.plan import plan as planned
    from longtake.weights.presets import preset_named
    from longtake.weights.wan.presets import STUDENTS, WANS

    for name in (*WANS, *STUDENTS):
        preset, known = preset_named(name), STUDENTS.get(name)
        parts = planned(preset, torch.device("cuda"), 10**12, teacher=known is None).parts
        told = {
            "name": name,
            "base": None if known is None else known.base,
            "steps": preset.teacher.num_steps if known is None else preset.student.num_steps,
            "first_steps": len(preset.student.first_sigmas) or None,
            "chunk": preset.stream.chunk,
            "window": preset.stream.window,
            "sink": preset.stream.sink,
            "gib": round(sum(parts.values()) / GIB, 1),
            "licence": "Apache-2.0" if known is None else known.licence,
            "source": HUBS.get(name) if known is None else known.hub,
        }
        if json_lines:
            sys.stdout.write(json.dumps(told) + "\n")
            continue
        kind = "a teacher" if known is None else f"a student of {known.base}"
        first = f", {told['first_steps']} for the first chunk" if told["first_steps"] else ""
        memory = "" if known is None else f"; chunk {told['chunk']}, window {told['window']}, sink {told['sink']}"
        sys.stdout.write(
            f"{name}: {kind}\n  {told['steps']} step{'s' * (told['steps'] != 1)}{first}{memory}\n"
            f"  {told['gib']} GiB on a GPU at {preset.size}; {told['licence']}; {told['source']}\n"
        )


def _fetched(source: str, student: str | None, file: str | None) -> Path:
    """Download a model, or one file of a repository, from its hub repository; returns the path.

    Raises:
        InputError: the name is unknown.
    """
    from longtake.weights.wan.presets import STUDENTS

    repo, patterns = HUBS.get(source, source), () if file is None else (file,)
    if student is not None and source in (student, STUDENTS[student].hub) and file is None:
        known = STUDENTS[student]
        repo, patterns = known.hub, tuple(name for name in (known.file, known.lora) if name)
    if repo.count("/") != 1:
        raise InputError(f'"{source}" is no file or folder here, no owner/name of a hub, and no name that is known')
    from longtake.weights.hub import fetch

    sys.stderr.write(f"fetching {repo}\n")
    folder = fetch(repo, patterns)
    return folder if file is None else folder / file
