"""Several processes as one trainer: a shard of the networks each (FSDP2), and a share of a step's micro-batches.

Whatever a micro-batch draws is named by its number, not by who makes it. So any number of ranks computes the same
step, and a run may go on with another number of them than it began with.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from longtake.core.errors import TrainingError
from longtake.nets.dit import DiT

# Besides `forward`, what is called from outside and needs the weights.
FSDP_FORWARD_METHODS = (
    "modulation",
    "project_text",
    "forward_sparse",
    "forward_teacher_forced",
    "forward_cached",
    "clean_pass",
)
FSDP_BLOCK_METHODS = ("read", "memory")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Which of how many processes this is. The defaults: one that trains alone."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and tells of progress."""
        return self.rank == 0

    def micro_batches(self, accumulate: int) -> range:
        """Which micro-batches of a step are this one's.

        Raises:
            TrainingError: they cannot be divided evenly.
        """
        if accumulate % self.size:
            raise TrainingError(
                f"a step has {accumulate} micro-batches, which {self.size} processes cannot share; make `accumulate` "
                f"in the recipe's LoopConfig a multiple of {self.size}, and the batch smaller by as much"
            )
        return range(self.rank, accumulate, self.size)

    def shard(self, dit: DiT, device: torch.device, *, bf16: bool = False) -> DiT:
        """The network on the device: all of it, or this one's shard, block by block.

        Args:
            dit: on the CPU, the same in every process.
            device: where it computes.
            bf16: blocks are gathered in bf16; shards, gradients and updates stay in fp32.
        """
        if self.mesh is None:
            return dit.to(device)
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in dit.blocks:
            fully_shard(block, mesh=self.mesh, mp_policy=policy)
            for name in FSDP_BLOCK_METHODS:
                register_fsdp_forward_method(block, name)
        fully_shard(dit, mesh=self.mesh, mp_policy=policy)
        for name in FSDP_FORWARD_METHODS:
            register_fsdp_forward_method(dit, name)
        return dit

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Figures, averaged over all."""
        if self.mesh is None:
            return dict(values)
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(numbers)
        return dict(zip(values, (numbers / self.size).tolist(), strict=True))

    def any_rank(self, flag: bool) -> bool:
        """Whether any of them says so: all then do the same."""
        return self.mean({"said": float(flag)})["said"] > 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.mesh is not None:
            dist.barrier()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors put together of their shards, on the CPU of the first; nothing in the others."""
        found = {}
        for name, tensor in tensors.items():  # one by one: each is whole for a moment on every device
            full = gather(tensor)
            if self.is_first:
                found[name] = full.cpu()
        return found


ALONE = Ranks()


@contextmanager
def ranks_of(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that torchrun has started, and this one's device; alone, where it has not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        mesh = init_device_mesh(device.type, (size,))
        yield Ranks(rank=dist.get_rank(), size=size, mesh=mesh), device
    finally:
        dist.destroy_process_group()


def exit_without_teardown() -> None:
    """End this process, with success; where torchrun has started it, without taking the interpreter down first.

    A thread of gloo's may still hold the tensors of its last exchange, and aborts the process when it lets go of them
    in an interpreter that is ending (pytorch/pytorch#179291).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def gather(tensor: Tensor) -> Tensor:
    """Put together of its shards; itself when there are none. All ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(whole: Tensor, other: Tensor) -> Tensor:
    """A tensor that every rank has, sharded as `other` is; one that is sharded already stays as it is."""
    if isinstance(whole, DTensor) or not isinstance(other, DTensor):
        return whole.to(other.device)
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def reshard(net: nn.Module) -> None:
    """Let go of weights that were gathered for a pass without a backward one, so that shards can be written."""
    if isinstance(net, FSDPModule):
        net.reshard()
