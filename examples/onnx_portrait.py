"""A portrait without PyTorch: ``python examples/onnx_portrait.py networks/ talk.wav face.png``.

``voice2face export-onnx --to networks/`` writes the networks, those of scldm-192, as this draws by
SCLDM alone, with all the variety that was learnt. They run where nothing but ``pip install
onnxruntime pillow soundfile soxr`` and, in a clone of the repository, ``pip install --no-deps .``
was done.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image

from voice2face.audio import load_audio
from voice2face.audio.voice_activity import join_frames, speech_frames, speech_windows
from voice2face.errors import Voice2FaceError
from voice2face.picture_files import save_marked
from voice2face.watermark import embed

MOST_ATTEMPTS = 4


class Networks:
    """What ``voice2face export-onnx`` wrote, ready to run."""

    def __init__(self, folder: str) -> None:
        """Open the networks of a folder, and end where there are none, or not of SCLDM."""
        facts = Path(folder) / "sampling.json"
        if not facts.is_file():
            sys.exit(f"{facts} is missing: voice2face export-onnx scldm-192 --to {folder}")
        self.facts = json.loads(facts.read_text())
        if self.facts["method"] != "scldm":
            sys.exit(
                f"{folder} holds {self.facts['checkpoint']}, of the method {self.facts['method']}; "
                "this draws by SCLDM alone: voice2face export-onnx scldm-192 --to DIR"
            )
        self.speech_encoder, self.denoiser, self.face_decoder = (
            open_network(folder, name) for name in ("speech_encoder", "denoiser", "face_decoder")
        )
        distilled = self.facts["distilled_steps"] > 0
        self.few_step_denoiser = open_network(folder, "few_step_denoiser") if distilled else None
        self.least_confidence = self.facts["least_confidence"]
        checked = self.least_confidence is not None
        self.face_check = open_network(folder, "face_check") if checked else None

    def listen(self, recording: str) -> np.ndarray:
        """Z^s of a recording, ``(speech_dim,)``."""
        waveform = load_audio(recording)
        speech = join_frames(waveform, speech_frames(waveform))
        windows = speech_windows(speech, seconds=self.facts["window_seconds"])
        (embeddings,) = self.speech_encoder.run(["embedding"], {"waveform": windows})
        mean = embeddings.mean(0)
        return mean / np.linalg.norm(mean)

    def draw(
        self,
        speech: np.ndarray,
        noise: np.ndarray,
        quality: np.ndarray,
        steps: int | None = None,
        guidance: float = 2.0,
    ) -> np.ndarray:
        """DDIM steps from noise to Z^f of the noise's shape.

        By default they are the distilled ones, where the checkpoint has any; other steps are taken
        with guidance by the voice.
        """
        denoiser, rows = self.denoiser, 2
        if steps is None and self.few_step_denoiser is not None:
            denoiser, rows, steps = self.few_step_denoiser, 1, self.facts["distilled_steps"]
        steps = steps or 25
        alphas = self.facts["alphas_cumprod"]
        timesteps = [len(alphas) * (steps - k) // steps - 1 for k in range(steps)]
        latents = noise
        for timestep, next_timestep in zip(timesteps, [*timesteps[1:], None], strict=True):
            inputs = {
                "latents": np.stack([latents] * rows),
                "timesteps": np.full(rows, timestep, np.int64),
                "speech": np.stack([speech] * rows),
                "speech_kept": np.array([True, False][:rows]),
                "quality": np.stack([quality] * rows),
            }
            predicted = denoiser.run(None, inputs)[0]
            told, untold = predicted[0], predicted[-1]
            output = untold + np.float32(guidance) * (told - untold)
            signal, spread = coefficients(alphas[timestep])
            if self.facts["prediction_type"] == "v_prediction":
                clean = signal * latents - spread * output
                left = signal * output + spread * latents
            else:
                clean, left = (latents - spread * output) / signal, output
            signal, spread = coefficients(1.0 if next_timestep is None else alphas[next_timestep])
            latents = signal * clean + spread * left
        return latents

    def confidence(self, latents: np.ndarray) -> float:
        """How surely the face in the picture of a latent is drawn well; endless without a check."""
        if self.face_check is None:
            return float("inf")
        (confidence,) = self.face_check.run(None, {"latents": latents[None]})
        return float(confidence[0])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """A picture of a latent, ``(output_size, output_size, 3)`` uint8."""
        (images,) = self.face_decoder.run(None, {"latents": latents[None]})
        pixels = ((images[0].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
        size = (self.facts["output_size"],) * 2
        picture = Image.fromarray(pixels.transpose(1, 2, 0))
        return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def open_network(folder: str, name: str) -> InferenceSession:
    """One of the networks, to be run on the CPU."""
    return InferenceSession(Path(folder) / f"{name}.onnx", providers=["CPUExecutionProvider"])


def coefficients(alpha_bar: float) -> tuple[np.float32, np.float32]:
    """``sqrt(abar_t)`` and ``sqrt(1 - abar_t)``."""
    return np.float32(alpha_bar**0.5), np.float32((1 - alpha_bar) ** 0.5)


def main(folder: str, recording: str, picture: str) -> None:
    """Draw a portrait of a recording with the networks of a folder, and write it."""
    networks = Networks(folder)
    speech = networks.listen(recording)
    mean, deviation = (
        np.array(networks.facts[name], np.float32)
        for name in ("good_portrait", "good_portrait_std")
    )
    rng = np.random.default_rng(7)
    quality = mean + deviation * rng.standard_normal(len(mean), np.float32)
    surest = -float("inf")
    for _ in range(MOST_ATTEMPTS):
        noise = rng.standard_normal(networks.facts["latent_shape"], np.float32)
        drawn = networks.draw(speech, noise, quality)
        confidence = networks.confidence(drawn)
        if confidence > surest:
            latents, surest = drawn, confidence
        if networks.face_check is None or surest >= networks.least_confidence:
            break
    save_marked(Image.fromarray(embed(networks.decode(latents))), picture, {})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except Voice2FaceError as error:
        sys.exit(str(error))
