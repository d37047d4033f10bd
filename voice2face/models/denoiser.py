"""The denoising UNet: what to take out of a noisy latent, given a voice and a picture quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from voice2face.devices import constant_on
from voice2face.models.attribute_heads import AttributeHeads
from voice2face.models.heard_attributes import (
    ATTRIBUTES,
    emphasised_attributes,
    heard_attributes,
    standardised_attributes,
)
from voice2face.models.network import (
    CHANNELS,
    DIMENSION,
    LATENT_RANGES,
    Network,
    Ranges,
    register_to_config,
)

QUALITY_NAMES = ("log_sharpness", "yaw", "pitch", "brightness", "contrast", "outside")


class Condition(NamedTuple):
    """What the denoiser is conditioned on, beside latent and time.

    Attributes:
        speech: ``(batch, tokens, width)``, attended to by every cross-attention (Eq. 5).
        numbers: ``(batch, 7)``, standardised picture quality and a flag that it is known; where
            the denoiser is conditioned on sex and age, ``(batch, 10)`` with these and their flag.
        beside: ``(batch, beside_channels, latent_size, latent_size)``, other latents that are
            concatenated to the noisy one; ``None`` where the denoiser sees none.
    """

    speech: Tensor
    numbers: Tensor
    beside: Tensor | None = None


def norm_groups(block_channels: Sequence[int]) -> int:
    """Into how many groups normalisation divides each level's channels."""
    return min(32, *block_channels)


class Denoiser(AttributeHeads, Network):
    """A UNet with self-attention and with cross-attention to the voice (SCLDM, Eq. 5).

    Picture quality enters beside the time embedding, so that training may see every kind of
    photograph while sampling asks for a good one. So do sex and age: the labels of the faces while
    training, what the speech encoder's heads read off Z^s when sampling.

    Args:
        latent_channels: channels of the latent.
        beside_channels: channels of the latents that are concatenated to it.
        latent_size: side of the square latent in positions.
        block_channels: width of each level; every level after the first halves the resolution.
        layers_per_block: residual blocks, each with attention, at each level.
        attention_heads: heads of every attention.
        speech_dim: size of Z^s.
        speech_tokens: tokens that Z^s is spread over.
        cross_attention_dim: width of a token.
        quality_mean: mean of each number of ``QUALITY_NAMES`` over the training faces.
        quality_std: standard deviation of each.
        good_portrait: the quality asked for when sampling, in the same units as the mean.
        good_portrait_std: how far it varies from picture to picture.
        heard_attributes: 2 where sex and age are given as numbers too, 0 where they are not.
        attributes_emphasis: how many times as far from the middle as they are heard sex and age are
            given when sampling.
    """

    ranges: ClassVar[Ranges] = {
        **LATENT_RANGES,
        "block_channels": CHANNELS,
        "layers_per_block": (1, 8),
        "attention_heads": (1, 64),
        "speech_dim": DIMENSION,
        "speech_tokens": (1, 256),
        "cross_attention_dim": DIMENSION,
        "quality_mean": (-1e6, 1e6),
        "quality_std": (1e-9, 1e6),
        "good_portrait": (-1e6, 1e6),
        "good_portrait_std": (0.0, 1e6),
        "beside_channels": (0, 1024),
        "heard_attributes": (0, len(ATTRIBUTES)),
        "attributes_emphasis": (0.0, 10.0),
    }

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        latent_size: int = 8,
        block_channels: Sequence[int] = (128, 256),
        layers_per_block: int = 1,
        attention_heads: int = 4,
        speech_dim: int = 256,
        speech_tokens: int = 8,
        cross_attention_dim: int = 256,
        quality_mean: Sequence[float] = (0.0,) * len(QUALITY_NAMES),
        quality_std: Sequence[float] = (1.0,) * len(QUALITY_NAMES),
        good_portrait: Sequence[float] = (0.0,) * len(QUALITY_NAMES),
        good_portrait_std: Sequence[float] = (0.0,) * len(QUALITY_NAMES),
        beside_channels: int = 0,
        heard_attributes: int = 0,
        attributes_emphasis: float = 1.0,
    ) -> None:
        super().__init__()
        if heard_attributes not in (0, len(ATTRIBUTES)):
            raise ValueError(f"heard_attributes is 0 or {len(ATTRIBUTES)}")
        levels = len(block_channels)
        self.unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=latent_channels + beside_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(block_channels),
            layers_per_block=layers_per_block,
            down_block_types=("CrossAttnDownBlock2D",) * levels,
            up_block_types=("CrossAttnUpBlock2D",) * levels,
            # diffusers reads this argument as the number of heads
            attention_head_dim=attention_heads,
            cross_attention_dim=cross_attention_dim,
            norm_num_groups=norm_groups(block_channels),
            class_embed_type="projection",
            projection_class_embeddings_input_dim=len(QUALITY_NAMES)
            + 1
            + (heard_attributes + 1 if heard_attributes else 0),
        )
        if heard_attributes:
            self.add_heads(speech_dim)
        self.speech_to_tokens = nn.Linear(speech_dim, speech_tokens * cross_attention_dim)
        self.no_speech = nn.Parameter(torch.zeros(speech_tokens, cross_attention_dim))

    def condition(
        self,
        speech: Tensor,
        quality: Tensor,
        speech_kept: Tensor | None = None,
        quality_kept: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> Condition:
        """Prepare what the UNet is conditioned on.

        Args:
            speech: Z^s, ``(batch, speech_dim)``, unit length.
            quality: ``(batch, 6)``, in the units of ``quality_mean``.
            speech_kept: ``(batch,)`` boolean; where false, the learned "no voice" is given.
            quality_kept: ``(batch,)`` boolean; where false, "quality unknown" is given.
            attributes: ``(batch, 2)`` as ``heard_attributes`` returns them, NaN where unknown; by
                default those of Z^s, emphasised. Not given where ``speech_kept`` is false.
        """
        batch, device = speech.shape[0], speech.device
        kept = torch.ones(batch, dtype=torch.bool, device=device)
        speech_kept = kept if speech_kept is None else speech_kept
        quality_kept = kept if quality_kept is None else quality_kept

        scaled = (speech * speech.shape[1] ** 0.5).to(self.dtype)
        tokens = self.speech_to_tokens(scaled).unflatten(1, self.no_speech.shape)
        tokens = torch.where(speech_kept[:, None, None], tokens, self.no_speech.to(tokens.dtype))

        mean, std = (
            constant_on(device, tuple, tuple(numbers))
            for numbers in (self.config.quality_mean, self.config.quality_std)
        )
        standardised = ((quality - mean) / std).clamp(-3.0, 3.0)
        flagged = torch.cat([standardised, torch.ones_like(standardised[:, :1])], 1)
        numbers = flagged * quality_kept[:, None]
        if self.config.heard_attributes:
            if attributes is None:
                attributes = self.default_attributes(speech)
            standardised = standardised_attributes(attributes.to(numbers)) * speech_kept[:, None]
            numbers = torch.cat([numbers, standardised], 1)
        return Condition(tokens, numbers.to(self.dtype))

    def default_attributes(self, speech: Tensor) -> Tensor:
        """Sex and age by default, ``(batch, 2)``: as Z^s tells them, emphasised."""
        heard = heard_attributes(self.describe(speech))
        return emphasised_attributes(heard, self.config.attributes_emphasis)

    def good_portraits(self, generators: Sequence[torch.Generator], variety: float = 1.0) -> Tensor:
        """Draw the quality to ask for, one row a generator, ``(batch, 6)``.

        Good portraits differ in light and in how the head is held: asking for one and the same
        quality every time would make all pictures alike in what no voice decides.

        Args:
            generators: one a row.
            variety: 0 to 1, how much of these differences to ask for.
        """
        on_cpu: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        mean = torch.tensor(self.config.good_portrait, **on_cpu)
        std = variety * torch.tensor(self.config.good_portrait_std, **on_cpu)
        drawn = [mean + std * torch.randn(len(mean), generator=g, **on_cpu) for g in generators]
        return torch.stack(drawn).to(self.device)

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Predict noise or velocity, as the schedule's ``prediction_type`` says.

        Args:
            latents: Z^t*, ``(batch, latent_channels, latent_size, latent_size)`` (Eq. 2).
            timesteps: ``(batch,)`` integers from 0.
            condition: what ``condition`` made of voice and quality.

        Returns:
            The prediction, of the latents' shape.
        """
        if condition.beside is not None:
            latents = torch.cat([latents, condition.beside], 1)
        return self.unet(
            latents,
            timesteps,
            encoder_hidden_states=condition.speech,
            class_labels=condition.numbers,
            return_dict=False,
        )[0]
