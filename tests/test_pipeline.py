from __future__ import annotations

import copy
import gc
import inspect
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image
from torch import Tensor

from tests.conftest import preset_of, tiny_components, tiny_portraitist
from voice2face import Evidence, Portraits, Voice2FacePipeline, load_audio
from voice2face.call_settings import DrawSettings
from voice2face.devices import (
    AtOnce,
    at_once,
    choose_device,
    constant_on,
    default_dtype,
    memory_errors,
    memory_format,
)
from voice2face.errors import (
    AudioFormatError,
    DeviceError,
    NoSpeechError,
    OutputError,
    PictureError,
    SettingError,
)
from voice2face.listening import Voice, speech_of
from voice2face.models import FaceCheck, SpeakerEncoder
from voice2face.models.spectrograms import hann_window, mel_filters
from voice2face.picture_files import SYNTHETIC_SOURCE, side_by_side
from voice2face.prefetch import READ_AHEAD, READING_THREADS, read_ahead
from voice2face.seeds import choose_seeds, seed_of_name
from voice2face.settings import (
    DEFAULT_PRESET,
    DEFAULT_VARIETY,
    PRESETS,
)
from voice2face.step_callback import StepCallback
from voice2face.whole_files import replace_file

ROOT = Path(__file__).parents[1]


@pytest.fixture
def portraits(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> Portraits:
    return tiny_pipeline(tone, 16_000, num_images=3, seed=7, num_inference_steps=2)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def with_speaker_encoder() -> dict[str, Any]:
    components = tiny_components("v_prediction")
    encoder = SpeakerEncoder(mels=8, hidden_size=8, layers=1, speaker_dim=8, embedding_dim=16)
    return components | {"speech_encoder": encoder}


def test_result_holds_pictures_seeds_evidence_and_settings(portraits: Portraits) -> None:
    assert portraits.seeds == [7, 8, 9]
    assert [image.size for image in portraits.images] == [(48, 48)] * 3
    evidence = portraits.evidence
    assert 2.5 < evidence.speech_seconds < 3.1
    assert evidence.windows == 2
    assert sum(evidence.age_probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert 0.0 <= evidence.male_probability <= 1.0
    ages = {"20-29": 0.2, "30-39": 0.5, "40-49": 0.3}
    told = replace(evidence, male_probability=0.6, age_probabilities=ages)
    assert (told.sex, told.age) == ("male", "30-39")
    assert replace(told, male_probability=0.4).sex == "female"
    assert portraits[0].settings.checkpoint == "tiny"
    assert len(portraits[1:]) == 2
    assert portraits.grid(2).size == (96, 96)


def test_a_pipeline_shows_what_it_is(tiny_pipeline: Voice2FacePipeline) -> None:
    assert repr(tiny_pipeline) == "<Voice2FacePipeline tiny: scldm on cpu, float32>"
    half = copy.deepcopy(tiny_pipeline).half()
    assert repr(half) == "<Voice2FacePipeline tiny: scldm on cpu, float16>"


def test_evidence_is_told_to_programs_whole(portraits: Portraits) -> None:
    evidence = portraits.evidence
    told = evidence.as_dict()
    assert told.keys() == {field.name for field in fields(Evidence)} | {"sex", "age"}
    assert (told["sex"], told["age"]) == (evidence.sex, evidence.age)
    assert told["age_probabilities"] == evidence.age_probabilities
    assert json.loads(json.dumps(told)) == told


def test_same_seed_same_bytes(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    one, other = (tiny_pipeline(tone, 16_000, seed=3, num_inference_steps=3) for _ in range(2))
    assert one.images[0].tobytes() == other.images[0].tobytes()
    different = tiny_pipeline(tone, 16_000, seed=4, num_inference_steps=3)
    assert one.images[0].tobytes() != different.images[0].tobytes()


@pytest.mark.parametrize(
    ("sampler", "eta"), [("unipc", 0.0), ("dpm++", 0.0), ("ddim", 0.0), ("ddim", 1.0)]
)
def test_a_picture_alone_is_the_picture_in_a_batch(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, sampler: str, eta: float
) -> None:
    settings = {"num_inference_steps": 4, "sampler": sampler, "eta": eta}
    batch = tiny_pipeline(tone, 16_000, num_images=4, seed=7, **settings)
    for portrait in batch:
        alone = tiny_pipeline(tone, 16_000, seed=portrait.seed, **settings)
        assert np.abs(pixels(alone.images[0]) - pixels(portrait.image)).max() <= 1


def test_generator_draws_the_seed(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    draws = [
        tiny_pipeline(
            tone, 16_000, generator=torch.Generator().manual_seed(5), num_inference_steps=1
        ).seeds
        for _ in range(2)
    ]
    assert draws[0] == draws[1]
    other = torch.Generator().manual_seed(6)
    assert tiny_pipeline(tone, 16_000, generator=other, num_inference_steps=1).seeds != draws[0]


def test_without_a_seed_pictures_differ(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    seeds = {tiny_pipeline(tone, 16_000, num_inference_steps=1).seeds[0] for _ in range(3)}
    assert len(seeds) == 3


def test_output_types_show_the_same_picture(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    def make(output_type: str):
        return tiny_pipeline(
            tone, 16_000, seed=1, num_images=2, num_inference_steps=2, output_type=output_type
        )

    array, tensor, latent = make("np"), make("pt"), make("latent")
    assert array.shape == (2, 48, 48, 3)
    assert tensor.shape == (2, 3, 48, 48)
    assert latent.shape == (2, 4, 8, 8)
    np.testing.assert_allclose(tensor.permute(0, 2, 3, 1).numpy(), array)
    for picture, image in zip(array, make("pil").images, strict=True):
        np.testing.assert_array_equal(np.round(picture * 255), pixels(image))


def test_a_callback_may_return_nothing(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    def look(
        _pipe: Voice2FacePipeline, step: int, _timestep: int, _state: dict[str, Tensor]
    ) -> None:
        seen.append(step)

    seen: list[int] = []
    told: StepCallback = look
    settings = {"seed": 3, "num_inference_steps": 2, "output_type": "latent"}
    watched = tiny_pipeline(tone, 16_000, callback_on_step_end=told, **settings)
    assert seen == [0, 1]
    assert torch.equal(watched, tiny_pipeline(tone, 16_000, **settings))


def test_callback_sees_the_latents_and_may_change_them(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    steps = []

    def callback(pipe, step, timestep, state):
        steps.append((pipe is tiny_pipeline, step, timestep, tuple(state["latents"].shape)))
        return {"latents": torch.zeros_like(state["latents"])} if step == 2 else {}

    found = tiny_pipeline(
        tone,
        16_000,
        num_images=2,
        num_inference_steps=3,
        callback_on_step_end=callback,
        output_type="latent",
    )
    assert steps == [(True, k, t, (2, 4, 8, 8)) for k, t in enumerate((999, 665, 332))]
    assert not found.any()


@pytest.mark.parametrize(
    ("callback", "advice"),
    [
        (lambda *state: state[3]["latents"], "returns the dictionary that it was given"),
        (lambda *state: {"latents": state[3]["latents"][:, :2]}, r"of the shape .*\(1, 4, 8, 8\)"),
        (lambda *_: {"latents": None}, "of the shape that it was given"),
        ("each step", "is a function"),
    ],
)
def test_a_callback_is_told_what_to_return(
    callback: Any, advice: str, tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    with pytest.raises(SettingError, match=advice):
        tiny_pipeline(tone, 16_000, num_inference_steps=2, callback_on_step_end=callback)


def test_what_is_told_of_steps_drawn_again_is_a_function(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    voice = tiny_pipeline.listen(tone, 16_000)
    for draw in (
        lambda **given: tiny_pipeline.draw([voice], [7], **given),
        lambda **given: tiny_pipeline(tone, 16_000, **given),
    ):
        with pytest.raises(SettingError, match="on_redraw_step is a function"):
            draw(on_redraw_step="again")


@pytest.mark.parametrize("output_type", ["pil", "latent"])
def test_a_call_is_ended_by_what_is_told_of_its_steps(tone: np.ndarray, output_type: str) -> None:
    refuses_all = FaceCheck(4, 8, width=8, least_confidence=1e3)
    pipe = Voice2FacePipeline(**tiny_components(), face_check=refuses_all).to("cpu")
    asked = {"num_inference_steps": 2, "output_type": output_type}
    told, drawn_again = [], []
    pipe(
        tone,
        16_000,
        **asked,
        callback_on_step_end=lambda *_: told.append(1),
        on_redraw_step=lambda: drawn_again.append(1),
    )
    assert (len(told), len(drawn_again)) == (2, 6), "one attempt, and three more"
    steps = []

    def leave(*_: object) -> None:
        steps.append(1)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        pipe(tone, 16_000, **asked, on_redraw_step=leave)
    with pytest.raises(TimeoutError):
        pipe(tone, 16_000, **asked, callback_on_step_end=leave)
    assert len(steps) == 2


def test_decode_says_which_latents_it_takes(tiny_pipeline: Voice2FacePipeline) -> None:
    for latents in (
        torch.zeros(4, 8, 8),
        np.zeros((1, 4, 8, 8), np.float32),
        torch.zeros(1, 4, 64, 64),
        torch.zeros(1, 16, 8, 8),
        torch.tensor(3),
        None,
    ):
        with pytest.raises(SettingError, match=r"size, size\), .* here \(images, 4, 8, 8\)"):
            tiny_pipeline.decode(latents)
    assert tiny_pipeline.decode(torch.zeros(2, 4, 8, 8, dtype=torch.float64)).shape[0] == 2


def test_encode_says_which_pictures_it_takes(
    tiny_pipeline: Voice2FacePipeline, portraits: Portraits, tmp_path: Path
) -> None:
    grey = portraits[0].image.convert("L")
    assert torch.equal(tiny_pipeline.encode([grey]), tiny_pipeline.encode([grey.convert("RGB")]))
    for faces in (None, 3, "face.png", [None], [np.zeros((8, 8, 3), np.uint8)], []):
        with pytest.raises(SettingError, match=r"encode takes a list of pictures|no faces"):
            tiny_pipeline.encode(faces)
    half = tmp_path / "half.jpg"
    portraits[0].save(half)
    half.write_bytes(half.read_bytes()[:-200])
    with Image.open(half) as face, pytest.raises(PictureError, match=r"half\.jpg cannot be read"):
        tiny_pipeline.encode([face])


def test_draw_says_what_it_takes(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    voice = tiny_pipeline.listen(tone, 16_000)
    for voices in ((one for one in [voice]), None, 3, np.array(3), voice):
        with pytest.raises(SettingError, match="draw takes a list of voices"):
            tiny_pipeline.draw(voices, [1])
    for seeds in ((one for one in [1]), None, 3, np.array(3), torch.tensor(3), "1"):
        with pytest.raises(SettingError, match="draw takes a list of seeds"):
            tiny_pipeline.draw([voice], seeds)
    of_others = (voice.embedding[:-1], voice.embedding[None], voice.embedding.numpy(), None)
    for embedding in of_others:
        other = voice._replace(embedding=embedding)
        with pytest.raises(SettingError, match="a tensor of 16 numbers; listen with this pipeline"):
            tiny_pipeline.draw([voice, other], [1, 2])
    for factor in (0.0, float("nan"), float("inf")):
        other = voice._replace(embedding=voice.embedding * factor)
        with pytest.raises(SettingError, match="embedding is NaN, infinite or zero"):
            tiny_pipeline.draw([voice, other], [1, 2])
    assert tiny_pipeline.draw((voice,), np.array([5]), num_inference_steps=1).seeds == [5]


def test_voices_are_equal_where_they_were_heard_alike(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    voice, again, other = (
        tiny_pipeline.listen(samples, 16_000) for samples in (tone, tone, tone[::-1])
    )
    assert voice == again
    assert (voice != again) is False
    assert again in [other, voice]
    assert voice not in [other]
    assert voice != other
    assert voice != voice._replace(embedding=other.embedding)
    assert voice != tuple(voice)


@pytest.mark.parametrize("name", ["preset", "sampler"])
@pytest.mark.parametrize("value", [["fast"], {"ddim"}, np.array(["fast", "ddim"]), 3])
def test_names_are_texts(tiny_pipeline: Voice2FacePipeline, name: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"{name} is "):
        tiny_pipeline.settings(**{name: value})
    with pytest.raises(SettingError, match="guidance_scale is 0 to 20"):
        tiny_pipeline.settings(guidance_scale=np.array([1.0, 2.0]))


def test_a_misspelt_setting_is_named_by_its_call(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    voice = tiny_pipeline.listen(tone, 16_000)
    with pytest.raises(TypeError, match=r"settings\(\) got .* 'guidence'"):
        tiny_pipeline.settings(guidence=2.0)
    with pytest.raises(TypeError, match=r"^map\(\) got .* 'num_images'; .* by preset, num_inf"):
        tiny_pipeline.map([], num_images=3)
    with pytest.raises(TypeError, match=r"^draw\(\) got .* 'output_type'; .* by preset, num_inf"):
        tiny_pipeline.draw([voice], [1], output_type="np")
    known = inspect.signature(tiny_pipeline.settings).parameters
    assert tuple(DrawSettings.__annotations__) == tuple(known)


def test_map_streams_in_order(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    recordings = ((tone[: 20_000 + 4_000 * k], 16_000) for k in range(5))
    stream = tiny_pipeline.map(
        recordings, batch_size=2, seed=1, num_inference_steps=2, progress=False
    )
    first = next(stream)
    rest = list(stream)
    seconds = [portrait.evidence.speech_seconds for portrait in (first, *rest)]
    assert seconds == sorted(set(seconds)), "each is of its own recording"
    assert len(seconds) == 5
    assert [portrait.seed for portrait in (first, *rest)] == [1, 2, 3, 4, 5]
    alone = tiny_pipeline(tone[:36_000], 16_000, seed=5, num_inference_steps=2)
    assert np.abs(pixels(alone.images[0]) - pixels(rest[-1].image)).max() <= 1


def test_map_holds_few_recordings(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    taken: list[int] = []

    def recordings() -> Iterator[tuple[np.ndarray, int]]:
        for number in range(40):
            taken.append(number)
            yield tone, 16_000

    made = tiny_pipeline.map(recordings(), batch_size=2, num_inference_steps=1, progress=False)
    for number, _ in enumerate(made):
        batch = number // 2
        assert len(taken) <= 2 * (batch + 1) + READ_AHEAD
    assert taken == list(range(40))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_nobody_waits_for_what_is_read_in_vain() -> None:
    go_on, begun, others = threading.Event(), [], set(threading.enumerate())

    def read(item: int) -> bool:
        begun.append(item)
        return item == 0 or go_on.wait(20)

    results = read_ahead(read, range(9))
    assert next(results)
    readers = set(threading.enumerate()) - others
    began = time.monotonic()
    del results
    assert time.monotonic() - began < 10
    go_on.set()
    for reader in readers:
        reader.join()
    assert len(begun) <= 1 + READING_THREADS, "nothing else is read"


def test_map_hands_errors_back_in_their_place(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    good, silent = (tone, 16_000), (np.zeros(32_000, np.float32), 16_000)
    recordings = [good, silent, "no-such.wav", good, io.BytesIO(b"no audio")]
    settings = {"batch_size": 2, "seed": 3, "num_inference_steps": 1, "progress": False}
    results = list(tiny_pipeline.map(recordings, on_error="return", **settings))
    kinds = [type(result).__name__ for result in results]
    assert kinds == [
        *("Portrait", "NoSpeechError", "AudioNotFoundError", "Portrait", "AudioDecodeError"),
    ]
    assert [results[0].seed, results[3].seed] == [3, 6], "those that fail have a seed, too"
    with pytest.raises(NoSpeechError):
        list(tiny_pipeline.map(recordings, **settings))
    settings["on_error"] = "return"
    for names in (np.array(["no-such.wav"]), np.array([Path("no-such.wav")])):
        (error,) = tiny_pipeline.map(names, **settings)
        assert "no-such.wav does not exist" in str(error)
    with pytest.raises(SettingError, match="on_error is raise or return"):
        tiny_pipeline.map([], on_error="ignore")


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_map_draws_what_came_before_an_error(
    batch_size: int, tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    def recordings() -> Iterator[tuple[np.ndarray, int]]:
        yield from [(tone, 16_000)] * 3
        raise KeyError("database")

    silent = (np.zeros(32_000, np.float32), 16_000)
    for several, error in (
        (recordings(), KeyError),
        ([*[(tone, 16_000)] * 3, silent, silent], NoSpeechError),
    ):
        drawn = tiny_pipeline.map(
            several, batch_size=batch_size, seed=7, num_inference_steps=1, progress=False
        )
        assert [portrait.seed for portrait in islice(drawn, 3)] == [7, 8, 9]
        with pytest.raises(error):
            next(drawn)


def test_map_takes_buffers_and_files_that_are_used_again(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    lengths = [20_000 + 4_000 * k for k in range(6)]
    samples, coded = np.zeros(48_000, np.float32), io.BytesIO()
    tensor = torch.from_numpy(np.zeros_like(samples))

    Pair = namedtuple("Pair", ["samples", "rate"])
    sf.write(coded, samples, 16_000, format="WAV", subtype="FLOAT")
    buffer = bytearray(coded.getvalue())

    def fill(length: int) -> None:
        samples[:] = 0
        samples[:length] = tone[:length]
        tensor.copy_(torch.from_numpy(samples))
        coded.seek(0)
        sf.write(coded, samples, 16_000, format="WAV", subtype="FLOAT")
        buffer[:] = coded.getvalue()

    def closing() -> Iterator[io.BytesIO]:
        for length in lengths:
            fill(length)
            with io.BytesIO(coded.getvalue()) as file:
                yield file

    def reusing(recording: Any) -> Iterator[Any]:
        for length in lengths:
            fill(length)
            yield recording

    settings = {"batch_size": 2, "num_inference_steps": 1, "progress": False}
    expected: list[float] = []
    for recordings in (
        closing(),
        reusing((samples, 16_000)),
        reusing((16_000, tensor)),
        reusing({"array": samples, "sampling_rate": 16_000}),
        reusing(([samples], 16_000)),
        reusing(Pair(samples, 16_000)),
        reusing(coded),
        reusing(buffer),
        reusing(memoryview(buffer)),
    ):
        drawn = list(tiny_pipeline.map(recordings, **settings))
        seconds = [portrait.evidence.speech_seconds for portrait in drawn]
        expected = expected or seconds
        assert seconds == expected == sorted(set(seconds))
    voice, speech = tiny_pipeline.listen(tone, 16_000), speech_of((tone, 16_000))
    (portrait,) = tiny_pipeline.map([speech], seed=3, **settings)
    assert portrait.evidence == voice.evidence
    with pytest.raises(AudioFormatError, match="leave sample_rate out"):
        tiny_pipeline.listen(speech, 8_000)


def test_errors_that_map_hands_back_hold_no_recordings(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent.wav"
    sf.write(silent, np.zeros(32_000), 16_000)
    loaded: list[weakref.ref[np.ndarray]] = []

    def remember(*source: Any) -> np.ndarray:
        waveform = load_audio(*source)
        loaded.append(weakref.ref(waveform))
        return waveform

    monkeypatch.setattr("voice2face.listening.load_audio", remember)
    results = list(tiny_pipeline.map([silent] * 6, on_error="return", progress=False))
    gc.collect()
    assert [str(error) for error in results] == [str(results[0])] * 6
    assert [waveform() is None for waveform in loaded] == [True] * 6


def test_map_takes_a_seed_for_each(tiny_pipeline: Voice2FacePipeline, tone: np.ndarray) -> None:
    recordings, settings = [(tone, 16_000)] * 3, {"num_inference_steps": 1, "progress": False}
    one, other, again = tiny_pipeline.map(recordings, seed=iter([7, 2, 7]), **settings)
    assert [one.seed, other.seed, again.seed] == [7, 2, 7]
    assert np.abs(pixels(one.image) - pixels(again.image)).max() <= 1
    assert np.abs(pixels(one.image) - pixels(other.image)).max() > 1
    drawn = [portrait.seed for portrait in tiny_pipeline.map(recordings, **settings)]
    assert len(set(drawn)) == 3, "at random"
    last = 2**63 - 1
    stream = tiny_pipeline.map(iter(recordings), seed=last, batch_size=1, **settings)
    assert next(stream).seed == last
    with pytest.raises(SettingError, match=r"seed is a whole number from 0 to 2\*\*63 - 1, not"):
        next(stream)
    for seed in (torch.tensor(3), np.array(3), b"12", "12"):
        with pytest.raises(SettingError, match="seed is a whole number"):
            tiny_pipeline.map(recordings, seed=seed, **settings)
    with pytest.raises(SettingError, match="fewer seeds than recordings"):
        list(tiny_pipeline.map(recordings, seed=[1, 2], **settings))
    with pytest.raises(SettingError, match="seed is a whole number"):
        list(tiny_pipeline.map(recordings, seed=[1, "two", 3], **settings))
    with pytest.raises(SettingError, match=r"from 0 to 2\*\*63 - 3"):
        tiny_pipeline.map(recordings, seed=2**63 - 2, **settings)


def test_a_name_has_the_same_seed_in_every_run() -> None:
    assert seed_of_name("female/0.flac", seed=0) == 251081629
    assert seed_of_name(os.fsdecode(b"caf\xe9.wav"), seed=0) < 2**32


def test_saving_and_loading_gives_the_same_pictures(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, tmp_path: Path
) -> None:
    folder = tiny_pipeline.save_pretrained(tmp_path / "a" / "new" / "checkpoint")
    tiny_pipeline.save_pretrained(folder)
    again = Voice2FacePipeline.from_pretrained(folder, device="cpu")
    before, after = (
        pipe(tone, 16_000, seed=2, num_inference_steps=3).images[0].tobytes()
        for pipe in (tiny_pipeline, again)
    )
    assert before == after
    assert again.output_size == 48
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
def test_files_say_that_they_are_synthetic(
    portraits: Portraits, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = portraits[0].save(f"~/face{suffix}")
    assert path.parent == tmp_path
    with Image.open(path) as image:
        assert image.size == (48, 48)
        marks = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
        marks = marks if isinstance(marks, str) else marks.decode()
    assert "digitalsourcetype/trainedAlgorithmicMedia" in marks
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_png_carries_seed_and_settings(portraits: Portraits, tmp_path: Path) -> None:
    with Image.open(portraits[2].save(tmp_path / "face.png")) as image:
        assert image.info["voice2face:seed"] == "9"
        assert image.info["voice2face:num_inference_steps"] == "2"
        assert "shows nobody" in image.info["Description"]


def test_several_pictures_are_numbered(portraits: Portraits, tmp_path: Path) -> None:
    paths = portraits.save(tmp_path / "face.png")
    assert [path.name for path in paths] == ["face-1.png", "face-2.png", "face-3.png"]
    assert all(path.is_file() for path in paths)


def test_several_pictures_are_compressed_as_one(portraits: Portraits, tmp_path: Path) -> None:
    fine, coarse = (
        portraits.save(tmp_path / f"{quality}.jpg", quality=quality) for quality in (90, 10)
    )
    for one, other in zip(fine, coarse, strict=True):
        assert one.stat().st_size > other.stat().st_size
    assert portraits.save_grid(tmp_path / "all.jpg", quality=10).stat().st_size < sum(
        path.stat().st_size for path in fine
    )


def test_png_is_what_is_saved(portraits: Portraits, tmp_path: Path) -> None:
    assert portraits[1].save(tmp_path / "face.png").read_bytes() == portraits[1].png()


@pytest.mark.parametrize("name", ["png", "jpg", "jpeg", "webp", "WEBP"])
def test_what_is_encoded_is_what_is_saved(portraits: Portraits, tmp_path: Path, name: str) -> None:
    saved = portraits[1].save(tmp_path / f"face.{name}", quality=70)
    data = portraits[1].encode(name, quality=70)
    assert saved.read_bytes() == data
    with Image.open(io.BytesIO(data)) as image:
        marks = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    assert SYNTHETIC_SOURCE.encode() in marks


@pytest.mark.parametrize("name", ["gif", "", ".png", "png/", None])
def test_other_formats_are_not_encoded(portraits: Portraits, name: str | None) -> None:
    with pytest.raises(SettingError, match="format is one of png, jpg, jpeg, webp, not"):
        portraits[0].encode(name)


def test_saving_to_what_is_no_path_says_how_to_get_bytes(portraits: Portraits) -> None:
    for save in (
        portraits[0].save,
        portraits.save,
        portraits.save_grid,
        portraits.save_mean_face,
    ):
        with pytest.raises(OutputError, match=r"not to a BytesIO; a portrait's encode\(\) gives"):
            save(io.BytesIO())


def test_pictures_can_be_decoded_while_they_are_drawn(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    seen = []

    def look(pipe: Voice2FacePipeline, step: int, _: int, state: dict) -> dict:
        seen.append((step, pipe.decode(state["latents"])))
        return state

    voice = tiny_pipeline.listen(tone, 16_000)
    drawn = tiny_pipeline.draw(
        [voice] * 2, [3, 4], num_inference_steps=3, callback_on_step_end=look
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen[0][1].shape == (2, 48, 48, 3)
    for picture, image in zip(seen[-1][1], drawn.images, strict=True):
        assert np.array_equal(picture, np.asarray(image)), "the last step's is the portrait"


def test_guidance_is_reused_between_its_passes(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    def draw(**settings: object) -> np.ndarray:
        chosen = {"num_inference_steps": 12, "guidance_scale": 3.0, "guidance_every": 1} | settings
        return pixels(tiny_pipeline(tone, 16_000, seed=3, **chosen)[0].image)

    every_step, reused = draw(), draw(guidance_every=2)
    off = np.abs(reused - every_step).mean()
    assert 0.0 < off < np.abs(draw(guidance_scale=1.0) - every_step).mean()
    unguided = draw(guidance_scale=1.0, guidance_every=2)
    assert np.array_equal(unguided, draw(guidance_scale=1.0))


def test_the_steps_between_look_with_the_voice_alone(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    rows: list[int] = []
    denoiser = tiny_pipeline.method.parts()["denoiser"]
    hook = denoiser.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    tiny_pipeline(tone, 16_000, num_inference_steps=5, guidance_every=2)
    tiny_pipeline(tone, 16_000, num_inference_steps=2, guidance_scale=1.0)
    hook.remove()
    assert rows == [2, 1, 2, 1, 2, 1, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_sampler_steps_and_guidance(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, name: str
) -> None:
    by_name = tiny_pipeline(tone, 16_000, seed=3, preset=name)
    settings = tiny_pipeline.settings(name)
    spelt_out = tiny_pipeline(tone, 16_000, seed=3, **preset_of(settings)._asdict())
    assert by_name[0].image.tobytes() == spelt_out[0].image.tobytes()
    assert by_name[0].settings == spelt_out[0].settings == settings
    other = tiny_pipeline(tone, 16_000, seed=3, preset=name, num_inference_steps=2)[0].settings
    assert (other.sampler, other.num_inference_steps) == (settings.sampler, 2)
    if name == DEFAULT_PRESET:
        assert tiny_pipeline(tone, 16_000, seed=3)[0].settings == settings


@pytest.mark.parametrize("parts", [tiny_components, tiny_portraitist])
def test_variety_is_of_the_first_noise_and_of_the_light(parts, tone: np.ndarray) -> None:
    pipe = Voice2FacePipeline(**parts(), output_size=48, name="tiny").to("cpu")
    denoisers = pipe.method.denoisers().values()
    shown: list[tuple[Tensor, Tensor]] = []
    for denoiser in denoisers:
        denoiser.register_to_config(good_portrait=[1.0] * 6, good_portrait_std=[0.5] * 6)
        denoiser.register_forward_pre_hook(
            lambda _, inputs: shown.append((inputs[0][0, :4], inputs[2].numbers[0]))
        )

    def first_looks(**settings: float) -> list[tuple[Tensor, Tensor]]:
        shown.clear()
        pipe(tone, 16_000, seed=3, num_inference_steps=1, guidance_scale=1.0, **settings)
        assert len(shown) == pipe.method.stages
        return list(shown)

    full, less, none = (first_looks(variety=variety) for variety in (1.0, 0.5, 0.0))
    prior = pipe.method.parts()["face_prior"]() if "face_prior" in pipe.method.parts() else 0.0
    for of_full, of_less, of_none in zip(full, less, none, strict=True):
        torch.testing.assert_close(of_less[0] - prior, 0.95 * (of_full[0] - prior))
        torch.testing.assert_close(of_none[0] - prior, 0.9 * (of_full[0] - prior))
        torch.testing.assert_close(of_less[1] - of_none[1], 0.5 * (of_full[1] - of_none[1]))
        assert not torch.equal(of_full[1], of_none[1])
    assert torch.equal(first_looks()[0][0], first_looks(variety=DEFAULT_VARIETY)[0][0])
    portrait = pipe(tone, 16_000, seed=3, num_inference_steps=1)[0]
    assert portrait.settings.variety == DEFAULT_VARIETY


SETTINGS = {
    "preset is fast, balanced, best, not 'slow'": {"preset": "slow"},
    "sampler is ddim, dpm\\+\\+, unipc, distilled, not 'euler'": {"sampler": "euler"},
    "eta is of DDIM; with it, say sampler='ddim'": {"eta": 0.5, "sampler": "dpm++"},
    "num_inference_steps is 1 to 1000": {"num_inference_steps": 0},
    "num_inference_steps is 1 to 1000, not 2.5": {"num_inference_steps": 2.5},
    "num_inference_steps is 1 to 1000, not 1001": {"num_inference_steps": 1001},
    "num_images is 1 to 1024": {"num_images": 0},
    "guidance_scale is 0 to 20": {"guidance_scale": -1.0},
    "guidance_scale is 0 to 20, not nan": {"guidance_scale": float("nan")},
    "guidance_scale is 0 to 20, not 10000": {"guidance_scale": 10**400},
    "guidance_every is 1 to 1000": {"guidance_every": 0},
    "eta is 0 to 1": {"eta": 2.0},
    "variety is 0 to 1, not 1.5": {"variety": 1.5},
    "variety is 0 to 1, not nan": {"variety": float("nan")},
    "variety is 0 to 1, not None": {"variety": None},
    "variety is 0 to 1, not True": {"variety": True},
    "guidance_scale is 0 to 20, not '2'": {"guidance_scale": "2"},
    "seed is a whole number": {"seed": -1},
    "give a seed or a generator": {"seed": 1, "generator": torch.Generator()},
    "generator is one torch.Generator": {"generator": [torch.Generator()]},
    "output_type is pil, np, pt or latent": {"output_type": "jpeg"},
}


@pytest.mark.parametrize("message", SETTINGS)
def test_settings_out_of_range_are_refused(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        tiny_pipeline(tone, 16_000, **SETTINGS[message])


def test_unknown_arguments_are_refused(tiny_pipeline: Voice2FacePipeline) -> None:
    with pytest.raises(TypeError, match="revison"):
        Voice2FacePipeline.from_pretrained(revison="main")
    with pytest.raises(TypeError, match="num_step"):
        tiny_pipeline("talk.wav", num_step=3)
    with pytest.raises(TypeError, match="num_step"):
        tiny_pipeline.map(["talk.wav"], num_step=3)


def test_silence_is_refused(tiny_pipeline: Voice2FacePipeline) -> None:
    with pytest.raises(NoSpeechError, match="silent"):
        tiny_pipeline(np.zeros(99_999), 16_000)


def test_one_thing_for_several_is_refused(tiny_pipeline: Voice2FacePipeline, tone) -> None:
    pair = {"array": tone, "sampling_rate": 16_000}
    pairs = [(tone, 16_000), (16_000, tone), pair]
    files = (b"RIFF", bytearray(b"RIFF"), memoryview(b"RIFF"), io.BytesIO(b"RIFF"))
    samples = (tone, tone.astype(np.int16), torch.from_numpy(tone), speech_of((tone, 16_000)))
    for one in ("talk.wav", Path("talk.wav"), None, *files, *samples, *pairs):
        with pytest.raises(SettingError, match="map takes several recordings"):
            tiny_pipeline.map(one)
    with pytest.raises(SettingError, match=r"the column that holds them: table\['path'\]"):
        tiny_pipeline.map(pa.table({"path": ["talk.wav"]}))
    voice = tiny_pipeline.listen(tone, 16_000)
    with pytest.raises(SettingError, match=r"pipe\.draw\(\[voice\], \[seed\]\)"):
        tiny_pipeline.map(voice)
    with pytest.raises(AudioFormatError, match=r"use pipe\.draw\(\[voice\], \[seed\]\)"):
        tiny_pipeline(voice)
    (error,) = tiny_pipeline.map([voice], on_error="return", progress=False)
    assert isinstance(error, AudioFormatError)
    assert "use pipe.draw" in str(error)
    with pytest.raises(SettingError, match=r"give \[voice\]"):
        tiny_pipeline.draw(tiny_pipeline.listen(tone, 16_000), [7])
    with pytest.raises(SettingError, match=r"give \[seed\]"):
        tiny_pipeline.draw([tiny_pipeline.listen(tone, 16_000)], 7)
    with pytest.raises(SettingError, match="what listen returns"):
        tiny_pipeline.draw(["talk.wav"], [7])
    for face in (Image.new("RGB", (9, 9)), [tone]):
        with pytest.raises(SettingError, match=r"give \[face\]"):
            tiny_pipeline.encode(face)
    for several in (["a.wav", "b.wav"], (Path("a.wav"), b"RIFF")):
        with pytest.raises(AudioFormatError, match=r"pipe\.map takes several"):
            tiny_pipeline(several)


def test_too_little_speech_names_the_recording(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    silent = tmp_path / "silent.wav"
    sf.write(silent, np.zeros(32_000), 16_000)
    with pytest.raises(NoSpeechError, match=r"silent\.wav: the recording is silent"):
        tiny_pipeline(silent)
    (error,) = tiny_pipeline.map([str(silent)], on_error="return", progress=False)
    assert "silent.wav: the recording is silent" in str(error)
    empty = tmp_path / "empty.wav"
    sf.write(empty, np.zeros(0), 16_000)
    with pytest.raises(NoSpeechError, match="the recording is empty") as caught:
        tiny_pipeline(empty)
    assert str(caught.value).count("empty.wav") == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")]
)
def test_a_recording_that_memory_cannot_hold_is_named(
    error: Exception,
    tiny_pipeline: Voice2FacePipeline,
    recording: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("voice2face.listening.speech_frames", fail)
    with pytest.raises(AudioFormatError, match=r"talk\.wav is too long for this machine"):
        tiny_pipeline(recording)
    (result,) = tiny_pipeline.map([recording], on_error="return", progress=False)
    assert isinstance(result, AudioFormatError)


def test_pictures_too_large_for_their_format_are_refused(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, tmp_path: Path
) -> None:
    portraits = tiny_pipeline(tone, 16_000, num_images=1, num_inference_steps=1)
    for count, name, what in ((350, "all.webp", "48x16800 .* WEBP"), (1400, "all.jpg", "JPEG")):
        tall = Portraits(portraits.items * count)
        with pytest.raises(OutputError, match=f"{what} .* choose"):
            tall.save_grid(tmp_path / name, columns=1)
    tall.save_grid(tmp_path / "all.png", columns=1)
    for quality in (0, 96, 90.5, None):
        with pytest.raises(SettingError, match="quality is 1 to 95"):
            portraits.save(tmp_path / "face.jpg", quality=quality)
    assert [path.name for path in tmp_path.iterdir()] == ["all.png"]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="there is no cuda:7 here, only 2"):
        choose_device("cuda:7")
    with pytest.raises(DeviceError, match="is no device"):
        choose_device(torch.float16)


def test_a_type_alone_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("another device was chosen")

    monkeypatch.setattr("voice2face.placed_networks.choose_device", fail)
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48)
    assert pipe.to(dtype=torch.float64).dtype == torch.float64
    assert pipe.to(torch.float32).dtype == torch.float32, "a type alone, as torch's own to takes"
    for dtype in (torch.int8, torch.float8_e4m3fn, "float32", torch.complex64):
        with pytest.raises(DeviceError, match=r"cannot be of type .*; give one of torch\.float16"):
            pipe.to(dtype=dtype)


def test_what_was_halved_stays_so_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice2face.placed_networks.default_dtype", lambda _: torch.float32)
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48)
    assert pipe._dtype_on(torch.device("cuda")) == torch.float32
    assert pipe.half()._dtype_on(torch.device("cuda")) == torch.float16
    assert pipe.to("cpu").dtype == torch.float32


@pytest.mark.parametrize(
    ("types", "same"),
    [
        ((torch.float32, torch.float64, torch.float32), True),
        ((torch.bfloat16,), True),
        ((torch.float16, torch.float16), True),
        ((torch.float16, torch.float32), False),
        ((torch.bfloat16, torch.float64), False),
        ((torch.bfloat16, torch.float16), False),
    ],
)
def test_weights_that_were_rounded_before_are_not_the_checkpoints(
    types: tuple[torch.dtype, ...], same: bool
) -> None:
    parts = {"output_size": 48, "checkpoint_sha256": "its own"}
    pipes = [Voice2FacePipeline(**tiny_components(), **parts) for _ in range(2)]
    for dtype in types:
        pipes[0].to(dtype=dtype)
        pipes[1] = pipes[1].half() if dtype == torch.float16 else pipes[1].to(dtype)
    for pipe in pipes:
        assert pipe.checkpoint_sha256 == ("its own" if same else None)
    fresh = Voice2FacePipeline(**tiny_components()).to(types[-1]).face_decoder.state_dict()
    kept = pipes[0].face_decoder.state_dict()
    assert all(torch.equal(fresh[name], kept[name]) for name in fresh) == same


def test_a_checkpoint_without_faces_has_no_retriever(tiny_pipeline: Voice2FacePipeline) -> None:
    assert not hasattr(tiny_pipeline, "retriever")
    assert getattr(tiny_pipeline, "retriever", "none") == "none"
    assert "retriever" not in dict(inspect.getmembers(tiny_pipeline))
    create_autospec(tiny_pipeline)
    for error in (SettingError, AttributeError):
        with pytest.raises(error, match="retrieves no faces"):
            _ = tiny_pipeline.retriever
        with pytest.raises(error, match="retrieves no faces"):
            tiny_pipeline.retriever = "another"


def test_assigning_a_scheduler_says_how_a_sampler_is_chosen(
    tiny_pipeline: Voice2FacePipeline,
) -> None:
    schedule = tiny_pipeline.scheduler
    with pytest.raises(SettingError, match='sampler="unipc"'):
        tiny_pipeline.scheduler = UniPCMultistepScheduler.from_config(schedule.config)
    assert tiny_pipeline.scheduler is schedule


def test_the_largest_seeds() -> None:
    assert choose_seeds(2, 2**63 - 2, None) == [2**63 - 2, 2**63 - 1]
    with pytest.raises(SettingError, match=r"from 0 to 2\*\*63 - 2"):
        choose_seeds(2, 2**63 - 1, None)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("seed", -1), ("preset", "quick"), ("eta", 2.0)]
)
def test_map_refuses_wrong_settings_before_it_starts(
    tiny_pipeline: Voice2FacePipeline, name: str, value: object
) -> None:
    with pytest.raises(SettingError, match=name):
        tiny_pipeline.map([], **{name: value})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("face.bmp", "saved as .png"),
        ("no/such/face.png", "cannot be written"),
        (".png", "saved"),
        ("", "saved as .png"),
        ("/", "saved as .png"),
        ("face\0.png", "cannot be written"),
    ],
)
def test_unwritable_output(
    portraits: Portraits,
    tmp_path: Path,
    name: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for save in (portraits[0].save, portraits.save):
        with pytest.raises(OutputError, match=message):
            save(name)
    assert not list(tmp_path.iterdir())


def test_the_longest_file_name_can_be_written(portraits: Portraits, tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.png"
    assert portraits[0].save(path) == path
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="cannot be written"):
        portraits[0].save(path.with_name(f"{'x' * 252}.png"))
    with pytest.raises(OutputError, match="cannot be written"):
        portraits[0].save(path / "face.png")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "face.png"

    def interrupted(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    def while_another_writes(partial: Path) -> None:
        partial.write_bytes(b"one")
        replace_file(file, lambda other: other.write_bytes(b"another"))

    replace_file(file, while_another_writes)
    with pytest.raises(KeyboardInterrupt):
        replace_file(file, interrupted)
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_no_output_file(portraits: Portraits, tmp_path: Path) -> None:
    (tmp_path / "face.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        portraits[0].save(tmp_path / "face.png")


@pytest.mark.parametrize(("device", "advice"), [("cuda", " or use the CPU"), ("cpu", "")])
def test_a_lack_of_memory_names_the_device(device: str, advice: str) -> None:
    with (
        pytest.raises(DeviceError, match=f"^{device} ran out .* pictures at once{advice}$"),
        memory_errors(torch.device(device)),
    ):
        raise MemoryError


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(DeviceError, match="is no device"):
        choose_device("toaster")
    with pytest.raises(DeviceError, match="nothing is computed on meta"):
        choose_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="CUDA is not available"):
            choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)]
)
def test_bfloat16_is_for_gpus_that_have_it(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert default_dtype(torch.device("cuda")) == dtype
    assert default_dtype(torch.device("cpu")) == torch.float32


def test_channels_of_weights_lie_last_where_that_is_quicker_and_change_no_picture(
    tone: np.ndarray,
) -> None:
    assert memory_format(torch.device("cuda")) == torch.channels_last
    assert memory_format(torch.device("mps")) == torch.contiguous_format
    one, other = (Voice2FacePipeline(**tiny_components(), output_size=48) for _ in range(2))
    one.to("cpu")
    for pipe, layout in ((one, torch.channels_last), (other, torch.contiguous_format)):
        assert pipe.method.denoiser.unet.conv_in.weight.is_contiguous(memory_format=layout)
    drawn = [
        np.stack(pipe(tone, 16_000, seed=3, num_images=3).images).astype(int)
        for pipe in (one, other)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_running_out_of_memory_says_what_to_do(
    tiny_pipeline: Voice2FacePipeline,
    tone: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tiny_pipeline.face_decoder, "forward", fail)
    with pytest.raises(DeviceError, match="fewer pictures"):
        tiny_pipeline(tone, 16_000, num_inference_steps=1)


def test_draw_makes_one_portrait_for_each_voice(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    voice = tiny_pipeline.listen(tone, 16_000)
    drawn = tiny_pipeline.draw([voice] * 70, list(range(70)), num_inference_steps=1)
    assert drawn.seeds == list(range(70))
    alone = tiny_pipeline(tone, 16_000, seed=69, num_inference_steps=1)
    assert np.abs(pixels(alone.images[0]) - pixels(drawn.images[-1])).max() <= 1
    with pytest.raises(SettingError, match="1 voices and 2 seeds"):
        tiny_pipeline.draw([voice], [1, 2])
    with pytest.raises(SettingError, match="seed is a whole number"):
        tiny_pipeline.draw([voice], [-1])


def test_half_precision_gives_nearly_the_same_picture(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, tmp_path: Path
) -> None:
    half = Voice2FacePipeline.from_pretrained(
        tiny_pipeline.save_pretrained(tmp_path / "tiny"), device="cpu", dtype=torch.bfloat16
    )
    assert half.dtype == torch.bfloat16
    whole, rough = (
        pixels(pipe(tone, 16_000, seed=1, num_inference_steps=4).images[0])
        for pipe in (tiny_pipeline, half)
    )
    assert np.abs(whole - rough).mean() < 4
    faces = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black")]
    exact = tiny_pipeline.encode(faces)
    assert (half.encode(faces) - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_portraits_copy_and_pickle(portraits: Portraits) -> None:
    for again in (copy.deepcopy(portraits), pickle.loads(pickle.dumps(portraits))):
        assert [p.image.tobytes() for p in again] == [p.image.tobytes() for p in portraits]
        assert again.seeds == portraits.seeds
        assert again.evidence == portraits.evidence
        assert again[0].provenance == portraits[0].provenance


def test_mean_face_is_the_average(portraits: Portraits) -> None:
    mean = np.mean([np.asarray(image, float) for image in portraits.images], 0)
    assert np.abs(np.asarray(portraits.mean_face()) - mean).max() <= 0.5 + 1e-6


def test_numbers_of_numpy_are_taken_where_python_s_are(
    portraits: Portraits, tmp_path: Path
) -> None:
    for ending in ("jpg", "webp"):
        saved = portraits[0].save(tmp_path / f"numpy.{ending}", quality=np.int64(90))
        plain = portraits[0].save(tmp_path / f"python.{ending}", quality=90)
        assert saved.read_bytes() == plain.read_bytes()
    assert portraits.grid(np.int64(2)).size == (96, 96)


def test_a_saved_grid_is_marked_too(portraits: Portraits, tmp_path: Path) -> None:
    with Image.open(portraits.save_grid(tmp_path / "all.png", 3)) as image:
        assert image.size == (3 * 48, 48)
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]


def test_pictures_lie_side_by_side_row_by_row() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = np.asarray(side_by_side([Image.new("RGB", (3, 1), one) for one in colours], 2))
    assert sheet.shape == (2, 6, 3)
    assert sheet[:, ::3].tolist() == [
        [[255, 0, 0], [0, 255, 0]],
        [[0, 0, 255], [0, 0, 0]],
    ]


def test_a_saved_mean_face_is_marked_too(portraits: Portraits, tmp_path: Path) -> None:
    with Image.open(portraits.save_mean_face(tmp_path / "mean.png")) as image:
        assert image.tobytes() == portraits.mean_face().tobytes()
        assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]
    with Image.open(portraits.save_mean_face(tmp_path / "mean.jpg", quality=90)) as image:
        assert SYNTHETIC_SOURCE.encode() in image.info["xmp"]


def test_a_grid_of_no_columns_is_refused(portraits: Portraits) -> None:
    with pytest.raises(SettingError, match="columns is 1 to"):
        portraits.grid(0)


def test_portraits_show_themselves_in_notebooks(portraits: Portraits) -> None:
    for shown, size in (
        (portraits[0], portraits[0].image.size),
        (portraits, portraits.grid().size),
    ):
        with Image.open(io.BytesIO(shown._repr_png_())) as image:
            assert image.size == size
            assert SYNTHETIC_SOURCE in image.info["XML:com.adobe.xmp"]


def test_portraits_do_not_depend_on_how_many_are_computed_at_once(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"seed": 3, "num_images": 5, "num_inference_steps": 2, "output_type": "np"}
    together = tiny_pipeline(tone, 16_000, **settings)
    for module in ("pipeline", "pretrained_networks"):
        monkeypatch.setattr(f"voice2face.{module}.at_once", lambda _: AtOnce(2, 2))
    steps = []
    parts = tiny_pipeline(
        tone, 16_000, callback_on_step_end=lambda *told: steps.append(told) or {}, **settings
    )
    assert len(steps) == 3 * 2, "three batches of two steps"
    np.testing.assert_allclose(parts, together, atol=1.5 / 255)
    assert at_once(torch.device("cuda")) > at_once(torch.device("cpu"))


def test_each_portrait_is_of_its_own_voice_wherever_in_a_batch(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    voice = tiny_pipeline.listen(tone, 16_000)
    voices = [
        Voice(torch.nn.functional.normalize(one, dim=0), evidence, f"checksum {k}")
        for k, one in enumerate(speech)
        for evidence in [replace(voice.evidence, speech_seconds=float(k))]
    ]

    def latents(voices: list[Voice]) -> Tensor:
        kept: list[Tensor] = []
        tiny_pipeline.draw(
            voices,
            [7] * len(voices),
            num_inference_steps=1,
            callback_on_step_end=lambda *told: kept.append(told[-1]["latents"]) or {},
        )
        return torch.cat(kept)

    monkeypatch.setattr("voice2face.pipeline.at_once", lambda _: AtOnce(2, 2))
    alone = torch.cat([latents([voice]) for voice in voices])
    torch.testing.assert_close(latents(voices), alone, atol=1e-4, rtol=1e-4)
    apart = (alone[:, None] - alone[None]).flatten(2).abs().amax(2)
    assert (apart + torch.eye(5) > 1e-2).all()
    drawn = tiny_pipeline.draw(voices, list(range(5)), num_inference_steps=1)
    assert [portrait.evidence.speech_seconds for portrait in drawn] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [portrait.provenance.audio_sha256 for portrait in drawn] == [
        voice.audio_sha256 for voice in voices
    ]


def test_all_windows_of_a_long_recording_are_heard(
    tiny_pipeline: Voice2FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = np.arange(10 * 16_000) / 16_000
    rising = (0.3 * np.sin(2 * np.pi * (150 + 40 * time) * time)).astype(np.float32)
    whole, begun = (tiny_pipeline.listen(part, 16_000) for part in (rising, rising[:64_000]))
    assert (whole.evidence.windows, begun.evidence.windows) == (5, 2)
    assert not torch.allclose(whole.embedding, begun.embedding, atol=1e-3)
    monkeypatch.setattr("voice2face.listening.MOST_WINDOWS_AT_ONCE", 2)
    in_parts = tiny_pipeline.listen(rising, 16_000)
    torch.testing.assert_close(in_parts.embedding, whole.embedding)
    assert in_parts.evidence.windows == 5


@pytest.mark.parametrize("watermark", [True, False])
def test_many_pictures_are_finished_as_few_are(
    tiny_pipeline: Voice2FacePipeline, watermark: bool
) -> None:
    count = at_once(torch.device("cpu")).pictures + 3
    latents = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert tiny_pipeline.output_size == 48, "32 are decoded"
    many = tiny_pipeline.decode(latents, watermark=watermark)
    few = [tiny_pipeline.decode(part, watermark=watermark) for part in latents.split(count // 2)]
    assert np.array_equal(many, np.concatenate(few))


IN_ANOTHER_DEFAULT_TYPE = """
import sys
import numpy as np, torch
from voice2face import Voice2FacePipeline

if sys.argv[3] == "float64":
    torch.set_default_dtype(torch.float64)
pipe = Voice2FacePipeline.from_pretrained(sys.argv[1], device="cpu")
settings = {"seed": 5, "num_inference_steps": 3, "sampler": "ddim", "eta": 0.5}
portrait = pipe("examples/speech/female.flac", **settings)[0]
told = portrait.evidence.male_probability
print(told, portrait.image.tobytes().hex())
np.save(sys.argv[2], pipe.encode([portrait.image]).numpy())
"""


@pytest.mark.parametrize("components", [tiny_components, with_speaker_encoder])
def test_the_default_type_of_pytorch_changes_nothing(components: Any, tmp_path: Path) -> None:
    folder = Voice2FacePipeline(**components(), output_size=48).save_pretrained(tmp_path / "tiny")
    told = []
    for dtype in ("float32", "float64"):
        command = [sys.executable, "-c", IN_ANOTHER_DEFAULT_TYPE, folder, tmp_path / dtype, dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        told.append((done.stdout, np.load(tmp_path / f"{dtype}.npy").tobytes()))
    assert told[0] == told[1]


def test_constants_are_float32_whatever_the_default_type_is() -> None:
    def made() -> list[Tensor]:
        return [mel_filters(16_000, 400, 40), hann_window(400)]

    before = made()
    try:
        torch.set_default_dtype(torch.float64)
        kept = constant_on(torch.device("cpu"), tuple, (0.1, 0.7))
        assert all(map(torch.equal, made(), before))
    finally:
        torch.set_default_dtype(torch.float32)
    assert kept.dtype == torch.float32


def test_autocast_of_the_caller_changes_nothing(
    tiny_pipeline: Voice2FacePipeline, tone: np.ndarray
) -> None:
    def told() -> tuple[bytes, bytes, bytes]:
        portrait = tiny_pipeline(tone, 16_000, seed=3, num_inference_steps=3)[0]
        latents = tiny_pipeline.encode([portrait.image])
        embedding = tiny_pipeline.listen(tone, 16_000).embedding
        return portrait.png(), latents.numpy().tobytes(), embedding.numpy().tobytes()

    before = told()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert told() == before
        assert torch.is_autocast_enabled("cpu"), "what the caller does goes on as before"
