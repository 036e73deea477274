"""Training on several ranks, each with a shard of the networks (FSDP2) and a share of a step's micro-batches.

Random draws depend on the index of the micro-batch, not on the rank. So any number of ranks computes the same step,
and a run may resume with a different number of ranks.
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

# Methods besides `forward` that are called from outside and need the gathered weights.
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
    """Rank of this process and number of ranks; by default, a single process."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and reports progress."""
        return self.rank == 0

    def micro_batches(self, accumulate: int) -> range:
        """Indices of this rank's micro-batches of a step.

        Raises:
            TrainingError: `accumulate` cannot be divided evenly among the ranks.
        """
        if accumulate % self.size:
            raise TrainingError(
                f"a step has {accumulate} micro-batches, which {self.size} processes cannot share; make `accumulate` "
                f"in the recipe's LoopConfig a multiple of {self.size}, and the batch smaller by as much"
            )
        return range(self.rank, accumulate, self.size)

    def shard(self, dit: DiT, device: torch.device, *, bf16: bool = False) -> DiT:
        """Place a network on the device: whole for a single process, else this rank's shard, block by block.

        Args:
            dit: network on the CPU, the same on every rank.
            device: device that it computes on.
            bf16: whether blocks are gathered in bf16; shards, gradients and updates stay in fp32.
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
        """Values averaged over all ranks (all-reduce)."""
        if self.mesh is None:
            return dict(values)
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(numbers)
        return dict(zip(values, (numbers / self.size).tolist(), strict=True))

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; the result is the same on all."""
        return self.mean({"said": float(flag)})["said"] > 0

    def wait(self) -> None:
        """Wait until all ranks have reached this call (barrier)."""
        if self.mesh is not None:
            dist.barrier()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors gathered from their shards, on the CPU of the first rank; empty on the others."""
        found = {}
        for name, tensor in tensors.items():  # one by one, as each is briefly whole on every device
            full = gather(tensor)
            if self.is_first:
                found[name] = full.cpu()
        return found


ALONE = Ranks()


@contextmanager
def ranks_of(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Yield the ranks started by torchrun and this rank's device; without torchrun, a single process on `device`."""
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
    """End this process with success if torchrun started it, without shutting the interpreter down; else do nothing.

    A gloo thread may still hold the tensors of its last exchange, and aborts the process when it releases them during
    the interpreter's shutdown (pytorch/pytorch#179291).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def gather(tensor: Tensor) -> Tensor:
    """Tensor gathered from its shards, or itself if it is not sharded; a collective call of all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(whole: Tensor, other: Tensor) -> Tensor:
    """Tensor that every rank holds, sharded like `other`; one that is sharded already is returned unchanged."""
    if isinstance(whole, DTensor) or not isinstance(other, DTensor):
        return whole.to(other.device)
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def reshard(net: nn.Module) -> None:
    """Release weights gathered for a forward pass that has no backward pass, so that shards can be written."""
    if isinstance(net, FSDPModule):
        net.reshard()
