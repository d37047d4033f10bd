"""Which of a checkpoint's denoisers is distilled, and what it draws from and learns from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voice2face.methods.fine_portraitist import FinePortraitist
from voice2face.methods.guided_sampling import sample_guided
from voice2face.methods.method import FEW_STEP
from voice2face.models import Denoiser, FacePrior
from voice2face.pipeline import Voice2FacePipeline
from voice2face.settings import Settings
from voice2face.training.drawn_portraits import retrieved_from
from voice2face.training.encoders import Encoded, Encoders
from voice2face.training.latent_pairs import FacePairs, LatentPairs, Stage
from voice2face.training.mixed_precision import mixed_precision
from voice2face.training.portraitist import portraitist_pairs

BOTTOM_SEEDS = 10**12  # how far from a portrait's seed that of the bottom face below it is


@dataclass(frozen=True)
class DistilledDenoiser:
    """One denoiser of a checkpoint.

    Attributes:
        teacher: the checkpoint, unchanged.
        name: of the denoiser among its components.
    """

    teacher: Voice2FacePipeline
    name: str

    @property
    def denoiser(self) -> Denoiser:
        """As the checkpoint has it."""
        found: Denoiser = self.teacher.method.parts()[self.name]
        return found

    @property
    def update_name(self) -> str:
        """The component that its update becomes."""
        return self.teacher.method.few_step_updates[self.name]

    @property
    def prior(self) -> FacePrior | None:
        """Shifts what the denoiser is shown; ``None`` where nothing does."""
        found: FacePrior | None = self.teacher.method.parts().get("face_prior")
        return found

    @property
    def shift(self) -> Tensor:
        """What is added to the latent that the denoiser is shown, ``(C, H, W)``."""
        if self.prior is not None:
            return self.prior().detach()
        config = self.denoiser.config
        shape = (config.latent_channels, config.latent_size, config.latent_size)
        return torch.zeros(shape, device=self.denoiser.device)

    @property
    def stage(self) -> Stage | None:
        """Which one of Fine-portraitist's it is; ``None`` of SCLDM."""
        stages: dict[str, Stage] = {"bottom_denoiser": "bottom", "upper_denoiser": "upper"}
        return stages.get(self.name)

    @property
    def draws_bottoms_in_few_steps(self) -> bool:
        """Whether bottom faces come from an update that the checkpoint has, as in its portraits."""
        return self.stage == "upper" and self.teacher.method.distilled is not None

    @property
    def draws_with(self) -> list[nn.Module | Tensor]:
        """What the portraits to learn from depend on: networks, and the entries retrieved from."""
        parts = self.teacher.method.parts()
        networks = [part for part in parts.values() if isinstance(part, (Denoiser, FacePrior))]
        if self.draws_bottoms_in_few_steps:
            networks.append(self.teacher.method.few_step_denoisers[FEW_STEP + "bottom_denoiser"])
        return [*networks, *retrieved_from(self.teacher.method)]

    def beside(self, speech: Tensor, seeds: Sequence[int], settings: Settings) -> Tensor | None:
        """What it sees beside the latents of portraits, ``(N, beside_channels, H, W)``, if it does.

        The upper one of Fine-portraitist's sees bottom faces that the bottom one drew, of the
        picture quality that it is asked for itself.

        Args:
            speech: Z^s, ``(N, speech_dim)``.
            seeds: of the portraits.
            settings: to draw bottom faces with, where they are not drawn in few steps.
        """
        method = self.teacher.method
        if self.stage is None:
            return None
        assert isinstance(method, FinePortraitist)
        retrieved = method.retriever.retrieve(speech)
        bottoms = retrieved.bottoms.to(speech)
        if self.stage == "bottom":
            return bottoms
        if self.draws_bottoms_in_few_steps:
            settings = self.teacher.settings("fast")
        asked = [torch.Generator().manual_seed(seed) for seed in seeds]
        with mixed_precision(speech.device):
            drawn = sample_guided(
                method.loop_for("bottom_denoiser", settings),
                self.teacher.scheduler,
                speech,
                method.upper_denoiser.good_portraits(asked, settings.variety),
                [torch.Generator().manual_seed(BOTTOM_SEEDS + seed) for seed in seeds],
                settings,
                beside=bottoms,
            )
        return torch.cat([drawn, retrieved.faces.to(drawn)], 1)

    def pairs(
        self, encoded: Encoded, encoders: Encoders, arguments: argparse.Namespace
    ) -> LatentPairs:
        """Latents of real faces with voices.

        Args:
            encoded: the training split.
            encoders: which encoded it.
            arguments: of the command; where to keep what is encoded besides, and on which device.
        """
        method = self.teacher.method
        if self.stage is None:
            return FacePairs(encoded.faces, encoded.tables, encoded.pairing)
        assert isinstance(method, FinePortraitist)
        return portraitist_pairs(
            self.stage, "train", encoded, encoders, method.retriever, arguments
        )
