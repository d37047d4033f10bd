from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voice2face import Portraits, Voice2FacePipeline, watermark
from voice2face.cli import main
from voice2face.picture_files import side_by_side
from voice2face.watermark import (
    LARGEST_SIDE,
    MOST_LEVELS,
    SURE_SCORE,
    detect,
    embed,
    pattern,
    score,
)


@pytest.fixture(scope="module")
def marked(pipeline: Voice2FacePipeline) -> Portraits:
    speech = Path(__file__).parent.parent / "examples" / "speech" / "female.flac"
    return pipeline(speech, seed=0, num_images=4, num_inference_steps=8)


@pytest.fixture(scope="module")
def unmarked(pipeline: Voice2FacePipeline) -> Portraits:
    speech = Path(__file__).parent.parent / "examples" / "speech" / "female.flac"
    return pipeline(speech, seed=0, num_images=4, num_inference_steps=8, watermark=False)


def as_jpeg(image: Image.Image, quality: int = 80) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def halved(image: Image.Image) -> Image.Image:
    return image.resize((128, 128), Image.Resampling.LANCZOS)


def screenshot(image: Image.Image) -> Image.Image:
    part = image.crop((31, 17, 221, 213))
    return as_jpeg(part.resize((237, 245), Image.Resampling.BICUBIC), 90)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nothing": lambda image: image,
    "JPEG at quality 80": as_jpeg,
    "half the size": halved,
    "half the size, JPEG": lambda image: as_jpeg(halved(image)),
    "a crop": lambda image: image.crop((40, 25, 230, 210)),
    "a screenshot": screenshot,
}


@pytest.mark.parametrize("times", [2.2, 2.5, 4.1, 5.9])
def test_it_is_found_in_enlarged_portraits(marked: Portraits, times: float) -> None:
    for image in marked.images[:2]:
        size = (round(times * image.width),) * 2
        enlarged = as_jpeg(image.resize(size, Image.Resampling.BICUBIC))
        detection = detect(enlarged)
        assert detection.answer == "yes", detection
        assert detection.scale == pytest.approx(times, rel=0.02)


@pytest.mark.parametrize("change", CHANGES)
def test_the_watermark_survives(marked: Portraits, change: str) -> None:
    for image in marked.images:
        detection = detect(CHANGES[change](image))
        assert detection.answer == "yes", detection
        assert detection.probability > 0.95


def test_pictures_without_it_are_cleared(unmarked: Portraits) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for image in (*unmarked.images, Image.fromarray(noise), Image.new("RGB", (256, 256), "grey")):
        detection = detect(image)
        assert detection.answer == "no", detection
        assert detection.probability < 0.05


def test_it_is_found_in_pictures_of_several(marked: Portraits, unmarked: Portraits) -> None:
    assert detect(marked.grid(4)).answer == "yes"
    sheet = side_by_side(marked.images * 6, 6)
    assert max(sheet.size) > LARGEST_SIDE
    assert detect(sheet).answer == "yes"
    assert detect(side_by_side(unmarked.images * 6, 6)).answer != "yes"


def large_screen() -> Image.Image:
    rough = np.random.default_rng(0).integers(0, 255, (27, 48, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((1920, 1080), Image.Resampling.BICUBIC)


def test_a_large_screenshot_is_not_cleared() -> None:
    assert detect(large_screen()).answer == "unsure"


@pytest.mark.parametrize("times", [1.0, 1.5, 2.3, 3.5])
def test_it_is_found_somewhere_in_a_large_screenshot(marked: Portraits, times: float) -> None:
    screen = large_screen()
    size = (round(256 * times),) * 2
    screen.paste(marked.images[0].resize(size, Image.Resampling.BICUBIC), (333, 517))
    assert detect(screen).answer == "yes"


def test_it_is_found_in_a_part_of_a_long_strip(marked: Portraits) -> None:
    rough = np.random.default_rng(0).integers(0, 255, (64, 1600, 3), dtype=np.uint8)
    strip = Image.fromarray(rough).resize((6400, 256), Image.Resampling.BICUBIC)
    strip.paste(marked.images[0], (3333, 0))
    assert score(np.asarray(strip.convert("L"), np.float32)) > SURE_SCORE


@pytest.mark.parametrize(
    ("limit", "pixels"), [("MOST_PIXELS", 60_000), ("MOST_PIXELS_A_SCALE", 50_000)]
)
def test_a_picture_too_large_to_be_searched_is_not_cleared(
    limit: str, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = Image.new("RGB", (100, 120), "grey")
    assert detect(grey).answer == "no"
    monkeypatch.setattr(watermark, limit, pixels)
    detection = detect(grey)
    assert (detection.answer, detection.probability) == ("unsure", 0.5)


def test_what_is_found_in_a_picture_too_large_to_be_searched_counts(
    marked: Portraits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "SURE_SCORE", np.inf)
    monkeypatch.setattr(watermark, "MOST_PIXELS", 256 * 256)
    assert detect(marked.images[0]).answer == "yes"


def test_the_search_ends_where_it_is_sure(
    marked: Portraits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(watermark, "score", lambda part: (seen.append(part.shape), score(part))[1])
    assert detect(marked.images[0]).answer == "yes"
    assert seen == [(256, 256)]


def test_it_cannot_be_seen(marked: Portraits, unmarked: Portraits) -> None:
    for one, other in zip(marked.images, unmarked.images, strict=True):
        difference = np.asarray(one, float) - np.asarray(other, float)
        assert 0.0 < np.square(difference).mean() < 255**2 / 10**4.2, "42 dB or more"
        assert np.abs(difference).max() <= MOST_LEVELS * np.abs(pattern()).max() + 1
    assert marked[0].settings.watermark
    assert not unmarked[0].settings.watermark


def test_older_pictures_stay_marked() -> None:
    assert pattern()[0, :4] == pytest.approx([1.29698300, 1.17648014, 0.55230947, -0.13396871])
    grey = np.full((40, 96, 3), 128, np.uint8)
    tile = np.hstack([pattern(), pattern()])[:40, :96, None]
    assert np.array_equal(embed(grey), (grey + tile).round()), "on flat ground, up to its edges"
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint8)
    for picture in (np.zeros_like(grey), np.full_like(grey, 255), noise):
        levels = np.abs(embed(picture).astype(int) - picture)
        assert 0 < levels.max() <= MOST_LEVELS * np.abs(pattern()).max() + 1


def test_the_scale_is_told_and_no_kind_of_picture_matters(marked: Portraits) -> None:
    image = marked.images[0]
    assert detect(image).scale == 1.0
    assert detect(halved(image)).scale == 0.5
    for mode in ("RGBA", "L", "CMYK"):
        assert detect(image.convert(mode)).answer == "yes"


def test_any_size_can_be_marked_and_tiny_ones_are_uncertain() -> None:
    grey = np.full((40, 70, 3), 128, np.uint8)
    assert embed(grey).shape == grey.shape
    assert detect(Image.fromarray(grey)).answer == "unsure"
    assert pattern().mean() == pytest.approx(0.0, abs=1e-9)
    assert pattern().std() == pytest.approx(1.0)


def test_the_command_answers(
    marked: Portraits, unmarked: Portraits, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    yes, no = (
        marked[0].save(tmp_path / "yes.jpg", quality=80),
        unmarked[0].save(tmp_path / "no.png"),
    )
    assert main(["verify", str(yes)]) == 0
    assert capsys.readouterr().out.startswith("yes: made by voice2face with a probability of")
    assert main(["verify", str(no)]) == 1
    assert capsys.readouterr().out.startswith("no:")
    missing = tmp_path / "missing.png"
    assert main(["verify", str(missing)]) == 1
    assert "cannot be read as a picture" in capsys.readouterr().err
    assert main(["verify", "--json", str(missing), str(no), str(yes)]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["picture"] for row in told] == [str(missing), str(no), str(yes)]
    assert [row.get("answer") for row in told] == [None, "no", "yes"]
    assert told[0].keys() == {"picture", "error"}
    assert told[2].keys() == {"picture", "answer", "probability", "content_credential"}
    assert 0.9 < told[2]["probability"] <= 1.0
    assert main(["verify", str(yes), str(yes)]) == 0
    capsys.readouterr()
    assert main(["verify", str(missing), str(no), str(yes)]) == 1
    told = capsys.readouterr()
    assert "cannot be read as a picture" in told.err
    lines = [line.partition(" made by")[0] for line in told.out.splitlines()]
    assert lines == [f"{missing}:", f"{no}:", "no:", f"{yes}:", "yes:"]


def test_leaving_it_out_is_explicit(
    female_speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    face = tmp_path / "face.png"
    arguments = [str(female_speech), "-o", str(face), "--steps", "4", "-q", "--seed", "1"]
    assert main([*arguments, "--no-watermark"]) == 0
    assert main(["verify", str(face)]) == 1
    assert main(arguments) == 0
    assert main(["verify", str(face)]) == 0
