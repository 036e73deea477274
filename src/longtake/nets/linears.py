"""Exchange of linear layers: for corrections that are learned, and for layers of fewer bits."""

from collections.abc import Callable

from torch import nn


def replace_linears(net: nn.Module, make: Callable[[nn.Linear], nn.Module | None]) -> None:
    """Replace every `nn.Linear` below a module by what `make` gives for it, one after the other; None keeps it.

    Subclasses of `nn.Linear` stay: they have been replaced before.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and (other := make(child)) is not None:
                setattr(parent, name, other)
