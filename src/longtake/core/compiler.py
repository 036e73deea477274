"""Detection of the C++ compiler that `torch.compile` needs."""

import os
import shutil


def has_compiler() -> bool:
    """Whether a C++ compiler ($CXX or g++, or clang++) is on the path."""
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
