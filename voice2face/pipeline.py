"""Voice2FacePipeline: a recording goes in, portraits come out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from voice2face import checkpoints
from voice2face.audio import load_audio
from voice2face.compilation import BACKENDS, compile_networks, leave_uncompiled
from voice2face.components import files_of, load_component
from voice2face.devices import choose_device, default_dtype, memory_errors
from voice2face.errors import (
    ArchitectureError,
    AudioError,
    CompileError,
    DeviceError,
    SettingError,
)
from voice2face.listening import Speech, Voice, find_in, hear, read_speech
from voice2face.methods import METHODS, Sample
from voice2face.models import (
    SPEECH_ENCODERS,
    FaceDecoder,
    FaceEncoder,
    FaceRetriever,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.models.bottom_face import bottom_face
from voice2face.offload import Offload
from voice2face.onnx_runtime import run_by_onnxruntime
from voice2face.portrait import Portrait, Portraits, Provenance, RetrievedFace
from voice2face.prefetch import read_ahead
from voice2face.settings import (
    DEFAULT_PRESET,
    DISTILLED,
    MOST_IMAGES,
    Preset,
    Settings,
    check_whole,
    choose_numbers,
    choose_seeds,
)
from voice2face.watermark import embed

if TYPE_CHECKING:
    from typing import Self

# of every method; its own come beside them
COMPONENTS: dict[str, type | tuple[type, ...]] = {
    "speech_encoder": SPEECH_ENCODERS,
    "face_encoder": FaceEncoder,
    "face_decoder": FaceDecoder,
    "scheduler": DDIMScheduler,
}
MOST_LATENTS_AT_ONCE = 64

StepCallback = Callable[["Voice2FacePipeline", int, int, dict[str, Tensor]], dict[str, Tensor]]


class CallSettings(TypedDict, total=False):
    """What a call may set besides the recording and the kind of its result."""

    num_images: int
    seed: int | None
    generator: torch.Generator | None
    preset: str
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_every: int | None
    sampler: str | None
    eta: float
    watermark: bool
    callback_on_step_end: StepCallback | None


class MapSettings(TypedDict, total=False):
    """What ``map`` may set besides the recordings and what becomes of errors."""

    batch_size: int
    seed: int | None
    preset: str
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_every: int | None
    sampler: str | None
    eta: float
    watermark: bool
    progress: bool


class Voice2FacePipeline:
    """Makes portraits of plausible speakers from recordings.

    One object may be used by many threads at once; moving or compiling it while a call runs is
    the one thing to leave. It can be pickled, and used in processes that were forked or spawned.

    Args:
        speech_encoder: recording to Z^s.
        face_encoder: picture to Z^f; for priors and retrievers, not used when sampling.
        face_decoder: Z^f to picture.
        scheduler: the noise schedule; read, never changed.
        output_size: side of the pictures in pixels; the decoder's are resized where it differs.
        name: what results call this checkpoint.
        card: text of the model card, saved with the checkpoint.
        checkpoint_sha256: of the ``model_index.json`` that the networks came with.
        components_of_method: those of one method by name, ``face_prior`` and ``denoiser`` for
            SCLDM and ``few_step_update`` where it was distilled, ``retriever``,
            ``bottom_denoiser`` and ``upper_denoiser`` for Fine-portraitist.

    Attributes:
        method: how face latents are drawn, see ``voice2face.methods``.
    """

    def __init__(
        self,
        speech_encoder: SpeechEncoder | SpeakerEncoder,
        face_encoder: FaceEncoder,
        face_decoder: FaceDecoder,
        scheduler: DDIMScheduler,
        *,
        output_size: int = 256,
        name: str = "unnamed",
        card: str | None = None,
        checkpoint_sha256: str | None = None,
        **components_of_method: Any,
    ) -> None:
        given = components_of_method.keys()
        fitting = [
            method
            for method in METHODS.values()
            if method.components.keys() <= given
            and given <= method.components.keys() | method.optional.keys()
        ]
        if not fitting:
            raise TypeError(f"no method has the components {', '.join(components_of_method)}")
        self.method = fitting[0](**components_of_method)
        self.speech_encoder = speech_encoder.eval()
        self.face_encoder = face_encoder.eval()
        self.face_decoder = face_decoder.eval()
        self.scheduler = scheduler
        self.output_size = output_size
        self.name = name
        self.checkpoint_sha256 = checkpoint_sha256
        self.card = card or f"# {name}\n\nA checkpoint of voice2face, without a model card yet.\n"
        self._offload: Offload | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            name_or_path: nothing for the checkpoint in the package (no network is touched), a
                name that ``voice2face models`` lists, a folder, or ``owner/name`` on the Hugging
                Face Hub.
            revision: branch, tag or commit of a Hub id.
            cache_dir: where downloads are kept.
            local_files_only: never open a connection.
            token: for private Hub repositories.
            device: ``None`` or ``"auto"`` takes CUDA, else MPS, else the CPU.
            dtype: of the networks; bfloat16 on CUDA and float32 elsewhere by default.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, or of another architecture.
            DeviceError: there is no such device.
        """
        chosen = choose_device(device)
        folder = checkpoints.resolve(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        index = checkpoints.read_model_index(folder)
        files = index["files"]
        kinds = components_of(index["method"], {name.partition("/")[0] for name in files})
        for name, kind in kinds.items():
            for file in files_of(kind):
                if f"{name}/{file}" not in files:
                    raise ArchitectureError(f"{folder}: {name}/{file} is missing")
        card = folder / checkpoints.CARD
        pipeline = cls(
            **{
                name: load_component(kind, checkpoints.component_folder(folder, name, files))
                for name, kind in kinds.items()
            },
            output_size=index["output_size"],
            name=index["name"],
            card=card.read_text(encoding="utf-8") if card.is_file() else None,
            checkpoint_sha256=checkpoints.sha256_of(folder / checkpoints.MODEL_INDEX),
        )
        return pipeline.to(chosen, dtype)

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self._offload.device if self._offload else self.face_decoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The networks' floating-point type."""
        return self.face_decoder.dtype

    @property
    def retriever(self) -> FaceRetriever:
        """The faces that Fine-portraitist draws from; assign another to draw from its faces.

        Raises:
            SettingError: the checkpoint's method retrieves no faces, or the new retriever's
                embeddings or latents are of other sizes.
        """
        found: FaceRetriever | None = self.method.parts().get("retriever")
        if found is None:
            raise SettingError(f"{self.name} ({self.method.name}) retrieves no faces")
        return found

    @retriever.setter
    def retriever(self, retriever: FaceRetriever) -> None:
        old, new = self.retriever.entries, retriever.entries
        for name in ("speech", "faces"):
            shapes = [tuple(getattr(entries, name).shape[1:]) for entries in (old, new)]
            if shapes[0] != shapes[1]:
                raise SettingError(
                    f"the retriever's {name} are of shape {shapes[1]}, this checkpoint's of "
                    f"{shapes[0]}; build it with this checkpoint's encoders"
                )
        self.method = type(self.method)(**self.method.parts() | {"retriever": retriever})

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the networks and return the pipeline; this ends offloading and compiling.

        Args:
            device: ``None`` or ``"auto"`` takes CUDA, else MPS, else the CPU.
            dtype: bfloat16 on CUDA and float32 elsewhere by default.

        Raises:
            DeviceError: there is no such device.
        """
        chosen = choose_device(device)
        dtype = dtype or default_dtype(chosen)
        leave_uncompiled(self._networks())
        try:
            for network in self._networks():
                torch.nn.Module.to(network, chosen, dtype)  # ModelMixin.to warns of nothing
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"the networks cannot be moved to {chosen}: {error}") from error
        self._offload = None
        return self

    def half(self) -> Self:
        """Make the networks float16 where they lie, and return the pipeline; ends compiling.

        Meant for GPUs without bfloat16. On a CPU it works, several times slower than float32.
        """
        leave_uncompiled(self._networks())
        for network in self._networks():
            network.half()
        return self

    def enable_model_cpu_offload(
        self, device: str | torch.device | None = None, *, dtype: torch.dtype | None = None
    ) -> Self:
        """Keep the networks on the CPU, move each to a small GPU for its turn, return the pipeline.

        Calls are slower, and those of several threads wait for each other. Load with
        ``from_pretrained(device="cpu")`` where the GPU cannot hold all networks at once.

        Args:
            device: ``None`` or ``"auto"`` takes CUDA, else MPS.
            dtype: bfloat16 for CUDA and float32 elsewhere by default.

        Raises:
            DeviceError: there is no such GPU.
        """
        chosen = choose_device(device)
        if chosen.type == "cpu":
            raise DeviceError("there is no GPU to lend to the networks; they run on the CPU as is")
        self.to("cpu", dtype or default_dtype(chosen))
        self._offload = Offload(chosen)
        return self

    def compile(self, backend: str | None = None) -> Self:
        """Have denoisers and decoder run by a compiler or another runtime; return the pipeline.

        Meant for processes that draw many portraits: it takes from seconds to minutes, and
        ``python -m benchmarks --compile`` measures whether that pays. Networks keep their types and
        are saved as before. Pictures differ from other ones by a level or two of 255 here and
        there. Move the pipeline, or make it float16, first: that ends it. A pickled copy is not
        compiled, and forked processes draw without what was compiled.

        Args:
            backend: ``"onnxruntime"``, the default on a CPU (extra ``onnx``), holds the weights a
                second time and is ready when this returns.
                ``"inductor"``, the default elsewhere, is ``torch.compile``: a network is compiled
                when it is first called, for that batch's size, and once more at the first batch of
                another size, for all sizes. On CUDA the kernels of a step are launched together, as
                a CUDA graph, and the threads of a process take turns at them.

        Raises:
            CompileError: the extra or a compiler for the device is missing, onnxruntime is asked
                for anything but float32 on a CPU, the pipeline is offloaded, or inductor is asked
                for in a process forked from one that used it.
            SettingError: there is no such backend.
        """
        backend = backend or ("onnxruntime" if self.device.type == "cpu" else "inductor")
        if backend not in BACKENDS:
            raise SettingError(f"backend is {' or '.join(BACKENDS)}, not {backend!r}")
        if self._offload:
            raise CompileError(
                "networks that are lent to a GPU cannot be compiled; call to() first"
            )
        denoisers = list(self.method.denoisers().values())
        leave_uncompiled(self._networks())
        if backend == "inductor":
            compile_networks([*denoisers, self.face_decoder], self.device)
        elif self.device.type == "cpu" and self.dtype == torch.float32:
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

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COMPONENTS} | self.method.parts()

    def _turn(self, *networks: torch.nn.Module) -> AbstractContextManager[None]:
        return self._offload.turn(*networks) if self._offload else nullcontext()

    def save_pretrained(self, folder: str | os.PathLike[str], *, safe: bool = True) -> Path:
        """Write the checkpoint as a folder that ``from_pretrained`` reads.

        It appears as a whole: a crash leaves what was there before, or the new checkpoint.

        Args:
            folder: a new folder, an empty one, or an older checkpoint to replace.
            safe: weights are written as safetensors; there is no other way, false is refused.

        Raises:
            SettingError: ``safe`` is false.
            OutputError: the folder cannot be written, or holds other files.
        """
        if not safe:
            raise SettingError("weights are written as safetensors only; leave safe=True")
        return checkpoints.save_checkpoint(
            folder,
            self._parts(),
            method=self.method.name,
            name=self.name,
            output_size=self.output_size,
            card=self.card,
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | bool | None = None
    ) -> str:
        """Upload the checkpoint and its model card to the Hugging Face Hub.

        Args:
            repo_id: ``owner/name``; made where it does not exist.
            private: whether a new repository is private.
            token: of an account that may write there; the one logged in by default.

        Returns:
            The repository's address.

        Raises:
            CheckpointNotFoundError: the Hub was not reached, or refused.
        """
        with tempfile.TemporaryDirectory() as space:
            folder = self.save_pretrained(Path(space) / "checkpoint")
            return checkpoints.upload(folder, repo_id, private=private, token=token)

    @overload
    def __call__(
        self,
        audio: Any,
        sample_rate: int | None = ...,
        *,
        output_type: Literal["pil"] = ...,
        **settings: Unpack[CallSettings],
    ) -> Portraits: ...
    @overload
    def __call__(
        self,
        audio: Any,
        sample_rate: int | None = ...,
        *,
        output_type: Literal["np"],
        **settings: Unpack[CallSettings],
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self,
        audio: Any,
        sample_rate: int | None = ...,
        *,
        output_type: Literal["pt", "latent"],
        **settings: Unpack[CallSettings],
    ) -> Tensor: ...
    def __call__(
        self,
        audio: Any,
        sample_rate: int | None = None,
        *,
        num_images: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        preset: str = DEFAULT_PRESET,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_every: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        watermark: bool = True,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        callback_on_step_end: StepCallback | None = None,
    ) -> Portraits | NDArray[np.float32] | Tensor:
        """Make portraits for one recording.

        Args:
            audio: a path, bytes, file object, array or tensor with its rate, a
                ``(waveform, sample_rate)`` pair, or an ``{"array", "sampling_rate"}`` dictionary.
            sample_rate: samples a second, for arrays and tensors.
            num_images: pictures to make, 1 to 1024.
            seed: of the first picture; the k-th has ``seed + k`` and is the same picture alone.
                Drawn at random where neither seed nor generator is given.
            generator: draws the first seed, in diffusers' manner.
            preset: ``"fast"``, ``"balanced"`` or ``"best"``: sampler, steps and guidance, as
                ``voice2face.settings.PRESETS`` lists them; the next four replace one of them.
                Where the checkpoint was not distilled, or for other numbers than it has learnt,
                ``"fast"`` is ``"balanced"``.
            num_inference_steps: the sampler's steps, 1 to 1000.
            guidance_scale: 1 follows the voice as trained, more exaggerates it; 0 to 20.
            guidance_every: 1 looks with and without the voice in every step; 2 in every other
                one, where the steps between reuse the difference and are faster.
            sampler: ``"unipc"`` (UniPC of second order), ``"dpm++"`` (DPM-Solver++(2M)),
                ``"ddim"``, or ``"distilled"``, whose steps and guidance are learnt and cannot be
                chosen.
            eta: of DDIM: 0 for deterministic steps, up to 1 for the variance of DDPM.
            watermark: add the invisible mark of being synthetic; see ``voice2face.watermark``.
            output_type: ``"pil"`` for ``Portraits``; ``"np"`` for ``(images, size, size, 3)``
                float32 in [0, 1]; ``"pt"`` for ``(images, 3, size, size)`` in [0, 1];
                ``"latent"`` for Z^f.
            callback_on_step_end: called with pipeline, step, timestep and ``{"latents": Z^t}``;
                returns a dictionary whose ``"latents"`` go on. With a method of two stages the
                step counts on through both.

        Returns:
            ``Portraits``, or the array or tensor that ``output_type`` names.

        Raises:
            AudioError: the recording cannot be used.
            SettingError: an argument is out of range.
            DeviceError: the device ran out of memory.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise SettingError(f"output_type is pil, np, pt or latent, not {output_type!r}")
        check_whole("num_images", num_images, MOST_IMAGES)
        chosen = (preset, num_inference_steps, guidance_scale, guidance_every, sampler)
        settings = self._settings(*chosen, eta, watermark)
        seeds = choose_seeds(num_images, seed, generator)
        voices = [self.listen(audio, sample_rate)] * num_images
        with memory_errors(self.device):
            drawn = self._sample(voices, seeds, settings, callback_on_step_end)
            if output_type == "latent":
                return torch.cat([sample.latents for sample in drawn])
            images = self._pictures(drawn, settings)
        if output_type == "pil":
            return self._portraits(images, voices, seeds, settings, drawn)
        array = images.astype(np.float32) / 255.0
        return array if output_type == "np" else torch.from_numpy(array).permute(0, 3, 1, 2)

    @overload
    def map(
        self,
        recordings: Iterable[Any],
        *,
        on_error: Literal["raise"] = ...,
        **settings: Unpack[MapSettings],
    ) -> Iterator[Portrait]: ...
    @overload
    def map(
        self,
        recordings: Iterable[Any],
        *,
        on_error: Literal["return"],
        **settings: Unpack[MapSettings],
    ) -> Iterator[Portrait | AudioError]: ...
    def map(
        self,
        recordings: Iterable[Any],
        *,
        batch_size: int = 16,
        seed: int | None = None,
        preset: str = DEFAULT_PRESET,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_every: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        watermark: bool = True,
        progress: bool = True,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Portrait | AudioError]:
        """Make one portrait for each recording, in order, a batch at a time.

        The next batch is read and decoded while one is denoised; no more than two are held.

        Args:
            recordings: anything ``__call__`` takes as ``audio``; read as the portraits are taken.
            batch_size: recordings denoised together, 1 to 1024.
            seed: of every portrait; drawn at random for each where it is not given.
            preset: as in ``__call__``.
            num_inference_steps: as in ``__call__``.
            guidance_scale: as in ``__call__``.
            guidance_every: as in ``__call__``.
            sampler: as in ``__call__``.
            eta: as in ``__call__``.
            watermark: as in ``__call__``.
            progress: show a progress bar.
            on_error: ``"raise"`` ends at the first recording that cannot be used; ``"return"``
                yields its ``AudioError`` in the portrait's place and goes on.

        Raises:
            AudioError: a recording cannot be used; the portraits before its batch were yielded.
            SettingError: an argument is out of range.
        """
        from tqdm.auto import tqdm

        check_whole("batch_size", batch_size, MOST_IMAGES)
        if on_error not in ("raise", "return"):
            raise SettingError(f"on_error is raise or return, not {on_error!r}")
        chosen = (preset, num_inference_steps, guidance_scale, guidance_every, sampler)
        settings = self._settings(*chosen, eta, watermark)
        total = len(recordings) if isinstance(recordings, Sized) else None
        with tqdm(total=total, unit="portrait", disable=not progress) as bar:
            for batch in read_ahead(read_speech, recordings, batch_size):
                errors = [speech for speech in batch if isinstance(speech, AudioError)]
                if errors and on_error == "raise":
                    raise errors[0]
                voices = [self._hear(one) for one in batch if not isinstance(one, AudioError)]
                seeds = [choose_seeds(1, seed, None)[0] for _ in voices]
                drawn = iter(self._draw(voices, seeds, settings) if voices else ())
                for speech in batch:
                    yield speech if isinstance(speech, AudioError) else next(drawn)
                    bar.update()

    def listen(self, audio: Any, sample_rate: int | None = None) -> Voice:
        """Embed a recording: load it, find speech, average over its windows.

        Args:
            audio: as in ``__call__``.
            sample_rate: as in ``__call__``.

        Raises:
            AudioError: the recording cannot be used.
        """
        return self._hear(find_in(load_audio(audio, sample_rate)))

    def _hear(self, speech: Speech) -> Voice:
        encoder = self.speech_encoder
        with memory_errors(self.device), self._turn(encoder):
            return hear(speech, encoder)

    def draw(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        *,
        preset: str = DEFAULT_PRESET,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_every: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        watermark: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> Portraits:
        """Make one portrait for each voice that ``listen`` returned.

        Args:
            voices: embeddings and their evidence.
            seeds: one for each voice.
            preset: as in ``__call__``.
            num_inference_steps: as in ``__call__``.
            guidance_scale: as in ``__call__``.
            guidance_every: as in ``__call__``.
            sampler: as in ``__call__``.
            eta: as in ``__call__``.
            watermark: as in ``__call__``.
            callback_on_step_end: as in ``__call__``.

        Raises:
            SettingError: an argument is out of range, or there is not one seed for each voice.
            DeviceError: the device ran out of memory.
        """
        if len(voices) != len(seeds) or not voices:
            raise SettingError(f"{len(voices)} voices and {len(seeds)} seeds; give one for each")
        checked = [choose_seeds(1, seed, None)[0] for seed in seeds]
        chosen = (preset, num_inference_steps, guidance_scale, guidance_every, sampler)
        settings = self._settings(*chosen, eta, watermark)
        return self._draw(voices, checked, settings, callback_on_step_end)

    def _draw(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        settings: Settings,
        callback_on_step_end: StepCallback | None = None,
    ) -> Portraits:
        with memory_errors(self.device):
            drawn = self._sample(voices, seeds, settings, callback_on_step_end)
            images = self._pictures(drawn, settings)
        return self._portraits(images, voices, seeds, settings, drawn)

    def numbers(
        self,
        preset: str = DEFAULT_PRESET,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_every: int | None = None,
        sampler: str | None = None,
    ) -> Preset:
        """What a call with these arguments goes by: sampler, steps and guidance.

        Args:
            preset: as in ``__call__``.
            num_inference_steps: as in ``__call__``.
            guidance_scale: as in ``__call__``.
            guidance_every: as in ``__call__``.
            sampler: as in ``__call__``.

        Raises:
            SettingError: there is no such preset, or the distilled denoiser cannot do what is
                asked.
        """
        update = self.method.distilled
        return choose_numbers(
            preset,
            None if update is None else Preset(DISTILLED, update.steps, update.guidance_scale, 1),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_every=guidance_every,
            sampler=sampler,
        )

    def _settings(
        self,
        preset: str,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        guidance_every: int | None,
        sampler: str | None,
        eta: float,
        watermark: bool,
    ) -> Settings:
        numbers = self.numbers(
            preset,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_every=guidance_every,
            sampler=sampler,
        )
        settings = Settings(
            numbers.num_inference_steps,
            numbers.guidance_scale,
            eta,
            self.name,
            watermark,
            numbers.sampler,
            numbers.guidance_every,
        )
        settings.check(self.scheduler.config.num_train_timesteps)
        return settings

    def _sample(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        settings: Settings,
        callback_on_step_end: StepCallback | None,
    ) -> list[Sample]:
        def callback(step: int, timestep: int, latents: Tensor) -> Tensor:
            assert callback_on_step_end is not None
            answer = callback_on_step_end(self, step, timestep, {"latents": latents})
            return (answer or {}).get("latents", latents)

        method = self.method
        with self._turn(*method.networks()):
            speech = torch.stack([voice.embedding.to(method.device) for voice in voices])
            return [
                method.sample(
                    speech[start : start + MOST_LATENTS_AT_ONCE],
                    [
                        torch.Generator().manual_seed(seed)
                        for seed in seeds[start : start + MOST_LATENTS_AT_ONCE]
                    ],
                    self.scheduler,
                    settings,
                    callback if callback_on_step_end is not None else None,
                )
                for start in range(0, len(seeds), MOST_LATENTS_AT_ONCE)
            ]

    def _pictures(self, drawn: Sequence[Sample], settings: Settings) -> NDArray[np.uint8]:
        latents = torch.cat([sample.latents for sample in drawn])
        return self.decode(latents, watermark=settings.watermark)

    @torch.no_grad()
    def encode(self, faces: Sequence[Image.Image], *, bottom_only: bool = False) -> Tensor:
        """Make latents of pictures, for retrievers and priors.

        Args:
            faces: aligned as portraits are, of any size.
            bottom_only: of what lies below the eyes alone; see ``voice2face.models.bottom_face``.

        Returns:
            Z^f, ``(faces, channels, size, size)``, float32.

        Raises:
            SettingError: there are no faces.
        """
        if not faces:
            raise SettingError("there are no faces to encode")
        side = self.face_encoder.config.image_size
        pixels = [
            np.asarray(face.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
            for face in faces
        ]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        if bottom_only:
            images = bottom_face(images)
        with memory_errors(self.device), self._turn(self.face_encoder):
            encoder = self.face_encoder
            parts = [encoder(part.to(encoder.device, encoder.dtype)) for part in images.split(16)]
        return torch.cat(parts).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, *, watermark: bool = True) -> NDArray[np.uint8]:
        """Make pictures of latents, finished ones or those a step's callback is shown.

        Args:
            latents: Z^f or Z^t, ``(images, channels, size, size)``.
            watermark: as in ``__call__``.

        Returns:
            ``(images, output_size, output_size, 3)`` uint8.
        """
        with self._turn(self.face_decoder):
            decoded = [self.face_decoder(part) for part in latents.to(self.dtype).split(16)]
        scaled = ((torch.cat(decoded).float().clamp(-1, 1) + 1) * 127.5).round().byte()
        pictures: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).cpu().numpy()
        if pictures.shape[1] != self.output_size:
            size = (self.output_size, self.output_size)
            pictures = np.stack(
                [
                    np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
                    for picture in pictures
                ]
            )
        return embed(pictures) if watermark else pictures

    def _portraits(
        self,
        images: NDArray[np.uint8],
        voices: Sequence[Voice],
        seeds: Sequence[int],
        settings: Settings,
        drawn: Sequence[Sample],
    ) -> Portraits:
        found = [faces for sample in drawn for faces in neighbours(sample)] or [()] * len(voices)
        return Portraits(
            tuple(
                Portrait(
                    Image.fromarray(image),
                    seed,
                    replace(voice.evidence, retrieved=faces),
                    settings,
                    Provenance(voice.audio_sha256, self.checkpoint_sha256),
                )
                for image, voice, seed, faces in zip(images, voices, seeds, found, strict=True)
            )
        )


def components_of(method: str, folders: Container[str] = ()) -> dict[str, type | tuple[type, ...]]:
    """Class of each component of a method's checkpoint, by the name of its folder.

    Args:
        method: its name.
        folders: that the checkpoint has; of optional components, only these are named.
    """
    of_method = METHODS[method]
    optional = {name: kind for name, kind in of_method.optional.items() if name in folders}
    return COMPONENTS | dict(of_method.components) | optional


def neighbours(sample: Sample) -> list[tuple[RetrievedFace, ...]]:
    """The faces retrieved for each latent; an empty list where the method retrieves none."""
    if sample.retrieved is None:
        return []
    return [
        tuple(map(RetrievedFace, names, scores))
        for names, scores in zip(
            sample.retrieved.ids, sample.retrieved.scores.tolist(), strict=True
        )
    ]
