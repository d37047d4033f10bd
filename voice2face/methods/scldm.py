"""SCLDM (Wang, Liu, Wang, Cheng 2023, arXiv 2310.03363) in the paper's own terms.

The forward process is the standard variance-preserving one, shifted by the face prior:

    Z^t  = sqrt(abar_t) Z^0 + sqrt(1 - abar_t) eps        (Eq. 4, which the paper abbreviates)
    Z^t* = Z^t + beta Z^prior                             (Eq. 2)

and the denoiser is trained on ``|| eps - eps_theta(Z^t*, t, Z^s) ||^2`` (Eq. 6). Sampling starts
from ``N(beta Z^prior, I)`` and walks on Z^t, showing the denoiser Z^t*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from voice2face.methods.guided_sampling import LatentCallback, sample_guided
from voice2face.methods.method import Method, Sample
from voice2face.models.denoiser import Condition, Denoiser
from voice2face.models.face_check import FaceCheck
from voice2face.models.face_prior import FacePrior
from voice2face.models.few_step_update import FewStepUpdate
from voice2face.settings import Settings


class SCLDM(Method):
    """Draws face latents around the face prior.

    Args:
        face_prior: Z^prior and its weight beta.
        denoiser: the UNet.
        few_step_update: what makes of it one for the sampler ``"distilled"``.
        face_check: see ``Method``.

    Raises:
        ArchitectureError: the update is of another denoiser.
    """

    name = "scldm"
    few_step_updates: ClassVar[Mapping[str, str]] = {"denoiser": "few_step_update"}
    components: ClassVar[Mapping[str, type]] = {"face_prior": FacePrior, "denoiser": Denoiser}
    optional: ClassVar[Mapping[str, type]] = {
        **Method.optional,
        "few_step_update": FewStepUpdate,
    }

    def __init__(
        self,
        face_prior: FacePrior,
        denoiser: Denoiser,
        few_step_update: FewStepUpdate | None = None,
        face_check: FaceCheck | None = None,
    ) -> None:
        self.face_check = None if face_check is None else face_check.eval()
        self.face_prior = face_prior.eval()
        self.denoiser = denoiser.eval()
        self.few_step_update = few_step_update
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
        """See ``Method``."""
        loop = self.loop_for("denoiser", settings)
        latents = sample_guided(
            loop,
            schedule,
            speech,
            quality,
            generators,
            settings,
            prior=self.face_prior,
            callback=callback,
        )
        return Sample(latents)


def shifted_noising(
    clean: Tensor, noise: Tensor, timesteps: Tensor, schedule: DDIMScheduler, prior: FacePrior
) -> Tensor:
    """Z^t* of Eq. 2 and Eq. 4 for clean latents and noise ``(B, C, H, W)``, timesteps ``(B,)``."""
    return schedule.add_noise(clean, noise, timesteps) + prior()


def denoising_loss(
    denoiser: Denoiser,
    prior: FacePrior,
    schedule: DDIMScheduler,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Condition,
) -> Tensor:
    """Mean squared error of Eq. 6, for each row ``(B,)``.

    With ``prediction_type="v_prediction"`` the network is written in terms of the velocity, and
    the same error of eps is weighted by ``1 / abar_t``.
    """
    noisy = shifted_noising(clean, noise, timesteps, schedule, prior)
    output = denoiser(noisy, timesteps, condition).float()
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(clean, noise, timesteps) if velocity else noise
    return (output - target).square().mean((1, 2, 3))
