"""Commands start without PyTorch's compiler, and programs still find it."""

from __future__ import annotations

import subprocess
import sys


def printed_by(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_pipeline_is_imported_without_the_compiler_which_works_when_it_is_wanted() -> None:
    code = """
import sys
from voice2face.fast_import import import_pipeline
import_pipeline()
assert "voice2face.pipeline" in sys.modules
print("torch._dynamo" in sys.modules)
import torch
print(torch.compile(lambda number: number + 1, backend="eager")(torch.tensor(1)).item())
print(torch._dynamo is sys.modules["torch._dynamo"])
"""
    assert printed_by(code).split() == ["False", "2", "True"]


def test_whoever_wants_more_than_the_marks_meanwhile_gets_the_compiler() -> None:
    code = """
import sys
from voice2face.fast_import import CompilerStandIn, compiler_replaced
import torch
with compiler_replaced():
    from torch._dynamo import allow_in_graph
    assert torch.compiler.disable(len) is len
    assert torch.compiler.disable()(len) is len
    assert isinstance(sys.modules["torch._dynamo"], CompilerStandIn)
    from torch._dynamo import config
    assert not isinstance(sys.modules["torch._dynamo"], CompilerStandIn)
with compiler_replaced():
    from torch._dynamo import allow_in_graph as real
print(config.__name__, real is not allow_in_graph)
"""
    assert printed_by(code).split() == ["torch._dynamo.config", "True"]


def test_where_the_library_fails_without_the_compiler_it_gets_it() -> None:
    code = """
import sys
from voice2face import fast_import
def refuse(*_, **__):
    raise ImportError("this version needs the compiler")
fast_import.CompilerStandIn.disable = refuse
fast_import.import_pipeline()
from voice2face.pipeline import Voice2FacePipeline
print(Voice2FacePipeline.__name__, "torch._dynamo" in sys.modules)
"""
    assert printed_by(code).split() == ["Voice2FacePipeline", "True"]
