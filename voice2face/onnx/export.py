"""A checkpoint's networks as ONNX, for programs that run without PyTorch.

A folder is written that holds

- ``speech_encoder.onnx``: ``waveform`` to the fields of ``SpeechEncoding``,
- ``denoiser.onnx`` (SCLDM), or ``bottom_denoiser.onnx`` and ``upper_denoiser.onnx`` beside the
  retriever's entries (Fine-portraitist): one step, see ``ToldDenoiser``,
- ``few_step_denoiser.onnx`` of a distilled checkpoint, or ``few_step_bottom_denoiser.onnx`` and
  ``few_step_upper_denoiser.onnx``, which take ``distilled_steps`` of DDIM without guidance,
- ``face_check.onnx``, where the checkpoint has one: ``latents`` to ``confidence``, that the
  face in the picture is drawn well; latents below ``least_confidence`` are drawn again,
- ``face_decoder.onnx``: ``latents`` to ``images``, RGB around [-1, 1],
- ``sampling.json``: the noise schedule and the sizes that a sampler needs,
- ``README.md``: the checkpoint's model card with its licences.

The first dimension of every input is the batch and may have any size. Needs the extra ``onnx``;
``examples/onnx_portrait.py`` draws a portrait from such a folder. Exporting was tried with PyTorch
2.13; where another one's exporter cannot do it, an error says so and nothing is written.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from voice2face.checkpoints.manifest import read_json
from voice2face.checkpoints.model_card import CARD
from voice2face.errors import ArchitectureError, ExportError
from voice2face.methods.method import FEW_STEP
from voice2face.models import Denoiser
from voice2face.models.attribute_heads import SpeechEncoding
from voice2face.models.denoiser import QUALITY_NAMES
from voice2face.models.face_entries import ENTRIES_FILE
from voice2face.paths import expanded
from voice2face.whole_folders import fresh_folder

if TYPE_CHECKING:
    from voice2face.pipeline import Voice2FacePipeline

FORMAT_VERSION = 1
SAMPLING_FILE = "sampling.json"
DENOISERS = ("denoiser", "bottom_denoiser", "upper_denoiser")
NETWORKS = (
    *("speech_encoder", "face_decoder", "face_check"),
    *(*DENOISERS, *(FEW_STEP + name for name in DENOISERS)),
)
RETRIEVER_FILES = (f"retriever/{ENTRIES_FILE}",)
OPSET = 18  # newer ones are not faster, and need newer runtimes
BATCH = 2  # what the exporter sees; it would take a batch of one for a constant
OTHER_BATCH = 3  # what the written network is tried with
LARGEST_DIFFERENCE = 1e-3  # between onnxruntime's outputs and PyTorch's, which are of order one


class ToldDenoiser(nn.Module):
    """A denoiser together with what it is told, as one network of plain arrays.

    Args:
        denoiser: the trained UNet.
        shift: the prior's share of Z^t* (SCLDM, Eq. 2), ``(channels, size, size)``, or zero.
    """

    shift: Tensor

    def __init__(self, denoiser: Denoiser, shift: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("shift", shift.detach())

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        speech: Tensor,
        speech_kept: Tensor,
        quality: Tensor,
        beside: Tensor | None = None,
    ) -> Tensor:
        """Predict noise or velocity.

        Args:
            latents: Z^t without the prior's shift, ``(batch, channels, size, size)``.
            timesteps: ``(batch,)`` int64, from 0.
            speech: Z^s, ``(batch, speech_dim)``, unit length.
            speech_kept: ``(batch,)`` boolean; false for the rows that guidance leads away from.
            quality: ``(batch, 6)``, in the units of ``good_portrait`` in ``sampling.json``.
            beside: ``(batch, beside_channels, size, size)``, where the denoiser sees other latents.

        Returns:
            The prediction, of the latents' shape.
        """
        condition = self.denoiser.condition(speech, quality, speech_kept)._replace(beside=beside)
        return self.denoiser(latents + self.shift, timesteps, condition)


def export_onnx(pipe: Voice2FacePipeline, folder: str | os.PathLike[str]) -> Path:
    """Write a pipeline's networks as ONNX, in single precision; the pipeline stays as it is.

    Every network is run by onnxruntime and compared with PyTorch before the folder appears, which
    it does as a whole or not at all.

    Args:
        pipe: of any method, device and precision.
        folder: a new folder, an empty one, or an older export to replace.

    Returns:
        The folder.

    Raises:
        ExportError: the extra is not installed, or a network does not come out the same.
        OutputError: the folder cannot be written, or holds other files.
    """
    check_installed()
    folder = expanded(folder).absolute()
    parts = pipe.method.parts()
    denoisers, update = pipe.method.denoisers(), pipe.method.distilled
    *_, config = (denoiser.config for denoiser in denoisers.values())
    shape = (config.latent_channels, config.latent_size, config.latent_size)
    prior = parts.get("face_prior")
    shift = torch.zeros(shape, dtype=torch.float32) if prior is None else prior()
    samples = pipe.speech_encoder.window_samples
    face_check = pipe.method.face_check

    with fresh_folder(folder, exported_file_names, SAMPLING_FILE) as fresh:
        write_network(
            fresh / "speech_encoder.onnx",
            pipe.speech_encoder,
            {"waveform": 0.1 * noise(OTHER_BATCH, samples)},
            SpeechEncoding._fields,
        )
        for name, denoiser in denoisers.items():
            write_network(
                fresh / f"{name}.onnx",
                ToldDenoiser(denoiser, shift).eval(),
                example_of(denoiser),
                ("prediction",),
            )
        of_latents: list[tuple[str, nn.Module, str]] = [
            ("face_decoder", pipe.face_decoder, "images")
        ]
        if face_check is not None:
            of_latents.append(("face_check", face_check, "confidence"))
        for name, network, output in of_latents:
            inputs = {"latents": noise(OTHER_BATCH, *shape)}
            write_network(fresh / f"{name}.onnx", network, inputs, (output,))
        if "retriever" in parts:
            parts["retriever"].save_pretrained(fresh / "retriever")
        facts = {
            "format_version": FORMAT_VERSION,
            "checkpoint": pipe.name,
            "method": pipe.method.name,
            "sample_rate": pipe.speech_encoder.config.sample_rate,
            "window_seconds": pipe.speech_encoder.config.window_seconds,
            "latent_shape": shape,
            "output_size": pipe.output_size,
            "quality": QUALITY_NAMES,
            "good_portrait": config.good_portrait,
            "good_portrait_std": config.good_portrait_std,
            "prediction_type": pipe.scheduler.config.prediction_type,
            "distilled_steps": 0 if update is None else update.steps,
            "least_confidence": None if face_check is None else face_check.config.least_confidence,
            "alphas_cumprod": pipe.scheduler.alphas_cumprod.tolist(),
        }
        (fresh / SAMPLING_FILE).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        (fresh / CARD).write_text(pipe.card, encoding="utf-8")
    return folder


def exported_file_names(folder: Path) -> set[str]:
    """What the folder of an export holds; nothing where there is none."""
    try:
        facts = read_json(folder / SAMPLING_FILE)
    except ArchitectureError:
        return set()
    if not {"format_version", "alphas_cumprod"} <= facts.keys():
        return set()
    return {SAMPLING_FILE, CARD, *(f"{name}.onnx" for name in NETWORKS), *RETRIEVER_FILES}


def example_of(denoiser: Denoiser) -> dict[str, Tensor]:
    """Inputs of ``ToldDenoiser`` for a denoiser, by name."""
    config = denoiser.config
    size = (config.latent_size, config.latent_size)
    inputs = {
        "latents": noise(OTHER_BATCH, config.latent_channels, *size),
        "timesteps": torch.tensor([999, 500, 0]),
        "speech": nn.functional.normalize(noise(OTHER_BATCH, config.speech_dim), dim=1),
        "speech_kept": torch.tensor([True, False, True]),
        "quality": torch.tensor(config.good_portrait, dtype=torch.float32).repeat(OTHER_BATCH, 1),
    }
    if config.beside_channels:
        inputs["beside"] = noise(OTHER_BATCH, config.beside_channels, *size)
    return inputs


def noise(*shape: int) -> Tensor:
    """Standard normal numbers, the same every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


@torch.no_grad()
def write_network(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> None:
    """Write one network, run what was written, and compare.

    Args:
        path: the file.
        network: of any device and precision. A copy is written, since exporting spoils recurrent
            networks.
        inputs: an example of ``OTHER_BATCH`` rows, by name.
        outputs: their names.

    Raises:
        ExportError: the network cannot be exported, or does not come out the same.
    """
    network = nn.Module.to(copy.deepcopy(network), "cpu", torch.float32)
    answer = network(*inputs.values())
    expected = [answer] if isinstance(answer, Tensor) else list(answer)
    batch = torch.export.Dim("batch")
    try:
        with without_remarks():
            torch.onnx.export(
                network,
                tuple(rows[:BATCH] for rows in inputs.values()),
                path,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        difference = largest_difference(path, inputs, expected)
    except OSError:
        raise
    except Exception as error:  # exporter and runtime have many, and no common base
        raise ExportError(
            f"{path.name} cannot be made with PyTorch {torch.__version__}: {error}; upgrade torch, "
            "onnxscript and onnxruntime"
        ) from error
    if not difference <= LARGEST_DIFFERENCE:
        raise ExportError(
            f"{path.name} differs from PyTorch's network by {difference:.2g}, more than "
            f"{LARGEST_DIFFERENCE}; upgrade torch, onnxscript and onnxruntime"
        )


def largest_difference(
    path: Path, inputs: Mapping[str, Tensor], expected: Sequence[Tensor]
) -> float:
    """How far onnxruntime's outputs are from those expected; infinite where shapes differ."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: rows.numpy() for name, rows in inputs.items()})
    pairs = [(torch.from_numpy(one), other) for one, other in zip(found, expected, strict=True)]
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    differences = [float((one - other).abs().max()) for one, other in pairs]
    return float(np.max(differences))  # NaN if there is one


@contextmanager
def without_remarks() -> Iterator[None]:
    """Keep the exporter's remarks, on its own workings and its next versions, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_installed() -> None:
    """Import what the export needs.

    Raises:
        ExportError: it is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"networks cannot be exported ({error}): pip install 'voice2face[onnx]'"
        ) from error
