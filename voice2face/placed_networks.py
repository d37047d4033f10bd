"""Where networks lie and what runs them: devices, types, compilers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Self

import torch

from voice2face.compilation import compile_networks, leave_uncompiled, record_networks
from voice2face.devices import (
    NETWORK_TYPES,
    choose_device,
    default_dtype,
    memory_errors,
    move,
    own_types,
)
from voice2face.errors import CompileError, DeviceError, SettingError
from voice2face.finishing import Finishing
from voice2face.methods import Method
from voice2face.models import (
    SPEECH_ENCODERS,
    FaceCheck,
    FaceDecoder,
    FaceEncoder,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.offload import Offload
from voice2face.onnx.runtime import run_by_onnxruntime

BACKENDS = ("onnxruntime", "cudagraphs", "inductor")  # of ``compile``

# Speech encoders and the face check stay float32: rounding must not change the evidence or which
# portraits are redrawn. In bfloat16 cuDNN also packs the weights of recurrent layers anew at every
# call.
PRECISE = (FaceCheck, *SPEECH_ENCODERS)


class PlacedNetworks:
    """The networks of a pipeline, moved, lent to a GPU and compiled together.

    Args:
        speech_encoder: recording to Z^s.
        face_encoder: picture to Z^f.
        face_decoder: Z^f to picture.
        method: how face latents are drawn, with its networks.
        checkpoint_sha256: of the checkpoint that holds just these weights; ``None`` where none
            does, as of those that were rounded and then moved to another type.
    """

    def __init__(
        self,
        speech_encoder: SpeechEncoder | SpeakerEncoder,
        face_encoder: FaceEncoder,
        face_decoder: FaceDecoder,
        method: Method,
        checkpoint_sha256: str | None,
    ) -> None:
        self.method = method
        self.speech_encoder = speech_encoder.eval()
        self.face_encoder = face_encoder.eval()
        self.face_decoder = face_decoder.eval()
        self.checkpoint_sha256 = checkpoint_sha256
        self._offload: Offload | None = None
        self._finishing = Finishing()

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self._offload.device if self._offload else self.face_decoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type."""
        return self.face_decoder.dtype

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Move the networks and return the pipeline; this ends offloading and compiling.

        Args:
            device: ``None`` or ``"auto"`` takes CUDA, else MPS, else the CPU; where only a type is
                given, here or as ``dtype``, the networks stay where they are.
            dtype: as of ``from_pretrained``; after ``half``, float16 on every GPU. What rounded the
                weights stays, and they are no longer the checkpoint's in another type: load them
                anew for full precision.

        Raises:
            DeviceError: there is no such device, or networks cannot be of that type.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        chosen = self.device if device is None and dtype is not None else choose_device(device)
        dtype = dtype or self._dtype_on(chosen)
        if dtype not in NETWORK_TYPES:
            known = ", ".join(map(str, NETWORK_TYPES))
            raise DeviceError(f"networks cannot be of type {dtype!r}; give one of {known}")
        self._leave_uncompiled()
        self._note_rounding(dtype)
        try:
            for network in self._networks():
                move(network, chosen, torch.float32 if isinstance(network, PRECISE) else dtype)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"the networks cannot be moved to {chosen}: {error}") from error
        self._offload = None
        return self

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        halved = self.dtype == torch.float16 and device.type != "cpu"
        return torch.float16 if halved else default_dtype(device)

    def half(self) -> Self:
        """Make the networks float16 where they lie, and return the pipeline; ends compiling.

        Meant for GPUs without bfloat16. On a CPU it works, several times slower than float32.
        """
        self._leave_uncompiled()
        self._note_rounding(torch.float16)
        for network in self._networks():
            if not isinstance(network, PRECISE):
                network.half()
        return self

    def _note_rounding(self, dtype: torch.dtype) -> None:
        """Say of weights that were rounded to another type before that no checkpoint holds them."""
        if dtype != self.dtype and self.dtype.itemsize < torch.float32.itemsize:
            self.checkpoint_sha256 = None

    def enable_model_cpu_offload(
        self, device: str | torch.device | None = None, *, dtype: torch.dtype | None = None
    ) -> Self:
        """Keep the networks on the CPU, move each to a small GPU for its turn, return the pipeline.

        Calls are slower, and those of several threads wait for each other. Load with
        ``from_pretrained(device="cpu")`` where the GPU cannot hold all networks at once.

        Args:
            device: ``None`` or ``"auto"`` takes CUDA, else MPS.
            dtype: as of ``from_pretrained``.

        Raises:
            DeviceError: there is no such GPU.
        """
        chosen = choose_device(device)
        if chosen.type == "cpu":
            raise DeviceError("there is no GPU to lend to the networks; they run on the CPU as is")
        self.to("cpu", dtype or self._dtype_on(chosen))
        self._offload = Offload(chosen)
        return self

    def compile(self, backend: str | None = None) -> Self:
        """Have denoisers and decoder run by a compiler or another runtime; return the pipeline.

        Meant for processes that draw many portraits: it takes from a second to minutes, and
        ``python -m benchmarks --compile`` measures whether that pays. Networks keep their types and
        are saved as before. Pictures differ from other ones by a level or two of 255 here and
        there. Move the pipeline, or make it float16, first: that ends it. A pickled copy is not
        compiled, and forked processes draw without what was compiled.

        Args:
            backend: ``"onnxruntime"``, the default on a CPU (extra ``onnx``), holds the weights a
                second time and is ready when this returns.
                ``"cudagraphs"``, the default on CUDA, needs no compiler: a network's kernels are
                recorded when it is first called with 1, 2, 4, 8 … portraits, which takes part of a
                second each, and launched together from then on; threads take turns.
                ``"inductor"``, the default elsewhere, is ``torch.compile``: a network is compiled
                when it is first called, for that batch's size, and once more at the first batch of
                another size, for all sizes. On CUDA what was compiled is recorded, too.

        Raises:
            CompileError: the extra or a compiler for the device is missing, onnxruntime is asked
                for anything but float32 on a CPU, the pipeline is offloaded, or inductor is asked
                for in a process forked from one that used it.
            SettingError: there is no such backend.
        """
        kind = self.device.type
        backend = backend or {"cpu": "onnxruntime", "cuda": "cudagraphs"}.get(kind, "inductor")
        if backend not in BACKENDS:
            raise SettingError(f"backend is {', '.join(BACKENDS)}, not {backend!r}")
        if self._offload:
            raise CompileError(
                "networks that are lent to a GPU cannot be compiled; call to() first"
            )
        if backend == "cudagraphs" and kind != "cuda":
            raise CompileError(f"CUDA graphs are of CUDA, not of {self.device}; choose another")
        denoisers = list(self.method.denoisers().values())
        self._leave_uncompiled()
        if backend in ("inductor", "cudagraphs"):
            if backend == "inductor":
                compile_networks([*denoisers, self.face_decoder], self.device)
            if kind == "cuda":
                checks = [self.method.face_check] if self.method.face_check else []
                record_networks(
                    [
                        self.speech_encoder,
                        *denoisers,
                        *checks,
                        self.face_decoder,
                        *self._loops_and_finishing(),
                    ]
                )
        elif kind == "cpu" and self.dtype == torch.float32:
            run_by_onnxruntime(denoisers, self.face_decoder)
        else:
            raise CompileError(
                f"onnxruntime computes in float32 on a CPU, not in {self.dtype} on {self.device}; "
                'call to("cpu"), or compile("inductor")'
            )
        return self

    def _networks(self) -> list[torch.nn.Module]:
        shared: list[torch.nn.Module] = [
            self.speech_encoder,
            self.face_encoder,
            self.face_decoder,
        ]
        return [*shared, *self.method.networks()]

    def _loops_and_finishing(self) -> list[torch.nn.Module]:
        """What is recorded beside networks, and has no weights of its own."""
        loops = [self.method.denoising_loop(name) for name in self.method.denoisers()]
        return [*loops, self._finishing]

    def _leave_uncompiled(self) -> None:
        leave_uncompiled([*self._networks(), *self._loops_and_finishing()])

    @contextmanager
    def _turn(self, *networks: torch.nn.Module) -> Iterator[None]:
        """Have networks where they run; all that they compute is computed within one."""
        lent = self._offload.turn(*networks) if self._offload else nullcontext()
        with memory_errors(self.device), own_types(self.device), lent:
            yield
