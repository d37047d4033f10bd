"""Starting a command without PyTorch's compiler.

diffusers imports it to mark a few functions for it, which takes a third of the time that the
command line needs to start. A command compiles nothing, so it imports the pipeline through here;
programs that embed the package import it as usual and may compile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class CompilerStandIn(ModuleType):
    """Has the compiler's marks, which mark nothing; anything else comes from the compiler."""

    @staticmethod
    def allow_in_graph(function: Callable) -> Callable:
        """Leave a function as it is."""
        return function

    @classmethod
    def disable(cls, function: Callable | None = None, *_: Any, **__: Any) -> Callable:
        """Leave a function as it is, whether given now or decorated later."""
        return function or cls.allow_in_graph

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        step_aside(self)
        import torch._dynamo

        return getattr(torch._dynamo, name)


def step_aside(stand_in: ModuleType) -> None:
    """Let the next import of the compiler find the compiler."""
    if sys.modules.get(COMPILER) is stand_in:
        del sys.modules[COMPILER]


@contextmanager
def compiler_replaced() -> Iterator[None]:
    """While this lasts, importing the compiler costs nothing, unless it was imported before."""
    stand_in = CompilerStandIn(COMPILER)
    sys.modules.setdefault(COMPILER, stand_in)
    try:
        yield
    finally:
        step_aside(stand_in)


def import_pipeline() -> None:
    """Import the pipeline without the compiler.

    Whatever goes wrong is left to the caller's own import, which has the compiler: a version of
    diffusers may insist on it.
    """
    with suppress(Exception), compiler_replaced():
        import voice2face.pipeline  # noqa: F401
