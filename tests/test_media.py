"""M4A and the sound of videos, encoded here by FFmpeg from speech."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings, strategies

from voice2face import Voice2FacePipeline, load_audio
from voice2face.audio import SAMPLE_RATE
from voice2face.cli import main
from voice2face.errors import AudioDecodeError, AudioError, AudioFormatError
from voice2face.recording_folders import MEDIA_ENDINGS, find_recordings

# how FFmpeg calls container and codec, by ending
KINDS = {
    ".m4a": ("ipod", "aac"),
    ".mp4": ("mp4", "aac"),
    ".3gp": ("3gp", "aac"),
    ".aac": ("adts", "aac"),
    ".webm": ("webm", "libopus"),
    ".mov": ("mov", "pcm_s16le"),
}
MOST_DELAY = 3_000  # samples that an encoder puts before the first


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


def encoded(
    samples: np.ndarray,
    kind: tuple[str, str],
    *,
    pictures: int = 0,
    title: str = "",
    to: io.BytesIO | None = None,
) -> bytes:
    """Samples, ``(channels, samples)``, in a container, with that many pictures of a video."""
    file = io.BytesIO() if to is None else to
    layout = {0: "mono", 1: "mono", 2: "stereo"}[len(samples)]
    rate = 48_000 if kind[1] == "libopus" else SAMPLE_RATE
    with av.open(file, "w", format=kind[0]) as media:
        media.metadata["title"] = title
        sound = media.add_stream(kind[1], rate=rate, layout=layout) if len(samples) else None
        if pictures:
            video = media.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
            grey = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8))
            for frame in [grey] * pictures:
                media.mux(video.encode(frame))
            media.mux(video.encode())
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate = SAMPLE_RATE
            fit = av.AudioResampler(sound.codec_context.format, layout, rate)
            for part in (*fit.resample(frame), *fit.resample(None)):
                media.mux(sound.encode(part))
            media.mux(sound.encode())
    return file.getvalue()


@pytest.fixture(scope="module")
def speech(female_speech: Path) -> np.ndarray:
    return sf.read(female_speech, dtype="float32")[0][None]


@cache
def short_media(ending: str) -> bytes:
    """Two seconds of noise."""
    noise = np.random.default_rng(0).standard_normal((1, 2 * SAMPLE_RATE), np.float32)
    return encoded(0.1 * noise, KINDS[ending])


def correlation(heard: np.ndarray, spoken: np.ndarray) -> float:
    """Of the best of all delays."""
    part = spoken[: len(spoken) // 2]
    shifts = range(0, MOST_DELAY, 8)
    return max(np.corrcoef(heard[shift : shift + len(part)], part)[0, 1] for shift in shifts)


@pytest.mark.parametrize("ending", KINDS)
def test_media_are_read_whatever_they_come_as(
    ending: str, speech: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / f"talk{ending}"
    file.write_bytes(encoded(speech, KINDS[ending], pictures=10 * (ending in (".mp4", ".mov"))))
    heard = load_audio(file)
    assert heard.dtype == np.float32
    assert abs(len(heard) - speech.shape[1]) < MOST_DELAY
    assert correlation(heard, speech[0]) > 0.99
    np.testing.assert_array_equal(load_audio(file.read_bytes()), heard)
    np.testing.assert_array_equal(load_audio(Unseekable(file.read_bytes())), heard)
    with file.open("rb") as opened:
        np.testing.assert_array_equal(load_audio(opened), heard)
        assert not opened.closed


def test_a_portrait_of_an_m4a_follows_the_voice(speech: np.ndarray) -> None:
    pipe = Voice2FacePipeline.from_pretrained(device="cpu")
    portrait = pipe(encoded(speech, KINDS[".m4a"]), seed=7)[0]
    assert portrait.evidence.sex == "female"
    assert portrait.evidence.speech_seconds == pytest.approx(12, abs=0.5)


def test_channels_are_brought_to_one_as_of_other_files(speech: np.ndarray) -> None:
    for other in (speech, -speech, np.zeros_like(speech)):
        heard = load_audio(encoded(np.concatenate([speech, other]), KINDS[".m4a"]))
        assert correlation(heard, speech[0]) > 0.99


def test_a_title_may_be_no_utf_8(speech: np.ndarray) -> None:
    titled = encoded(speech, KINDS[".m4a"], title="untitled")
    assert titled.count(b"untitled") == 1
    assert correlation(load_audio(titled.replace(b"untitled", b"\xe9" * 8)), speech[0]) > 0.99


def test_media_that_cannot_be_used_are_refused(speech: np.ndarray, tmp_path: Path) -> None:
    stream = encoded(speech, KINDS[".aac"])
    with pytest.raises(AudioDecodeError, match=r"cannot be decoded, or is cut off .* whole file"):
        load_audio(stream[: len(stream) // 2])
    whole = encoded(speech, KINDS[".m4a"])
    with pytest.raises(AudioDecodeError, match=r"not audio that can be decoded, or cut off"):
        load_audio(whole[: len(whole) // 2])
    strange = whole.replace(b"stsd", b"free")  # which says how it is encoded
    with pytest.raises(AudioDecodeError, match="does not know how its sound is encoded"):
        load_audio(strange)
    with pytest.raises(AudioDecodeError, match="there is no sound in it"):
        load_audio(encoded(speech[:0], KINDS[".mp4"], pictures=10))


@settings(max_examples=60, deadline=None)
@given(data=strategies.data())
def test_damaged_media_raise_errors_of_their_own(data: strategies.DataObject) -> None:
    ending = data.draw(strategies.sampled_from(sorted(KINDS)))
    media = bytearray(short_media(ending))
    places = strategies.integers(0, len(media) - 1)
    for place, value in data.draw(
        strategies.dictionaries(places, strategies.integers(0, 255), max_size=20)
    ).items():
        media[place] = value
    with contextlib.suppress(AudioError):
        assert np.isfinite(load_audio(bytes(media))).all()


def test_long_media_are_refused(speech: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match=r"up to 5 s.* are taken here"):
        load_audio(encoded(speech, KINDS[".m4a"]), max_seconds=5)
    unfinished = encoded(speech, KINDS[".webm"], to=Unseekable())
    with av.open(io.BytesIO(unfinished)) as media:
        assert media.duration is None
    assert correlation(load_audio(unfinished), speech[0]) > 0.99
    with pytest.raises(AudioFormatError, match=r"up to 5 s.* are taken here"):
        load_audio(unfinished, max_seconds=5)


def test_no_file_that_a_file_names_is_opened(
    speech: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("private.aac").write_bytes(encoded(speech, KINDS[".aac"]))
    playlist = b"ffconcat version 1.0\nfile private.aac\n"
    with av.open(io.BytesIO(playlist)) as followed:
        assert followed.format.name == "concat", "which FFmpeg does unless it is told not to"
    with pytest.raises(AudioDecodeError, match="not audio that can be decoded"):
        load_audio(playlist)


def test_without_ffmpeg_it_is_said_how_to_get_it(
    speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice2face.audio.decoding.reads_media", lambda: False)
    with pytest.raises(AudioDecodeError, match=r"for M4A .* pip install 'voice2face\[media\]'"):
        load_audio(encoded(speech, KINDS[".m4a"]))


def test_a_folder_of_media_is_drawn(speech: np.ndarray, tmp_path: Path) -> None:
    for ending, kind in KINDS.items():
        (tmp_path / f"talk{ending}").write_bytes(encoded(speech, kind))
    found = find_recordings(tmp_path)
    assert {path.suffix for path in found.recordings} == KINDS.keys()
    assert not found.unread
    assert KINDS.keys() <= MEDIA_ENDINGS
    out = tmp_path / "portraits"
    assert main([str(tmp_path), "-o", str(out), "-q"]) == 0
    assert len(list(out.iterdir())) == len(KINDS)
