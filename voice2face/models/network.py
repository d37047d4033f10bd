"""What all networks have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import torch
from diffusers import ConfigMixin, ModelMixin, configuration_utils

Initialiser = TypeVar("Initialiser", bound=Callable[..., None])
Ranges = Mapping[str, tuple[float, float]]

LONGEST_LIST = 16  # numbers under one name of a configuration

# lowest and highest value of what several networks are configured by
CHANNELS = (4, 2048)
DIMENSION = (1, 4096)
LATENT_RANGES: Ranges = {"latent_channels": (1, 256), "latent_size": (1, 128)}


class Network(ModelMixin, ConfigMixin):
    """A model of diffusers that is asked for its device and type without a walk over its modules.

    diffusers looks at every module for hooks that this package never attaches, which takes longer
    than many a layer, and sampling asks some twenty times a portrait.

    Attributes:
        ranges: lowest and highest value of every number, or list of numbers, that the network's
            configuration may hold: of every argument, by its name.
    """

    ranges: ClassVar[Ranges]

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters."""
        return next(self.parameters()).dtype


def register_to_config(initialiser: Initialiser) -> Initialiser:
    """The decorator of diffusers, which is not typed: it keeps an ``__init__``'s arguments."""
    return configuration_utils.register_to_config(initialiser)
