"""Every example runs as it stands, on random weights, and leaves a picture."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import write_model

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_leaves_a_picture(path: Path, model: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    out = tmp_path / "out.png"
    example.main(model, out)
    with Image.open(out) as picture:
        assert picture.width > 100
    assert example.__doc__ is not None
    assert f"python examples/{path.name}" in example.__doc__
