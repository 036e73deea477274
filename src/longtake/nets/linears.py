"""Replacement of linear layers, by low-rank adapters or quantised layers."""

from collections.abc import Callable

from torch import nn


def replace_linears(net: nn.Module, make: Callable[[nn.Linear], nn.Module | None]) -> None:
    """Replace each `nn.Linear` inside a module by the result of `make`, one at a time; None keeps the layer.

    Subclasses of `nn.Linear` are kept, since they are themselves replacements.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and (other := make(child)) is not None:
                setattr(parent, name, other)
