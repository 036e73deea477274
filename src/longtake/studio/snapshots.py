"""Snapshots: the memories after finished chunks, kept within a byte budget for immediate rewinds.

Beyond the device's budget, memories are moved from a GPU to the host. Beyond the host's budget, memories are evicted;
a rewind to such a chunk recomputes the memories since the last one kept. Eviction keeps memories dense near the newest
chunk and increasingly sparse before it, so that the chunks to recompute stay in proportion to the distance of a rewind.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from longtake.sample.memory import Memory
from longtake.studio.timeline import Node, back_from

HOST = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Nearest memory at or before a chunk, and the chunks after it whose memory is missing, in order."""

    memory: Memory
    missing: tuple[Node, ...]


class HostCopies:
    """Copies of tensors on the host; a tensor that several memories share is copied once, while a memory uses it."""

    def __init__(self) -> None:
        self._copies: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> weak reference to its copy

    def __call__(self, tensor: Tensor) -> Tensor:
        known = self._copies.get(tensor)
        copy = None if known is None else known()
        if copy is None:
            copy = torch.empty_like(tensor, device=HOST).copy_(tensor)
            self._copies[tensor] = ref(copy)
        return copy


class Snapshots:
    """Memories by chunk; the memory of a chunk that no take reaches any more is released automatically."""

    def __init__(self, device: torch.device, *, host_bytes: int, device_bytes: int = 0) -> None:
        self.device = device
        self.host_bytes = host_bytes
        self.device_bytes = device_bytes
        self._kept: WeakKeyDictionary[Node, Memory] = WeakKeyDictionary()
        self._copies = HostCopies()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, node: Node) -> bool:
        return node in self._kept

    def keep(self, node: Node, memory: Memory) -> None:
        """Store the memory after `node`, evicting others if the byte budget is exceeded."""
        self._kept[node] = memory
        if self.device != HOST:
            while self.num_bytes(self.device) > self.device_bytes and (cold := self._thinnest(node, self.device)):
                if _bytes([self._kept[cold]], self.device) > self.host_bytes:
                    del self._kept[cold]  # it exceeds the host's whole budget, so copying it would be in vain
                else:
                    self._kept[cold] = self._kept[cold].moved(self._copies)
        while self.num_bytes(HOST) > self.host_bytes and (cold := self._thinnest(node, HOST)):
            del self._kept[cold]

    def num_missing(self, node: Node | None) -> int:
        """Number of chunks from the nearest memory up to `node` whose memory is missing."""
        return len(self.way_to(node)[1])

    def find(self, node: Node | None) -> Found:
        """Find the memory after `node`, or the nearest one before it, and move it to the device."""
        memory, missing = self.way_to(node)
        return Found(memory=memory.to(self.device), missing=missing)

    def way_to(self, node: Node | None) -> tuple[Memory, tuple[Node, ...]]:
        """Nearest memory at or before `node`, on whichever device it is, and the chunks after it."""
        missing: list[Node] = []
        for earlier in back_from(node):
            if (memory := self._kept.get(earlier)) is not None:
                return memory, tuple(missing[::-1])
            missing.append(earlier)
        return Memory(), tuple(missing[::-1])

    def num_bytes(self, device: torch.device) -> int:
        """Number of bytes held on a device, counting shared tensors once."""
        return _bytes(self._kept.values(), device)

    def _thinnest(self, newest: Node, device: torch.device) -> Node | None:
        """Node whose memory to evict: that of the smallest ratio of remaining gap to distance from the newest chunk."""
        nodes = [n for n, m in self._kept.items() if n is not newest and _is_on(m, device)]
        nodes.sort(key=lambda n: n.idx)
        if not nodes:
            return None
        gaps = {
            node: (after.idx - (before.idx if before else -1)) / (1 + abs(newest.idx - node.idx))
            for before, node, after in zip([None, *nodes], nodes, [*nodes[1:], newest], strict=False)
        }
        return min(nodes, key=gaps.__getitem__)


def _is_on(memory: Memory, device: torch.device) -> bool:
    return any(tensor.device == device for tensor in memory.tensors().values())


def _bytes(memories: Iterable[Memory], device: torch.device) -> int:
    held = {key: t for memory in memories for key, t in memory.tensors().items() if t.device == device}
    return sum(t.untyped_storage().nbytes() for t in held.values())
