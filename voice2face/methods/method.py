"""What a method is: its own components, and how it draws face latents for a voice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from voice2face.errors import ArchitectureError
from voice2face.evidence import RetrievedFace
from voice2face.methods.guided_sampling import DenoisingLoop, LatentCallback
from voice2face.models.denoiser import Denoiser
from voice2face.models.face_check import FaceCheck
from voice2face.models.face_retriever import Retrieved
from voice2face.models.few_step_update import FewStepUpdate
from voice2face.settings import DISTILLED, Settings

MOST_ATTEMPTS = 4
FEW_STEP = "few_step_"


class Sample(NamedTuple):
    """What a method drew.

    Attributes:
        latents: Z^f, ``(batch, channels, size, size)``, float32.
        retrieved: the faces it drew from, where it retrieves any.
    """

    latents: Tensor
    retrieved: Retrieved | None = None

    @property
    def retrieved_faces(self) -> list[tuple[RetrievedFace, ...]]:
        """The faces that each latent was drawn from, nearest voice first."""
        if self.retrieved is None:
            return [()] * len(self.latents)
        found = zip(self.retrieved.ids, self.retrieved.scores.tolist(), strict=True)
        return [tuple(map(RetrievedFace, names, scores)) for names, scores in found]


class Method(ABC):
    """One paper's way from Z^s to Z^f; a method never changes while it draws.

    Attributes:
        name: as checkpoints call it.
        components: class of each component, by its name in a checkpoint, which is also its
            attribute and its argument.
        optional: likewise, of components that a checkpoint may lack.
        stages: denoisers that draw one after another.
        last_denoiser: name of the one that draws the whole face.
        few_step_updates: name of the optional component that makes of a denoiser one for the
            sampler ``"distilled"``, by the denoiser's.
        face_check: says which latents are drawn again; ``None`` where a checkpoint has none.
        distilled: an update of those that the checkpoint has, which say the same of steps and
            guidance; ``None`` where it was not distilled.
    """

    name: ClassVar[str]
    components: ClassVar[Mapping[str, type]]
    optional: ClassVar[Mapping[str, type]] = {"face_check": FaceCheck}
    stages: ClassVar[int] = 1
    last_denoiser: ClassVar[str] = "denoiser"
    few_step_updates: ClassVar[Mapping[str, str]]
    face_check: FaceCheck | None
    distilled: FewStepUpdate | None
    few_step_denoisers: Mapping[str, Denoiser]

    def parts(self) -> dict[str, Any]:
        """The components by name, those that are missing left out."""
        named = {name: getattr(self, name) for name in (*self.components, *self.optional)}
        return {name: part for name, part in named.items() if part is not None}

    def _apply_few_step_updates(self) -> None:
        """Apply the updates that the checkpoint has.

        Raises:
            ArchitectureError: they are of other denoisers, or do not go together.
        """
        updates = {name: getattr(self, part) for name, part in self.few_step_updates.items()}
        self.distilled, self.few_step_denoisers = None, {}
        learnt = {update and (update.steps, update.guidance_scale) for update in updates.values()}
        if learnt == {None}:
            return
        if len(learnt) > 1:
            raise ArchitectureError(
                f"{' and '.join(self.few_step_updates.values())} go together: all of them, of the "
                "same steps and guidance, or none"
            )
        self.distilled = next(iter(updates.values()))
        self.few_step_denoisers = {
            FEW_STEP + name: update.applied_to(getattr(self, name))
            for name, update in updates.items()
        }

    def denoisers(self) -> dict[str, Denoiser]:
        """The UNets by name, those for the sampler ``"distilled"`` with ``few_step_`` before it."""
        own = {name: part for name, part in self.parts().items() if isinstance(part, Denoiser)}
        return own | dict(self.few_step_denoisers)

    @cached_property
    def _loops(self) -> dict[str, DenoisingLoop]:
        return {}

    def denoising_loop(self, name: str) -> DenoisingLoop:
        """The loop of a denoiser by its name, the same each time, as it may be recorded."""
        denoiser: Denoiser = self.few_step_denoisers.get(name) or getattr(self, name)
        if name not in self._loops or self._loops[name].denoiser is not denoiser:
            self._loops[name] = DenoisingLoop(denoiser)
        return self._loops[name]

    def loop_for(self, name: str, settings: Settings) -> DenoisingLoop:
        """The loop of a denoiser, or of what was distilled of it, as the settings ask."""
        return self.denoising_loop(FEW_STEP + name if settings.sampler == DISTILLED else name)

    def networks(self) -> list[nn.Module]:
        """All networks that draw."""
        of_parts = (part for part in self.parts().values() if isinstance(part, nn.Module))
        return list(dict.fromkeys([*of_parts, *self.denoisers().values()]))

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return next(self.networks()[-1].parameters()).device

    def quality(self, generators: Sequence[torch.Generator], settings: Settings) -> Tensor:
        """Draw the picture quality to ask for, one row a generator, ``(batch, 6)``."""
        denoiser = self.loop_for(self.last_denoiser, settings).denoiser
        return denoiser.good_portraits(generators, settings.variety)

    def sample(
        self,
        speech: Tensor,
        generators: Sequence[torch.Generator],
        schedule: DDIMScheduler,
        settings: Settings,
        callback: LatentCallback | None = None,
        on_redraw_step: Callable[[], None] | None = None,
    ) -> Sample:
        """Draw one face latent for each generator, one that the face check is sure enough of.

        Where it is not, the generator that drew the latent goes on to draw another of the same
        quality, that is in the same light and turned as far, up to ``MOST_ATTEMPTS`` in all, of
        which the one of highest confidence is kept. So portraits in little light, which are refused
        more often, do not give way to others, and what a seed gives does not depend on the batch.

        Args:
            speech: as of ``draw``.
            generators: one CPU generator a picture, for the quality that is asked for and its
                noise; what it draws does not depend on the batch.
            schedule: as of ``draw``.
            settings: as of ``draw``.
            callback: as of ``draw``; not called for latents that are drawn again.
            on_redraw_step: called after each step of those; what it raises ends the drawing.
        """

        def redraw_callback(_index: int, _timestep: int, latents: Tensor) -> Tensor:
            assert on_redraw_step is not None
            on_redraw_step()
            return latents

        quality = self.quality(generators, settings)
        drawn = self.draw(speech, quality, generators, schedule, settings, callback)
        check = self.face_check
        if check is None:
            return drawn
        latents, rows = drawn.latents, list(range(len(generators)))
        confidences = check.confidences(latents)
        for _ in range(MOST_ATTEMPTS - 1):
            rows = [row for row in rows if confidences[row] < check.config.least_confidence]
            if not rows:
                break
            of_rows = [generators[row] for row in rows]
            redraw = redraw_callback if on_redraw_step is not None else None
            again = self.draw(
                speech[rows], quality[rows], of_rows, schedule, settings, redraw
            ).latents
            latents = latents.clone()
            for row, latent, sure in zip(rows, again, check.confidences(again), strict=True):
                if sure > confidences[row]:
                    latents[row], confidences[row] = latent, sure
        return drawn._replace(latents=latents)

    @abstractmethod
    def draw(
        self,
        speech: Tensor,
        quality: Tensor,
        generators: Sequence[torch.Generator],
        schedule: DDIMScheduler,
        settings: Settings,
        callback: LatentCallback | None = None,
    ) -> Sample:
        """Draw one face latent for each generator, whatever it may show.

        Args:
            speech: Z^s, ``(batch, speech_dim)``, one row a picture.
            quality: picture quality to ask for, ``(batch, 6)``.
            generators: one CPU generator a picture, for its noise; what it draws does not depend
                on the batch.
            schedule: abar_t and the prediction type; it is read, never changed.
            settings: sampler, steps, guidance, eta and variety.
            callback: called with (index, timestep, Z^t) after each step, returns the Z^t to go on
                with; the index counts on through all stages.
        """
