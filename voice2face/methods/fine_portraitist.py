"""Fine-portraitist (Wang, Liu, Wang) in the paper's own terms.

The paper found that the lower half of a face follows the voice most, so it is drawn first. The
database entry whose voice is nearest to Z^s gives its whole face Z_f^r and its bottom face Z_b^r. A
first diffusion model denoises the bottom face, a second one the whole face; what each may look at
is concatenated to the noisy latent along the channels:

    Z_b = speech-to-bottom(noise; Z^s, [Z_b^r])
    Z_f = bottom-to-upper(noise; Z^s, [Z_b, Z_f^r])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.methods.guided_sampling import LatentCallback, sample_guided
from voice2face.methods.method import Method, Sample
from voice2face.models.denoiser import Denoiser
from voice2face.models.face_check import FaceCheck
from voice2face.models.face_retriever import FaceRetriever
from voice2face.models.few_step_update import FewStepUpdate
from voice2face.settings import Settings


class FinePortraitist(Method):
    """Draws the bottom face, then the whole face, near a retrieved one.

    Args:
        retriever: faces by voice; may be exchanged for one over other faces.
        bottom_denoiser: speech-to-bottom; sees one latent beside the noisy one.
        upper_denoiser: bottom-to-upper; sees two.
        bottom_few_step_update: what makes of the first one for the sampler ``"distilled"``.
        upper_few_step_update: likewise, of the second.
        face_check: see ``Method``.

    Raises:
        ArchitectureError: the updates are of other denoisers, or do not go together.
    """

    name = "fine_portraitist"
    components: ClassVar[Mapping[str, type]] = {
        "retriever": FaceRetriever,
        "bottom_denoiser": Denoiser,
        "upper_denoiser": Denoiser,
    }
    stages: ClassVar[int] = 2
    last_denoiser: ClassVar[str] = "upper_denoiser"
    optional: ClassVar[Mapping[str, type]] = {
        **Method.optional,
        "bottom_few_step_update": FewStepUpdate,
        "upper_few_step_update": FewStepUpdate,
    }
    few_step_updates: ClassVar[Mapping[str, str]] = {
        "bottom_denoiser": "bottom_few_step_update",
        "upper_denoiser": "upper_few_step_update",
    }

    def __init__(
        self,
        retriever: FaceRetriever,
        bottom_denoiser: Denoiser,
        upper_denoiser: Denoiser,
        bottom_few_step_update: FewStepUpdate | None = None,
        upper_few_step_update: FewStepUpdate | None = None,
        face_check: FaceCheck | None = None,
    ) -> None:
        self.face_check = None if face_check is None else face_check.eval()
        self.retriever = retriever
        self.bottom_denoiser = bottom_denoiser.eval()
        self.upper_denoiser = upper_denoiser.eval()
        self.bottom_few_step_update = bottom_few_step_update
        self.upper_few_step_update = upper_few_step_update
        self._apply_few_step_updates()

    def draw(
        self,
        speech: Tensor,
        quality: Tensor,
        generators: Sequence[torch.Generator],
        schedule: DDIMScheduler,
        settings: Settings,
        callback: LatentCallback | None = None,
    ) -> Sample:
        """See ``Method``; the first half of the callback's steps shows bottom faces."""

        def callback_of_upper(index: int, timestep: int, latents: Tensor) -> Tensor:
            assert callback is not None
            return callback(settings.num_inference_steps + index, timestep, latents)

        retrieved = self.retriever.retrieve(speech)
        bottoms = sample_guided(
            self.loop_for("bottom_denoiser", settings),
            schedule,
            speech,
            quality,
            generators,
            settings,
            beside=retrieved.bottoms,
            callback=callback,
        )
        faces = sample_guided(
            self.loop_for("upper_denoiser", settings),
            schedule,
            speech,
            quality,
            generators,
            settings,
            beside=torch.cat([bottoms, retrieved.faces.to(bottoms)], 1),
            callback=callback_of_upper if callback is not None else None,
        )
        return Sample(faces, retrieved)
