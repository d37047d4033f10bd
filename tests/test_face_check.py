"""The face check: latents without a face are drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline
from voice2face.data.face_detection import (
    LEAST_BESIDE,
    face_detected,
    times_found,
)
from voice2face.data.hidden_eyes import HIDDEN_SHARE
from voice2face.methods.method import MOST_ATTEMPTS
from voice2face.models import FaceCheck, FaceRetriever
from voice2face.pixels import to_model_range
from voice2face.training import __main__ as command
from voice2face.training.portrait_quality import EYES, MeasuredPortraits, Merits


def tiny_check(least_confidence: float = 0.0) -> FaceCheck:
    torch.manual_seed(3)
    return FaceCheck(4, 8, width=8, least_confidence=least_confidence)


def test_confidence_is_that_in_the_merit_of_which_there_is_least() -> None:
    torch.manual_seed(3)
    check, latents = FaceCheck(4, 8, width=8, merits=3), torch.randn(20, 4, 8, 8)
    merits = check.merits(latents)
    assert merits.shape == (20, 3)
    assert torch.equal(check(latents), merits.min(1).values)
    assert len(set(merits.argmin(1).tolist())) > 1
    check.raise_bars(torch.tensor([0.0, 0.5, -1.0]))
    torch.testing.assert_close(check.merits(latents), merits - torch.tensor([0.0, 0.5, -1.0]))


def checked(check: FaceCheck | None, parts: dict | None = None) -> Voice2FacePipeline:
    given = {} if check is None else {"face_check": check}
    components = tiny_components() if parts is None else parts
    return Voice2FacePipeline(**components, **given, output_size=48, name="tiny").to("cpu")


def latents_of(pipe: Voice2FacePipeline, tone: np.ndarray, count: int, **more: object) -> Tensor:
    numbers = {"sampler": "ddim", "num_inference_steps": 2}
    return pipe(tone, 16_000, num_images=count, seed=20, output_type="latent", **numbers, **more)


@pytest.mark.parametrize("parts", [tiny_components, tiny_portraitist])
def test_what_is_refused_is_drawn_again_by_the_same_generator(parts, tone: np.ndarray) -> None:
    plain = latents_of(checked(None, parts()), tone, 12)
    confidence = tiny_check()(plain).detach()
    least = float(confidence.median()) + 1e-4
    pipe = checked(tiny_check(least), parts())
    drawn = latents_of(pipe, tone, 12)
    refused = confidence < least
    assert 0 < refused.sum() < 12
    torch.testing.assert_close(drawn[~refused], plain[~refused])
    first_kept = torch.isclose(drawn[refused], plain[refused]).flatten(1).all(1)
    assert first_kept.sum() < 0.5 * refused.sum()
    assert (tiny_check()(drawn) >= least).sum() > (~refused).sum()

    rows = torch.nonzero(refused).flatten().tolist()
    assert rows != list(range(len(rows))), "each has a generator of its own"
    voice = pipe.listen(tone, 16_000).embedding[None]
    settings = pipe.settings(sampler="ddim", num_inference_steps=2)
    for row in rows:
        generator = torch.Generator().manual_seed(20 + row)
        quality = pipe.method.quality([generator], settings)
        attempts: dict[float, Tensor] = {}
        while len(attempts) < MOST_ATTEMPTS and max(attempts, default=-1e3) < least:
            again = pipe.method.draw(voice, quality, [generator], pipe.scheduler, settings).latents
            attempts[tiny_check().confidences(again)[0]] = again[0]
        torch.testing.assert_close(drawn[row], attempts[max(attempts)], atol=1e-4, rtol=1e-4)


def test_what_is_refused_is_drawn_again_for_the_same_voice() -> None:
    generator = torch.Generator().manual_seed(1)
    speech = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator), dim=1)
    pipe = checked(None)
    settings = pipe.settings(sampler="ddim", num_inference_steps=2, guidance_scale=20.0)

    def drawn(pipe: Voice2FacePipeline, speech: Tensor, seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe.method.sample(speech, generators, pipe.scheduler, settings).latents

    seeds = list(range(20, 32))
    confidence = tiny_check()(drawn(pipe, speech, seeds)).detach()
    least = float(confidence.median()) + 1e-4
    pipe = checked(tiny_check(least))
    together = drawn(pipe, speech, seeds)
    for row, seed in enumerate(seeds):
        own, other = (
            drawn(pipe, speech[k : k + 1], [seed])[0] for k in (row, (row + 1) % len(seeds))
        )
        torch.testing.assert_close(together[row], own, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(own, other, atol=1e-2, rtol=1e-2)


def test_a_picture_is_the_same_alone_and_in_a_batch(tone: np.ndarray) -> None:
    confidence = tiny_check()(latents_of(checked(None), tone, 8)).detach()
    pipe = checked(tiny_check(float(confidence.median()) + 1e-4))
    batch = latents_of(pipe, tone, 8)
    for k in (0, 3, 7):
        alone = pipe(
            tone,
            16_000,
            seed=20 + k,
            output_type="latent",
            sampler="ddim",
            num_inference_steps=2,
        )
        torch.testing.assert_close(alone[0], batch[k], atol=1e-4, rtol=1e-4)


def test_of_what_is_refused_to_the_last_the_surest_is_kept(tone: np.ndarray) -> None:
    pipe = checked(tiny_check(1e3))
    drawn = latents_of(pipe, tone, 6)
    voice = pipe.listen(tone, 16_000).embedding[None]
    settings = pipe.settings(sampler="ddim", num_inference_steps=2)
    surest = []
    for row in range(6):
        generator = torch.Generator().manual_seed(20 + row)
        quality = pipe.method.quality([generator], settings)
        attempts = torch.cat(
            [
                pipe.method.draw(voice, quality, [generator], pipe.scheduler, settings).latents
                for _ in range(MOST_ATTEMPTS)
            ]
        )
        surest.append(int(np.argmax(tiny_check().confidences(attempts))))
        torch.testing.assert_close(drawn[row], attempts[surest[-1]], atol=1e-4, rtol=1e-4)
    assert len(set(surest)) > 1


def test_attempts_end_and_the_callback_hears_of_the_first(tone: np.ndarray) -> None:
    pipe = checked(tiny_check(1e3))
    attempts, steps = [], []
    draw = pipe.method.draw

    def counted(*arguments, **more):
        attempts.append(len(arguments[2]))
        return draw(*arguments, **more)

    def note(_, step: int, __, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(step)
        return latents

    pipe.method.draw = counted
    drawn = latents_of(pipe, tone, 3, callback_on_step_end=note)
    assert attempts == [3] * MOST_ATTEMPTS
    assert steps == [0, 1]
    assert drawn.isfinite().all()


def test_what_is_drawn_again_is_asked_for_the_same_quality(tone: np.ndarray) -> None:
    components = tiny_components()
    components["denoiser"].register_to_config(good_portrait_std=(1.0,) * 6)
    pipe = checked(tiny_check(1e3), components)
    asked: list[Tensor] = []
    draw = pipe.method.draw

    def noted(speech: Tensor, quality: Tensor, *others, **more):
        asked.append(quality)
        return draw(speech, quality, *others, **more)

    pipe.method.draw = noted
    latents_of(pipe, tone, 3)
    assert len(asked) == MOST_ATTEMPTS
    for quality in asked:
        assert torch.equal(quality, asked[0])
    assert not torch.equal(asked[0][0], asked[0][1])


def test_latents_that_a_callback_keeps_are_not_overwritten(tone: np.ndarray) -> None:
    kept: list[Tensor] = []

    def keep(_, __, ___, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        kept.append(latents["latents"])
        return latents

    drawn = latents_of(checked(tiny_check(1e3)), tone, 6, callback_on_step_end=keep)
    unchecked = latents_of(checked(None), tone, 6)
    torch.testing.assert_close(kept[-1], unchecked)
    assert not torch.allclose(drawn, unchecked)


def test_a_checkpoint_keeps_its_check(tone: np.ndarray, tmp_path: Path) -> None:
    pipe = checked(tiny_check(0.25))
    again = Voice2FacePipeline.from_pretrained(pipe.save_pretrained(tmp_path / "one"), device="cpu")
    check = again.method.face_check
    assert check.config.least_confidence == 0.25
    assert not check.training
    assert torch.equal(latents_of(again, tone, 4), latents_of(pipe, tone, 4))


def test_no_face_is_found_in_an_empty_picture() -> None:
    image = np.zeros((192, 192, 3), np.uint8)
    assert times_found(image, "alt2") == 0
    assert not face_detected(image, "alt2")


def test_the_packaged_check_refuses_what_shows_no_face(
    pipeline: Voice2FacePipeline, female_speech: Path
) -> None:
    check = pipeline.method.face_check
    noise = torch.randn(1000, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    least = check.config.least_confidence
    assert np.mean(np.array(check.confidences(noise)) < least) > 0.98
    drawn = pipeline(female_speech, seed=0, num_images=16, output_type="latent")
    assert min(check.confidences(drawn)) >= least
    pictures = pipeline.decode(drawn)
    assert np.mean([times_found(picture, "alt2") > LEAST_BESIDE for picture in pictures]) == 1.0


def with_a_hand(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A portrait of 256 pixels with strokes of its own colours from below up to the mouth."""
    covered = picture.copy()
    for _ in range(4):
        column, colour = int(rng.integers(90, 170)), picture[rng.integers(40, 110), 128].tolist()
        start = (column + int(rng.integers(-60, 60)), 255)
        cv2.line(covered, start, (column, int(rng.integers(170, 200))), colour, 20)
    return covered


def test_the_packaged_check_doubts_a_misshapen_mouth(
    pipeline: Voice2FacePipeline, female_speech: Path, male_speech: Path
) -> None:
    def confidence(pictures: list[np.ndarray]) -> Tensor:
        size = pipeline.face_encoder.config.image_size
        small = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
        return pipeline.method.face_check(pipeline.face_encoder(to_model_range(np.stack(small))))

    rng = np.random.default_rng(0)
    voices = (female_speech, male_speech)
    whole = [
        np.asarray(image)
        for voice in voices
        for image in pipeline(voice, seed=0, num_images=48, watermark=False).images
    ]
    with torch.inference_mode():
        before = confidence(whole)
        after = confidence([with_a_hand(picture, rng) for picture in whole])
    assert (after < before).float().mean() > 0.85
    assert (before - after).mean() > 0.5 * before.std()


def measured_portraits(count: int, **measured: Tensor) -> MeasuredPortraits:
    nothing = torch.zeros(count)
    return MeasuredPortraits(
        nothing[:, None], **dict.fromkeys(MeasuredPortraits._fields[1:], nothing) | measured
    )


def test_as_many_are_below_the_quantile_of_each_brightness() -> None:
    generator = torch.Generator().manual_seed(0)
    brightness = torch.rand(4000, generator=generator) * 200
    times = (brightness / 10 + 10 * torch.rand(4000, generator=generator)).round()
    portraits = measured_portraits(4000, brightness=brightness, face_detections=times)
    below = Merits(portraits, 0.1)(portraits)[:, 0] < 0
    assert below.float().mean() == pytest.approx(0.1, abs=0.03)
    dark = brightness < brightness.median()
    assert below[dark].float().mean() == pytest.approx(float(below[~dark].float().mean()), abs=0.05)
    least_often = times < times.quantile(0.1)
    assert least_often[dark].sum() > 10 * least_often[~dark].sum()


def test_eyes_lack_where_they_count_as_hidden() -> None:
    shares = torch.tensor([0.0, HIDDEN_SHARE - 0.01, HIDDEN_SHARE + 0.01, 1.0])
    portraits = measured_portraits(4, dark_eyes=shares)
    shown = Merits(portraits, 0.1)(portraits)[:, EYES]
    assert (shown < 0).tolist() == [False, False, True, True]
    assert shown[2] > shown[3], "the further below, the surer it is to be refused"


def test_each_merit_is_of_what_it_is_called() -> None:
    generator = torch.Generator().manual_seed(0)
    measured = {
        name: 10 * torch.rand(4000, generator=generator) for name in MeasuredPortraits._fields[1:]
    }
    measured["dark_eyes"] /= 10
    merits = Merits(measured_portraits(4000, **measured), 0.1)
    before = merits(measured_portraits(4000, **measured))
    order = {"face_detections": 0, "dark_eyes": EYES, "mouth_distance": 2, "face_distance": 3}
    for name, column in order.items():
        worse = measured[name] - 2.0 if name == "face_detections" else measured[name] + 2.0
        after = merits(measured_portraits(4000, **measured | {name: worse.clamp(min=0.0)}))
        changed = [k for k in range(4) if not torch.equal(after[:, k], before[:, k])]
        assert changed == [column], name
        assert (after[:, column] <= before[:, column]).all()


def test_portraits_near_other_entries_are_not_taken_for_those_that_were_kept(
    tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, out = checked(None, tiny_portraitist()), tmp_path / "out"
    arguments = ["--faces", tables["faces-0"], "--voices", tables["voices-0"], "--out", out]
    arguments += ["--perceptual-weights", tables["squeezenet1_0"]]
    drawn = torch.randn(4, 4, 8, 8)
    monkeypatch.setattr("voice2face.training.face_check.portraits_of_voices", lambda *_: drawn)

    def stop(*_: object) -> None:
        raise RuntimeError("the portraits are kept")

    monkeypatch.setattr("voice2face.training.face_check.measure", stop)
    monkeypatch.setattr("voice2face.training.face_check.photographs_decoded", stop)

    def run(name: str) -> None:
        checkpoint = pipe.save_pretrained(tmp_path / name)
        command.main(list(map(str, ["face-check", *arguments, "--checkpoint", checkpoint])))

    for name in ("first", "again"):
        with pytest.raises(RuntimeError, match="the portraits are kept"):
            run(name)
    entries = pipe.retriever.entries
    for changed in ("speech", "faces", "bottoms"):
        values = getattr(entries, changed).flip(0)
        pipe.retriever = FaceRetriever(entries._replace(**{changed: values}))
        with pytest.raises(SystemExit, match=r"portraits_train.* was made of other data"):
            run(changed)


def test_the_command_trains_a_check_that_is_released(
    tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tone: np.ndarray
) -> None:
    checkpoint, out = checked(None).save_pretrained(tmp_path / "tiny"), tmp_path / "out"
    monkeypatch.setattr(
        "voice2face.training.portrait_quality.times_found",
        lambda picture, _: int(picture.mean()) % 9,
    )
    arguments = ["--faces", tables["faces-0"], "--voices", tables["voices-0"]]
    arguments += ["--checkpoint", checkpoint, "--out", out, "--width", 8, "--refused", 0.25]
    arguments += ["--refused-for-eyes", 0.4]
    arguments += ["--portraits", 12, "--held-out-portraits", 12, "--batch-size", 4]
    arguments += ["--perceptual-weights", tables["squeezenet1_0"]]

    def run(*line: object) -> None:
        command.main(list(map(str, line)))

    run("face-check", *arguments, "--max-steps", 2)
    kept = sorted(out.glob("*_train.safetensors"))
    assert [file.name for file in kept] == [
        f"{name}_train.safetensors" for name in ("portraits", "seen")
    ]
    written = [file.stat().st_mtime_ns for file in kept]
    run("face-check", *arguments, "--max-steps", 3, "--resume")
    assert [file.stat().st_mtime_ns for file in kept] == written
    rows = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    learnt, held_out = (
        load_file(out / f"portraits_{split}.safetensors")["values"]
        for split in ("train", "validation")
    )
    nearest = torch.cdist(held_out.flatten(1), learnt.flatten(1)).min(1).values
    assert float(nearest.min()) > 0.5 * float(nearest.mean()), "no noise is used for both"
    assert (out / "portraits.png").is_file()

    parts = ["--collaborative", checkpoint, "--diffusion", checkpoint, "--face-check", out]
    released = tmp_path / "released"
    run("release", *parts, "--to", released, "--manifest", tmp_path / "manifest.json")
    assert set(json.loads((out / "learnt_with.json").read_text())["networks"]) == {"face_encoder"}
    pipe = Voice2FacePipeline.from_pretrained(released, device="cpu")
    trained = FaceCheck.from_pretrained(out / "face_check")

    stricter_bars = ("--refused", 0.5, "--refused-for-eyes", 0.6)
    run("face-check", *arguments, "--max-steps", 3, "--resume", *stricter_bars)
    stricter = FaceCheck.from_pretrained(out / "face_check")
    lower = trained.merits(held_out) - stricter.merits(held_out)
    torch.testing.assert_close(lower, lower[:1].expand_as(lower), atol=1e-5, rtol=1e-5)
    assert (lower[0] > 0).all()
    for check, share, of_eyes in ((trained, 0.25, 0.4), (stricter, 0.5, 0.6)):
        refused = (check.merits(held_out) < 0).float().mean(0)
        assert refused[[0, 2, 3]].tolist() == pytest.approx([share] * 3, abs=0.1)
        assert refused[EYES] == pytest.approx(of_eyes, abs=0.1)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(pipe.method.face_check.state_dict()[name], tensor.half().float())
    assert latents_of(pipe, tone, 2).isfinite().all()

    started = tmp_path / "started"
    again = [*arguments, "--out", started, "--start-from", out, "--refused", 0.5]
    run("face-check", *again, "--max-steps", 1, "--learning-rate", 1e-9)
    going_on = FaceCheck.from_pretrained(started / "face_check")
    for name, tensor in trained.state_dict().items():
        if not name.endswith("bias"):
            torch.testing.assert_close(going_on.state_dict()[name], tensor, atol=1e-5, rtol=1e-5)
    others = {"latents of another shape": (8, 8, 8, 0.0, 4), "tell 4 merits": (4, 8, 8, 0.0, 1)}
    unused = tmp_path / "unused"
    for number, (message, sizes) in enumerate(others.items()):
        other = tmp_path / f"other-{number}"
        FaceCheck(*sizes).save_pretrained(other / "face_check")
        with pytest.raises(SystemExit, match=message):
            run("face-check", *arguments, "--out", unused, "--start-from", other)
        assert list(unused.iterdir()) == [], "no portrait is drawn before"
