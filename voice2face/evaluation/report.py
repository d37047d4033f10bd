"""The figures of a checkpoint on held-out data, as tables and contact sheets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from voice2face.errors import AudioError
from voice2face.evaluation.agreement import Share, bootstrap_share, within_one_decade
from voice2face.evaluation.judge import FaceFeatures, Judge
from voice2face.evaluation.sheets import captioned_sheet
from voice2face.models.speech_encoder import AGE_DECADES
from voice2face.pipeline import Voice, Voice2FacePipeline
from voice2face.training.images import contact_sheet, to_model_range, to_uint8
from voice2face.training.losses import PerceptualLoss
from voice2face.training.tables import SEXES, UNKNOWN, load_faces, load_voices

logger = logging.getLogger("voice2face.evaluation")


@dataclass
class Report:
    """Figures by group and name, in the order in which they were measured."""

    figures: dict[str, dict[str, Share | float]] = field(default_factory=dict)

    def add(self, group: str, name: str, value: Share | float) -> None:
        """Record one figure and log it."""
        self.figures.setdefault(group, {})[name] = value
        logger.info("%s, %s: %s", group, name, value)

    def markdown(self) -> str:
        """One table a group."""
        parts = []
        for group, rows in self.figures.items():
            parts.append(f"### {group}\n\n| measure | figure |\n|---|---|")
            parts.extend(
                f"| {name} | {value if isinstance(value, Share) else f'{value:.3f}'} |"
                for name, value in rows.items()
            )
            parts.append("")
        return "\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The figures as plain numbers and dictionaries."""
        return {
            group: {
                name: value._asdict() if isinstance(value, Share) else value
                for name, value in rows.items()
            }
            for group, rows in self.figures.items()
        }


def evaluate(
    pipe: Voice2FacePipeline,
    data: Path,
    networks: Path,
    out: Path,
    *,
    num_inference_steps: int = 25,
    guidance_scale: float = 2.0,
    limit: int | None = None,
) -> Report:
    """Measure a checkpoint on the test split and write ``report.json``, ``report.md`` and sheets.

    Args:
        pipe: the checkpoint.
        data: folder with ``faces-*.parquet`` and ``voices-*.parquet``.
        networks: folder with the face-recognition network and the SqueezeNet features.
        out: folder to write to.
        num_inference_steps: DDIM steps of every portrait.
        guidance_scale: guidance of every portrait.
        limit: rows to read of each split, for a trial run.
    """
    out.mkdir(parents=True, exist_ok=True)
    report = Report()
    features = FaceFeatures(networks / "mobileface_v2.torchscript.pt")
    judge = Judge(features)
    faces = str(data / "faces-*.parquet")
    judge.fit(load_faces(faces, "train", 192, limit=limit))
    test_faces = load_faces(faces, "test", 192, limit=limit)
    verdict = judge(test_faces.images)
    report.add(
        "judge", "sex, test faces", bootstrap_share(verdict.sex == test_faces.sex, test_faces.ids)
    )
    near = within_one_decade(verdict.age, test_faces.age)
    report.add("judge", "age within 10 years, test faces", bootstrap_share(near, test_faces.ids))

    measure_autoencoder(pipe, faces, features, networks, report, out, limit)
    measure_voices(
        pipe,
        judge,
        str(data / "voices-*.parquet"),
        report,
        out,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        limit=limit,
    )
    (out / "report.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    (out / "report.md").write_text(report.markdown())
    return report


def measure_autoencoder(
    pipe: Voice2FacePipeline,
    faces: str,
    features: FaceFeatures,
    networks: Path,
    report: Report,
    out: Path,
    limit: int | None,
) -> None:
    """How well faces survive encoding and decoding."""
    size = pipe.face_decoder.config.image_size
    table = load_faces(faces, "test", size, limit=min(limit or 512, 512))
    target = to_model_range(table.images)
    with torch.inference_mode():
        decoded = torch.cat(
            [
                pipe.face_decoder(
                    pipe.face_encoder(part.to(pipe.device, pipe.dtype)).to(pipe.dtype)
                )
                .float()
                .cpu()
                for part in target.split(16)
            ]
        )
        perceptual = PerceptualLoss(networks / "squeezenet1_0.safetensors")
        distance = np.mean(
            [
                float(perceptual(one, other))
                for one, other in zip(decoded.split(64), target.split(64), strict=True)
            ]
        )
    pictures = to_uint8(decoded)
    same = (features(pictures) * features(table.images)).sum(1)
    group = "face autoencoder, test faces"
    report.add(group, "mean absolute error (range -1 to 1)", float((decoded - target).abs().mean()))
    report.add(group, "perceptual distance", float(distance))
    report.add(
        group, "cosine of recognition features, original and reconstruction", float(same.mean())
    )
    rows = [images[k : k + 12] for k in (0, 12, 24) for images in (table.images, pictures)]
    contact_sheet(rows).save(out / "reconstructions.png")


def measure_voices(
    pipe: Voice2FacePipeline,
    judge: Judge,
    voices: str,
    report: Report,
    out: Path,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    limit: int | None,
) -> None:
    """What the speech encoder hears, and whether the portraits show it, on the test speakers."""
    table = load_voices(voices, "test", limit=limit)
    heard: list[Voice] = []
    rows: list[int] = []
    for row, waveform in enumerate(tqdm(table.waveforms, desc="listening", unit="clip")):
        try:
            heard.append(pipe.listen(waveform, 16_000))
            rows.append(row)
        except AudioError as error:
            logger.info("%s: %s", table.ids[row], error)
    index = np.array(rows)
    owners = [table.speaker[row] for row in rows]
    sex, age = table.sex[index], table.age[index]
    said_sex = np.array([SEXES.index(voice.evidence.sex) for voice in heard])
    said_age = np.array([AGE_DECADES.index(voice.evidence.age) for voice in heard])
    group = "speech encoder, test speakers, each clip"
    _agreement(report, group, said_sex, said_age, sex, age, owners)
    group = "speech encoder, test speakers, their clips averaged"
    people, firsts = np.unique(owners, return_index=True)
    by_speaker = _hear_speakers(pipe, heard, np.asarray(owners), people)
    _agreement(report, group, *by_speaker, sex[firsts], age[firsts], people.tolist())

    report.add(
        "speech encoder, test speakers, each clip",
        "clips too short to use",
        float(len(table) - len(rows)),
    )
    seeds = list(range(len(heard)))
    pictures = np.stack(
        [
            np.asarray(portrait.image)
            for k in tqdm(range(0, len(heard), 32), desc="portraits", unit="batch")
            for portrait in pipe.draw(
                heard[k : k + 32],
                seeds[k : k + 32],
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
            )
        ]
    )
    verdict = judge(pictures)
    _agreement(
        report, "portraits, test speakers, each clip", verdict.sex, verdict.age, sex, age, owners
    )
    _by_label("portraits, by sex and age of the speaker", report, verdict, sex, age, owners)

    firsts = np.sort(firsts)
    for count, columns in ((64, 8), (24, 8)):
        chosen = firsts[:count]
        captions = [
            f"{SEXES[sex[k]]} {AGE_DECADES[age[k]] if age[k] != UNKNOWN else ''} · seed {seeds[k]}"
            for k in chosen
        ]
        sheet = captioned_sheet(pictures[chosen], captions, columns=columns, size=128)
        sheet.save(out / f"portraits-{count}.png")


@torch.inference_mode()
def _hear_speakers(
    pipe: Voice2FacePipeline, heard: list[Voice], owners: np.ndarray, people: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sex and age decade of each speaker, from the mean embedding of the speaker's clips."""
    embeddings = torch.stack([voice.embedding for voice in heard])
    means = torch.stack([embeddings[torch.from_numpy(owners == who)].mean(0) for who in people])
    encoding = pipe.speech_encoder.describe(torch.nn.functional.normalize(means, dim=1))
    return encoding.sex_logits.argmax(1).cpu().numpy(), encoding.age_logits.argmax(1).cpu().numpy()


def _agreement(
    report: Report,
    group: str,
    said_sex: np.ndarray,
    said_age: np.ndarray,
    sex: np.ndarray,
    age: np.ndarray,
    owners: list[str],
) -> None:
    known = age != UNKNOWN
    near = within_one_decade(said_age, age)
    report.add(group, "sex", bootstrap_share(said_sex == sex, owners))
    report.add(group, "age within 10 years", bootstrap_share(near[known], _of(owners, known)))
    baseline = within_one_decade(np.full_like(age, 1), age)
    report.add(
        group,
        "age within 10 years, always answering 30-39",
        bootstrap_share(baseline[known], _of(owners, known)),
    )
    decades = np.unique(age[known])
    report.add(
        group,
        "age within 10 years, mean over decades",
        float(np.mean([near[age == decade].mean() for decade in decades])),
    )


def _by_label(
    group: str, report: Report, verdict: Any, sex: np.ndarray, age: np.ndarray, owners: list[str]
) -> None:
    for value, name in enumerate(SEXES):
        rows = sex == value
        if rows.any():
            right = verdict.sex[rows] == value
            report.add(group, f"sex, {name} speakers", bootstrap_share(right, _of(owners, rows)))
    for decade, name in enumerate(AGE_DECADES):
        rows = age == decade
        if rows.any():
            near = within_one_decade(verdict.age, age)[rows]
            report.add(
                group,
                f"age within 10 years, speakers of {name}",
                bootstrap_share(near, _of(owners, rows)),
            )


def _of(owners: Iterable[str], rows: np.ndarray) -> list[str]:
    return [owner for owner, kept in zip(owners, rows, strict=True) if kept]
