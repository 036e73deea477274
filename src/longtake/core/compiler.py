"""Whether `torch.compile` can work here."""

import os
import shutil


def has_compiler() -> bool:
    """Is there a C++ compiler on the path?"""
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
