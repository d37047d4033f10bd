"""How a call draws: presets, the numbers given in place of theirs, and all of it checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

from voice2face.argument_checks import check_number, check_whole
from voice2face.errors import SettingError

MOST_IMAGES = 1024
MOST_STEPS = 1000  # of the noise schedule that released checkpoints have
HIGHEST_GUIDANCE = 20.0
DISTILLED = "distilled"
SAMPLERS = ("ddim", "dpm++", "unipc", DISTILLED)


class Preset(NamedTuple):
    """A trade of time for quality.

    Attributes:
        sampler: one of ``SAMPLERS``.
        num_inference_steps: the sampler's steps.
        guidance_scale: how strongly the voice is followed.
        guidance_every: steps that share what guidance adds; see ``Settings``.
    """

    sampler: str
    num_inference_steps: int
    guidance_scale: float
    guidance_every: int

    @classmethod
    def learnt(cls, steps: int, guidance_scale: float) -> Preset:
        """What a distilled denoiser draws by; the guidance is in its weights, in every step."""
        return cls(DISTILLED, steps, guidance_scale, 1)


PRESETS = {
    "fast": Preset.learnt(4, 1.5),  # what the packaged update learnt
    "balanced": Preset("unipc", 15, 2.0, 2),
    "best": Preset("ddim", 50, 2.0, 1),
}
DEFAULT_PRESET = "fast"
DEFAULT_VARIETY = 1.0
UNDISTILLED = PRESETS["balanced"]  # "fast" of other checkpoints, or with other numbers


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn.

    Attributes:
        num_inference_steps: of the sampler, 1 to the steps of the noise schedule.
        guidance_scale: 1 follows the voice as trained, more exaggerates it, 0 ignores it.
        eta: 0 is deterministic DDIM, 1 has the variance of DDPM.
        checkpoint: name of the checkpoint.
        watermark: whether the invisible watermark is in the picture.
        sampler: one of ``SAMPLERS``.
        guidance_every: classifier-free guidance is computed in every n-th step; the steps between
            reuse its last difference and evaluate the conditional half alone.
        variety: 1 draws faces as varied as the checkpoint learnt; less draws more typical ones in
            more even light and looking more straight ahead, which are better made, down to 0.
    """

    num_inference_steps: int
    guidance_scale: float
    eta: float
    checkpoint: str
    watermark: bool = True
    sampler: str = "ddim"
    guidance_every: int = 1
    variety: float = 1.0

    def checked(self, most_steps: int) -> Settings:
        """These settings with numbers of Python alone, as they are written in pictures.

        Raises:
            SettingError: a number is out of range; says which, and its range.
        """
        if not isinstance(self.watermark, bool):
            raise SettingError(f"watermark is True or False, not {self.watermark!r}")
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise SettingError(f"sampler is {', '.join(SAMPLERS)}, not {self.sampler!r}")
        settings = replace(
            self,
            num_inference_steps=check_whole(
                "num_inference_steps", self.num_inference_steps, most_steps
            ),
            guidance_scale=check_number("guidance_scale", self.guidance_scale, HIGHEST_GUIDANCE),
            guidance_every=check_whole("guidance_every", self.guidance_every, most_steps),
            variety=check_number("variety", self.variety, 1.0),
            eta=check_number("eta", self.eta, 1.0),
        )
        if settings.eta > 0.0 and settings.sampler != "ddim":
            raise SettingError(f"eta is of DDIM; with it, say sampler='ddim', not {self.sampler!r}")
        return settings

    def as_arguments(self) -> dict[str, Any]:
        """The arguments that make a pipeline draw so: all but the checkpoint."""
        arguments = asdict(self)
        del arguments["checkpoint"]
        return arguments


def choose_settings(
    checkpoint: str,
    distilled: Preset | None,
    most_steps: int,
    *,
    preset: str = DEFAULT_PRESET,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_every: int | None = None,
    sampler: str | None = None,
    eta: float = 0.0,
    variety: float = DEFAULT_VARIETY,
    watermark: bool = True,
) -> Settings:
    """The settings of a call, by what it is given and what the checkpoint has learnt.

    Args:
        checkpoint: its name.
        distilled: what its distilled denoiser has learnt, ``None`` where it has none.
        most_steps: of its noise schedule.
        preset: name of the preset.
        num_inference_steps: in place of the preset's.
        guidance_scale: in place of the preset's.
        guidance_every: in place of the preset's.
        sampler: in place of the preset's.
        eta: see ``Settings``.
        variety: likewise.
        watermark: likewise.

    Raises:
        SettingError: there is no such preset, a number is out of range, or the distilled denoiser
            cannot do what is asked.
    """
    given = {
        "sampler": sampler,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "guidance_every": guidance_every,
    }
    replaced = {name: value for name, value in given.items() if value is not None}
    settings = Settings(
        **fill_preset(preset, distilled, replaced)._asdict(),
        eta=eta,
        variety=variety,
        watermark=watermark,
        checkpoint=checkpoint,
    )
    return settings.checked(most_steps)


def fill_preset(preset: str, distilled: Preset | None, replaced: Mapping[str, Any]) -> Preset:
    """A preset's numbers for a checkpoint, those that are given in place of its own.

    Args:
        preset: its name.
        distilled: what the checkpoint's distilled denoiser has learnt, ``None`` where it has none.
        replaced: what is given in place of the preset's, by its name.

    Raises:
        SettingError: there is no such preset, or the distilled denoiser cannot do what is asked.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingError(f"preset is {', '.join(PRESETS)}, not {preset!r}")
    usual = PRESETS[preset]
    if not all(isinstance(value, str | Real) for value in replaced.values()):
        return usual._replace(**replaced)  # ``Settings.checked`` says what is wrong with it
    if replaced.get("sampler") == DISTILLED:
        if distilled is None:
            raise SettingError("this checkpoint was not distilled; choose another sampler")
        if distilled._replace(**replaced) != distilled:
            raise SettingError(
                f"the distilled denoiser has learnt {distilled.num_inference_steps} steps at "
                f"guidance {distilled.guidance_scale:g}; leave them out, or choose another sampler"
            )
        return distilled
    if usual.sampler == DISTILLED:
        if distilled is not None and distilled._replace(**replaced) == distilled:
            return distilled
        usual = UNDISTILLED
    return usual._replace(**replaced)
