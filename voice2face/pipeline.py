"""Voice2FacePipeline: a recording goes in, portraits come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from voice2face.argument_checks import check_callable, check_whole, is_several
from voice2face.call_settings import (
    CallSettings,
    DrawSettings,
    MapSettings,
    check_draw_settings,
)
from voice2face.devices import at_once
from voice2face.errors import AudioError, SettingError
from voice2face.evidence import RetrievedFace
from voice2face.listening import Speech, Voice, hear, is_direction, speech_of
from voice2face.mapped_recordings import check_several, read_speech, unshared
from voice2face.portrait import Portrait, Portraits
from voice2face.prefetch import in_batches, read_ahead
from voice2face.pretrained_networks import PretrainedNetworks
from voice2face.saved_portraits import Provenance
from voice2face.seeds import choose_seeds, seeds_in_turn
from voice2face.settings import (
    DEFAULT_PRESET,
    DEFAULT_VARIETY,
    MOST_IMAGES,
    Preset,
    Settings,
    choose_settings,
)
from voice2face.step_callback import StepCallback, latent_callback


class Voice2FacePipeline(PretrainedNetworks):
    """Makes portraits of plausible speakers from recordings.

    ``from_pretrained`` loads one. One object may be used by many threads at once; moving or
    compiling it while a call runs is the one thing to leave. It can be pickled, and used in
    processes that were forked or spawned.
    """

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
        variety: float = DEFAULT_VARIETY,
        watermark: bool = True,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        callback_on_step_end: StepCallback | None = None,
        on_redraw_step: Callable[[], None] | None = None,
    ) -> Portraits | NDArray[np.float32] | Tensor:
        """Make portraits for one recording.

        Args:
            audio: a path, bytes, file object, array or tensor with its rate, a
                ``(waveform, sample_rate)`` pair in either order, or an
                ``{"array", "sampling_rate"}`` dictionary.
            sample_rate: samples a second, for arrays and tensors; files say their own.
            num_images: pictures to make, 1 to 1024.
            seed: of the first picture; the k-th has ``seed + k`` and is the same picture, alone or
                in a batch, up to a level of 255 in single pixels. Drawn at random where neither
                seed nor generator is given. Where the checkpoint's face check sees no face, or a
                badly drawn one, the seed goes on to draw another.
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
            variety: 0 to 1. With 1, faces and light vary as much as the checkpoint learnt; with
                less, faces are more typical and light is more even, and more of them are well made
                (the truncation of Brock et al. 2019, arXiv 1809.11096).
            watermark: add the invisible mark of being synthetic; see ``voice2face.watermark``.
            output_type: ``"pil"`` for ``Portraits``; ``"np"`` for ``(images, size, size, 3)``
                float32 in [0, 1]; ``"pt"`` for ``(images, 3, size, size)`` in [0, 1];
                ``"latent"`` for Z^f.
            callback_on_step_end: called with pipeline, step, timestep and ``{"latents": Z^t}``;
                returns a dictionary whose ``"latents"`` go on, or ``None`` to leave them as they
                are. With a method of two stages the step counts on through both; of more than 256
                pictures (CUDA: 1,024) it starts anew for each so many. It is not called for what
                is drawn again. What it raises ends the drawing.
            on_redraw_step: called after each step of what is drawn again; what it raises ends the
                drawing, too.

        Returns:
            ``Portraits``, or the array or tensor that ``output_type`` names.

        Raises:
            AudioError: the recording cannot be used.
            SettingError: an argument is out of range.
            DeviceError: the device ran out of memory.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise SettingError(f"output_type is pil, np, pt or latent, not {output_type!r}")
        num_images = check_whole("num_images", num_images, MOST_IMAGES)
        settings = self.settings(
            preset=preset,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_every=guidance_every,
            sampler=sampler,
            eta=eta,
            variety=variety,
            watermark=watermark,
        )
        seeds = choose_seeds(num_images, seed, generator)
        voices = [self.listen(audio, sample_rate)] * num_images
        if output_type == "pil":
            return self._draw(voices, seeds, settings, callback_on_step_end, on_redraw_step)
        latents, _ = self._sample(voices, seeds, settings, callback_on_step_end, on_redraw_step)
        if output_type == "latent":
            return latents
        array = self.decode(latents, watermark=watermark).astype(np.float32) / 255.0
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
        seed: int | Iterable[int] | None = None,
        progress: bool = True,
        on_error: Literal["raise", "return"] = "raise",
        **settings: Unpack[DrawSettings],
    ) -> Iterator[Portrait | AudioError]:
        """Make one portrait for each recording, in order, a batch at a time.

        The next recordings are read and decoded while others are listened to or denoised; no more
        than four are held at a time.

        Args:
            recordings: a list, or another iterable, of anything ``__call__`` takes as ``audio``;
                taken as the portraits are. Arrays and tensors are copied and file objects are read
                when they are taken: the iterable may use its buffer again, or close its file.
            batch_size: recordings denoised together, 1 to 1024.
            seed: of the first recording; the one after *k* others has ``seed + k``. Or a seed for
                each, in order. Drawn at random for each where it is not given.
            progress: show a progress bar.
            on_error: ``"raise"`` ends at the first recording that cannot be used; ``"return"``
                yields its ``AudioError``, without a traceback, in the portrait's place and goes on.
            settings: ``preset``, ``num_inference_steps``, ``guidance_scale``, ``guidance_every``,
                ``sampler``, ``eta``, ``variety`` and ``watermark``, as in ``__call__``.

        Raises:
            AudioError: a recording cannot be used; the portraits before it were yielded, as they
                are before what ``recordings`` itself raises.
            SettingError: an argument is out of range; raised at once, before any is taken. Or
                there are fewer seeds than recordings.
        """
        check_draw_settings("map", settings)
        batch_size = check_whole("batch_size", batch_size, MOST_IMAGES)
        check_several(recordings)
        if on_error not in ("raise", "return"):
            raise SettingError(f"on_error is raise or return, not {on_error!r}")
        known = max(1, len(recordings)) if isinstance(recordings, Sized) else 1
        seeds = seeds_in_turn(seed, known)
        drawing = self.settings(**settings)
        return self._stream(
            recordings,
            batch_size,
            seeds,
            drawing,
            progress=progress,
            past_errors=on_error == "return",
        )

    def _stream(
        self,
        recordings: Iterable[Any],
        batch_size: int,
        seeds: Iterator[int],
        settings: Settings,
        *,
        progress: bool,
        past_errors: bool,
    ) -> Iterator[Portrait | AudioError]:
        from tqdm.auto import tqdm

        total = len(recordings) if isinstance(recordings, Sized) else None
        with tqdm(total=total, unit="portrait", disable=not progress) as bar:
            speech = read_ahead(read_speech, (unshared(one) for one in recordings))
            heard = self._hear_all(speech, past_errors=past_errors)
            for batch in in_batches(heard, batch_size):
                numbers = list(islice(seeds, len(batch)))
                if len(numbers) < len(batch):
                    raise SettingError("there are fewer seeds than recordings; give one for each")
                voices, own = [], []
                for one, number in zip(batch, numbers, strict=True):
                    if isinstance(one, Voice):
                        voices.append(one)
                        own.append(number)
                drawn = iter(self._draw(voices, own, settings) if voices else ())
                for one in batch:
                    yield next(drawn) if isinstance(one, Voice) else one
                    bar.update()

    def _hear_all(
        self, recordings: Iterable[Speech | AudioError], *, past_errors: bool
    ) -> Iterator[Voice | AudioError]:
        for speech in recordings:
            if isinstance(speech, Speech):
                yield self.listen(speech)
            elif past_errors:
                yield copy(speech)  # its traceback and its cause hold the samples
            else:
                raise speech

    def listen(
        self,
        audio: Any,
        sample_rate: int | None = None,
        *,
        on_windows: Callable[[int, int], None] | None = None,
    ) -> Voice:
        """Embed a recording: load it, find speech, average over its windows.

        Args:
            audio: as in ``__call__``; or what ``voice2face.listening.speech_of`` returned, which
                reads a recording and finds its speech without a pipeline.
            sample_rate: as in ``__call__``.
            on_windows: told how many windows were heard, and how many there are, as they are.

        Raises:
            AudioError: the recording cannot be used.
            DeviceError: the device ran out of memory.
        """
        speech = speech_of(audio, sample_rate)
        encoder = self.speech_encoder
        with self._turn(encoder):
            return hear(speech, encoder, on_windows)

    def draw(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        *,
        callback_on_step_end: StepCallback | None = None,
        on_redraw_step: Callable[[], None] | None = None,
        **settings: Unpack[DrawSettings],
    ) -> Portraits:
        """Make one portrait for each voice that ``listen`` returned.

        Args:
            voices: embeddings and their evidence.
            seeds: one for each voice.
            callback_on_step_end: as in ``__call__``.
            on_redraw_step: as there.
            settings: ``preset``, ``num_inference_steps``, ``guidance_scale``, ``guidance_every``,
                ``sampler``, ``eta``, ``variety`` and ``watermark``, as in ``__call__``.

        Raises:
            SettingError: an argument is out of range, there is not one seed for each voice, or an
                embedding is NaN, infinite or zero, which is looked for on the CPU alone, as a GPU
                would be waited for.
            DeviceError: the device ran out of memory.
        """
        check_draw_settings("draw", settings)
        if isinstance(voices, Voice) or not isinstance(voices, Sized) or not is_several(voices):
            raise SettingError("draw takes a list of voices; give [voice]")
        if not isinstance(seeds, Sized) or not is_several(seeds):
            raise SettingError("draw takes a list of seeds; give [seed]")
        if not all(isinstance(voice, Voice) for voice in voices):
            raise SettingError("draw takes what listen returns, and calling the pipeline does both")
        size = self.speech_encoder.config.embedding_dim
        if not all(
            isinstance(voice.embedding, Tensor) and voice.embedding.shape == (size,)
            for voice in voices
        ):
            raise SettingError(
                f"{self.name} draws voices whose embedding is a tensor of {size} numbers; listen "
                "with this pipeline"
            )
        if not all(is_direction(voice.embedding) for voice in voices):
            raise SettingError(
                "a voice's embedding is NaN, infinite or zero; look at what replaced it"
            )
        if len(voices) != len(seeds) or not voices:
            raise SettingError(f"{len(voices)} voices and {len(seeds)} seeds; give one for each")
        checked = [choose_seeds(1, seed, None)[0] for seed in seeds]
        drawing = self.settings(**settings)
        return self._draw(voices, checked, drawing, callback_on_step_end, on_redraw_step)

    def _draw(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        settings: Settings,
        callback_on_step_end: StepCallback | None = None,
        on_redraw_step: Callable[[], None] | None = None,
    ) -> Portraits:
        latents, retrieved = self._sample(
            voices, seeds, settings, callback_on_step_end, on_redraw_step
        )
        images = self.decode(latents, watermark=settings.watermark)
        return Portraits(
            tuple(
                Portrait(
                    Image.fromarray(image),
                    seed,
                    replace(voice.evidence, retrieved=faces),
                    settings,
                    Provenance(
                        voice.audio_sha256,
                        self.checkpoint_sha256,
                        self.device.type,
                        str(self.dtype).removeprefix("torch."),
                    ),
                )
                for image, seed, voice, faces in zip(images, seeds, voices, retrieved, strict=True)
            )
        )

    def settings(
        self,
        preset: str = DEFAULT_PRESET,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_every: int | None = None,
        sampler: str | None = None,
        eta: float = 0.0,
        variety: float = DEFAULT_VARIETY,
        watermark: bool = True,
    ) -> Settings:
        """What a call with these arguments goes by: sampler, steps, guidance and all else.

        All arguments are as in ``__call__``.

        Raises:
            SettingError: there is no such preset, a number is out of range, or the distilled
                denoiser cannot do what is asked.
        """
        update = self.method.distilled
        return choose_settings(
            self.name,
            None if update is None else Preset.learnt(update.steps, update.guidance_scale),
            self.scheduler.config.num_train_timesteps,
            preset=preset,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_every=guidance_every,
            sampler=sampler,
            eta=eta,
            variety=variety,
            watermark=watermark,
        )

    def _sample(
        self,
        voices: Sequence[Voice],
        seeds: Sequence[int],
        settings: Settings,
        callback_on_step_end: StepCallback | None,
        on_redraw_step: Callable[[], None] | None = None,
    ) -> tuple[Tensor, list[tuple[RetrievedFace, ...]]]:
        """Latents and, for each, the faces that it was drawn from."""
        callback = None
        if callback_on_step_end is not None:
            callback = latent_callback(self, callback_on_step_end)
        if on_redraw_step is not None:
            check_callable("on_redraw_step", on_redraw_step)
        method, most = self.method, at_once(self.device).latents
        with self._turn(*method.networks()):
            device = method.device
            speech = torch.stack([voice.embedding.to(device) for voice in voices])
            drawn = [
                method.sample(
                    speech[start : start + most],
                    [torch.Generator().manual_seed(seed) for seed in seeds[start : start + most]],
                    self.scheduler,
                    settings,
                    callback,
                    on_redraw_step,
                )
                for start in range(0, len(seeds), most)
            ]
            latents = torch.cat([sample.latents for sample in drawn])
        return latents, [faces for sample in drawn for faces in sample.retrieved_faces]
