"""What all networks have in common."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin


class Network(ModelMixin, ConfigMixin):
    """A model of diffusers that is asked for its device and type without a walk over its modules.

    diffusers looks at every module for hooks that this package never attaches, which takes longer
    than many a layer, and sampling asks some twenty times a portrait.
    """

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters."""
        return next(self.parameters()).dtype
