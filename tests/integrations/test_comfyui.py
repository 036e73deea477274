"""ComfyUI's nodes, by the contract that ComfyUI calls them by, against a server."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from longtake.core.errors import InputError
from longtake.serve.app import ServerSettings, create_app
from longtake.weights.live_loras import LoraChoice
from tests.serve.serving import listening
from tests.tiny import PRESET, write_model
from tests.weights.test_lora import LAYERS, kohya, written

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    """The node classes, imported as ComfyUI imports a folder."""
    spec = importlib.util.spec_from_file_location("longtake_nodes", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    return module.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = str(write_model(tmp_path_factory.mktemp("model") / "m"))
    ink = LoraChoice(written(kohya(LAYERS[0]), tmp_path_factory.mktemp("lora") / "ink.safetensors"))
    settings = ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=model, loras={"ink": ink})
    with listening(create_app(settings)) as url:
        yield url


def run(node: type, **given: Any) -> tuple[Any, ...]:
    """Execute a node as ComfyUI does: inputs by name, those that are missing from their defaults."""
    inputs = node.INPUT_TYPES()
    values = {name: options[1]["default"] for name, options in inputs["required"].items() if len(options) > 1}
    unknown = given.keys() - {*inputs["required"], *inputs.get("optional", {})}
    assert not unknown
    result = getattr(node(), node.FUNCTION)(**{**values, **given})
    assert len(result) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return result


def test_a_take_with_a_cue_becomes_frames(nodes: dict[str, Any], url: str) -> None:
    (server,) = run(nodes["LongtakeServer"], url=url)
    frames, fps, script = run(
        nodes["LongtakeTake"], server=server, prompt="a tiger walks\n\n1s: snow falls\n", seconds=2.0, seed=3
    )
    assert frames.shape == (32, PRESET.size.height, PRESET.size.width, 3)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1
    assert fps == 16
    told = json.loads(script)
    assert told["opening"]["prompt"] == "a tiger walks"
    assert [cue["prompt"] for cue in told["cues"]] == ["a tiger walks, snow falls"]


def test_pictures_clips_and_loras_are_taken(nodes: dict[str, Any], url: str) -> None:
    server, picture = (url, ""), torch.rand(1, PRESET.size.height, PRESET.size.width, 3)
    take = nodes["LongtakeTake"]
    plain, _, _ = run(take, server=server, prompt="a tiger", seconds=1.0)
    assert not torch.equal(run(take, server=server, prompt="a tiger", seconds=1.0, loras="ink=0")[0], plain)
    begun, _, _ = run(take, server=server, prompt="a tiger", seconds=1.0, image=picture)
    assert not torch.equal(begun, plain)
    clip = picture.expand(24, -1, -1, -1)
    longer, _, _ = run(take, server=server, prompt="a tiger", seconds=1.0, clip=clip, negative_prompt="snow", steps=1)
    assert len(longer) == 16


def test_progress_is_shown_and_cancel_ends_the_take(
    nodes: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int, tuple[str, Any, int]]] = []

    class Bar:
        def __init__(self, total: int) -> None:
            assert total == 160

        def update_absolute(self, value: int, total: int, preview: tuple[str, Any, int]) -> None:
            shown.append((value, total, preview))

    class Interrupted(Exception):  # noqa: N818  (ComfyUI's is an exception like this)
        pass

    def interrupted() -> None:
        if len(shown) == 2:
            raise Interrupted

    comfy, management, utils = (ModuleType(name) for name in ("comfy", "comfy.model_management", "comfy.utils"))
    management.throw_exception_if_processing_interrupted = interrupted  # type: ignore[attr-defined]
    utils.ProgressBar = Bar  # type: ignore[attr-defined]
    comfy.model_management, comfy.utils = management, utils  # type: ignore[attr-defined]
    for module in (comfy, management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(Interrupted):
        run(nodes["LongtakeTake"], server=(url, ""), prompt="a tiger", seconds=10.0)
    assert [(value, total) for value, total, _ in shown] == [(9, 160), (21, 160)]
    assert shown[0][2][1].size == (PRESET.size.width, PRESET.size.height)


def test_what_is_wrong_is_told_in_a_sentence(nodes: dict[str, Any], url: str) -> None:
    take = nodes["LongtakeTake"]
    with pytest.raises(InputError, match="prompt is empty"):
        run(take, server=(url, ""), prompt=" ")
    with pytest.raises(InputError, match=r'written "ink=0\.6, clay=0", got "ink"'):
        run(take, server=(url, ""), loras="ink")
    with pytest.raises(Exception, match='not opened with a LoRA "oil"'):
        run(take, server=(url, ""), loras="oil=1")
    with pytest.raises(Exception, match="cannot be reached"):
        run(take, server=("http://127.0.0.1:1", ""))
