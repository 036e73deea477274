"""A LoRA that PEFT has written makes of our network what PEFT makes of it."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from longtake.nets.dit import DiT
from longtake.weights.lora import merged_tensors, read_lora
from longtake.weights.tensor_files import ForeignTensor
from tests.tiny import DIT, random_dit

pytestmark = pytest.mark.golden


def velocity(net: nn.Module) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    x, text = (
        torch.randn(1, DIT.in_dim, 3, 4, 6, generator=rng),
        torch.randn(1, 1, DIT.text_len, DIT.text_dim, generator=rng),
    )
    with torch.no_grad():
        return net(x, torch.full((1, 3), 0.7), text)


@pytest.mark.parametrize("stabilised", [False, True])
def test_merged_as_by_peft(stabilised: bool, tmp_path: Path) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=10,
        use_rslora=stabilised,
        init_lora_weights=False,
        target_modules=["q", "k", "v", "o", "ffn.0", "ffn.2"],
    )
    theirs = get_peft_model(random_dit(dtype=torch.float32), config)
    theirs.save_pretrained(str(tmp_path))
    own = random_dit(dtype=torch.float32).state_dict()
    lora = read_lora(tmp_path, {name: tuple(t.shape) for name, t in own.items()})
    assert lora.unmatched == ()
    assert len(lora.low_rank) == 10 * DIT.num_layers
    foreign = {name: ForeignTensor(shape=tuple(t.shape), read=lambda t=t: t) for name, t in own.items()}
    ours = DiT(DIT)
    ours.load_state_dict({name: t.read() for name, t in merged_tensors(foreign, [(lora, 1.0)]).items()})
    before, wanted = velocity(random_dit(dtype=torch.float32)), velocity(theirs)
    assert float((wanted - before).abs().max()) > 0.1
    torch.testing.assert_close(velocity(ours), wanted, rtol=1e-5, atol=1e-5)
