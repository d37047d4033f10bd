"""A decoder of larger pictures that begins as what another one has learnt."""

from __future__ import annotations

from torch.nn import functional as F

from voice2face.errors import SettingError
from voice2face.models import FaceDecoder


def enlarge(decoder: FaceDecoder, image_size: int) -> FaceDecoder:
    """The same decoder with larger patches: its last convolution's weights are interpolated.

    Raises:
        SettingError: the size is no multiple of the decoder's positions.
    """
    positions = decoder.config.image_size // decoder.config.patch_size
    if image_size % positions:
        raise SettingError(f"the decoder's pictures are multiples of {positions} pixels wide")
    old, new = decoder.config.patch_size, image_size // positions
    larger = FaceDecoder.from_config(decoder.config, image_size=image_size, patch_size=new)
    state = decoder.state_dict()
    for name in ("to_pixels.weight", "to_pixels.bias"):
        flat = state[name].view(3, old, old, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(flat, size=(new, new), mode="bilinear")
        state[name] = resized.permute(0, 2, 3, 1).reshape(-1, *state[name].shape[1:])
    larger.load_state_dict(state)
    return larger
