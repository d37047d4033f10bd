from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voice2face.audio import SAMPLE_RATE, load_audio, resampling
from voice2face.audio.voice_activity import FRAME_SECONDS, speech_frames, speech_windows
from voice2face.errors import (
    AudioDecodeError,
    AudioFormatError,
    AudioNotFoundError,
    NoSpeechError,
    SettingError,
    Voice2FaceError,
)


def test_every_way_in_gives_the_same_samples(tone: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    sf.write(path, tone, SAMPLE_RATE, subtype="FLOAT")
    data = path.read_bytes()
    ways = [
        load_audio(path),
        load_audio(str(path)),
        load_audio(data),
        load_audio(bytearray(data)),
        load_audio(io.BytesIO(data)),
        load_audio(tone, SAMPLE_RATE),
        load_audio(tone.astype(np.float64), SAMPLE_RATE),
        load_audio(torch.from_numpy(tone), SAMPLE_RATE),
        load_audio((torch.from_numpy(tone)[None], SAMPLE_RATE)),
        load_audio((tone, SAMPLE_RATE)),
        load_audio((SAMPLE_RATE, tone)),
        load_audio((np.int64(SAMPLE_RATE), tone), float(SAMPLE_RATE)),
        load_audio({"array": tone, "sampling_rate": SAMPLE_RATE}),
        load_audio(tone.tolist(), SAMPLE_RATE),
    ]
    for samples in ways:
        assert samples.dtype == np.float32
        assert not np.shares_memory(samples, tone)
        np.testing.assert_allclose(samples, tone, atol=1e-6)


def test_a_pipe_is_read_to_its_end(tone: np.ndarray, capfd: pytest.CaptureFixture) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone[:16_000], SAMPLE_RATE, format="WAV", subtype="PCM_U8")
    reading, writing = os.pipe()
    with open(writing, "wb") as end:  # noqa: PTH123
        assert end.write(buffer.getvalue()) < 1 << 16  # what a pipe holds
    with open(reading, "rb") as pipe:  # noqa: PTH123
        np.testing.assert_allclose(load_audio(pipe), tone[:16_000], atol=0.01)
    assert capfd.readouterr().err == ""


class Body:
    """What a connection gives: a bit at a time, from front to end."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self.data, self.error = io.BytesIO(data), error

    def read(self, count: int = -1) -> bytes:
        if self.error is not None and count:
            raise self.error
        return self.data.read(min(count, 999))


class Disk(io.BytesIO):
    """Only its first thousand bytes can be read."""

    def read(self, count: int | None = -1) -> bytes:
        if self.tell() + (count or 0) > 1_000:
            raise OSError(5, "Input/output error")
        return super().read(count)

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class AsyncFile:
    """An upload, as Starlette holds it."""

    async def read(self, size: int = -1) -> bytes:
        return bytes(size)


def closed(file: IO[bytes]) -> IO[bytes]:
    file.close()
    return file


@pytest.fixture
def wav(tone: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, tone, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_file_objects_are_read_from_where_they_are_or_anew_at_their_end(
    tone: np.ndarray, wav: bytes
) -> None:
    written = io.BytesIO()
    written.write(wav)
    within = io.BytesIO(b"x" * 99 + wav)
    within.seek(99)
    tagged = io.BytesIO(wav + b"LIST" + bytes(40))
    for file in (written, within, tagged, Body(wav)):
        np.testing.assert_array_equal(load_audio(file), tone)
    for file in (written, within, tagged):
        np.testing.assert_array_equal(load_audio(file), tone, err_msg="once more")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_recordings_inside_other_files_are_read(kind: str, tone: np.ndarray) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone, SAMPLE_RATE, format=kind)
    within = io.BytesIO(b"x" * 1000 + buffer.getvalue())
    within.seek(1000)
    np.testing.assert_array_equal(load_audio(within), load_audio(buffer.getvalue()))
    assert within.tell() == 1000


def test_what_gives_bytearrays_is_read(tone: np.ndarray, wav: bytes) -> None:
    file = Body(wav)
    honest = file.read
    file.read = lambda count=-1: bytearray(honest(count))
    np.testing.assert_array_equal(load_audio(file), tone)


FILE_ERRORS = {
    "closed": (lambda wav: closed(io.BytesIO(wav)), AudioDecodeError, "object cannot be read: I/O"),
    "connection": (
        lambda wav: Body(wav, ConnectionResetError("peer")),
        AudioDecodeError,
        "cannot be read: peer",
    ),
    "no reason": (lambda wav: Body(wav, KeyError()), AudioDecodeError, "cannot be read: KeyError"),
    "disk": (Disk, AudioDecodeError, "cannot be read: .* Input/output error"),
    "text": (lambda _: io.TextIOWrapper(io.BytesIO()), AudioFormatError, "open as text"),
    "upload": (lambda _: AsyncFile(), AudioFormatError, r"give upload\.file"),
    "samples": (
        lambda wav: sf.SoundFile(io.BytesIO(wav)),
        AudioFormatError,
        r"read\(\) gives ndarray, not bytes",
    ),
}


@pytest.mark.parametrize("case", FILE_ERRORS)
def test_file_objects_that_cannot_be_read(
    case: str, wav: bytes, capfd: pytest.CaptureFixture
) -> None:
    make, kind, message = FILE_ERRORS[case]
    with pytest.raises(kind, match=message):
        load_audio(make(wav))
    assert capfd.readouterr().err == ""


def test_a_file_without_a_name_is_the_given_one() -> None:
    with (
        tempfile.SpooledTemporaryFile() as in_memory,
        tempfile.TemporaryFile() as on_disk,
        tempfile.NamedTemporaryFile(suffix="odd.wav") as named,
    ):
        for file in (in_memory, on_disk):
            with pytest.raises(AudioDecodeError, match=r"^the given file object: it is empty"):
                load_audio(file)
        with pytest.raises(AudioDecodeError, match=r"odd\.wav: it is empty"):
            load_audio(named)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8"])
def test_integer_samples_are_scaled_by_their_type(tone: np.ndarray, kind: str) -> None:
    info = np.iinfo(kind)
    half = (int(info.max) - int(info.min) + 1) / 2
    centre = half if info.min == 0 else 0
    integers = np.clip(np.round(tone * half + centre), info.min, info.max).astype(kind)
    np.testing.assert_allclose(load_audio(integers, SAMPLE_RATE), tone, atol=1.5 / half)


def test_integers_of_32_bits_may_be_silent_and_are_otherwise_louder_than_those_of_16() -> None:
    assert not load_audio(np.zeros(SAMPLE_RATE, np.int32), SAMPLE_RATE).any()
    assert load_audio(np.array([0, 2**15 + 1], np.int32), SAMPLE_RATE).any()


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_common_formats_are_decoded(tone: np.ndarray, file_format: str) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone, SAMPLE_RATE, format=file_format)
    samples = load_audio(buffer.getvalue())
    if file_format in ("OGG", "MP3"):
        assert abs(len(samples) - len(tone)) < 3000
        either = [waveform[: min(len(samples), len(tone))] for waveform in (samples, tone)]
        assert np.corrcoef(either)[0, 1] > 0.95
    else:
        np.testing.assert_allclose(samples, tone, atol=1e-4)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_channels_are_averaged(tone: np.ndarray, layout: str) -> None:
    stereo = np.stack([tone, 0.5 * tone])
    stereo = stereo if layout == "channels_first" else stereo.T
    np.testing.assert_allclose(load_audio(stereo, SAMPLE_RATE), 0.75 * tone, atol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 0.9])
@pytest.mark.parametrize("source", ["array", "WAV", "FLAC", "OGG"])
def test_of_channels_that_cancel_each_other_out_the_loudest_is_taken(
    tone: np.ndarray, gain: float, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice2face.audio.decoding.DECODED_AT_ONCE", 1_000)
    stereo = np.stack([-gain * tone, tone], 1)
    if source == "array":
        heard = [load_audio(stereo, SAMPLE_RATE), load_audio(stereo.T + 0.1, SAMPLE_RATE) - 0.1]
    else:
        buffer = io.BytesIO()
        sf.write(buffer, stereo, SAMPLE_RATE, format=source)
        heard = [load_audio(buffer.getvalue())]
    for waveform in heard:
        count = min(len(waveform), len(tone))
        assert abs(np.corrcoef(waveform[:count], tone[:count])[0, 1]) > 0.95
        assert np.abs(waveform).max() > 0.9 * np.abs(tone).max()


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [-0.9, 0.4359]],
        [[1.0, 0.0], [-0.5, 0.0]],
        [[0.0, 0.0]] * 63 + [[1.0, 0.0]],
    ],
)
def test_other_channels_are_averaged_to_the_last_bit(
    tone: np.ndarray, rows: list[list[float]]
) -> None:
    other = 0.3 * np.random.default_rng(0).normal(size=len(tone))
    channels = (0.5 * np.array(rows) @ np.stack([tone, other])).astype(np.float32)
    np.testing.assert_array_equal(load_audio(channels, SAMPLE_RATE), channels.mean(0))
    buffer = io.BytesIO()
    sf.write(buffer, channels.T, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    expected = np.ascontiguousarray(channels.T).mean(1)
    np.testing.assert_array_equal(load_audio(buffer.getvalue()), expected)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_brought_to_16_khz(rate: int) -> None:
    original = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)
    samples = load_audio(original, rate)
    assert abs(len(samples) - len(expected)) <= 1
    middle = slice(2_000, -2_000)
    np.testing.assert_allclose(samples[middle], expected[: len(samples)][middle], atol=2e-3)


def test_torchaudio_and_soxr_agree(female_speech: Path) -> None:
    script = Path(__file__).parent / "resample_both_ways.py"
    rates = ["8000", "22050", "44100", "48000"]
    done = subprocess.run(
        [sys.executable, script, female_speech, *rates], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    differences = [float(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(differences) == len(rates)
    assert max(differences) < 1e-3, "30 dB below the speech"


def test_without_torchaudio_soxr_is_used(tone: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "torchaudio_available", lambda: False)
    by_soxr = resampling.resample_with_soxr(tone, 48_000)
    np.testing.assert_array_equal(load_audio(tone, 48_000), by_soxr)


def test_odd_rates_are_left_to_soxr(tone: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def by_torchaudio(waveform: np.ndarray, rate: int) -> np.ndarray:
        asked.append(rate)
        return waveform

    monkeypatch.setattr(resampling, "torchaudio_available", lambda: True)
    monkeypatch.setattr(resampling, "resample_with_torchaudio", by_torchaudio)
    for rate in (11_025, 44_100, 44_099, 48_000, 767_999):
        load_audio(tone, rate)
    assert asked == [11_025, 44_100, 48_000], "its filters for the others take gigabytes"


@pytest.mark.parametrize("rest_db", [None, -60.0])
def test_little_speech_is_found_in_a_long_recording(
    female_speech: Path, rest_db: float | None
) -> None:
    speech = load_audio(female_speech)
    rng = np.random.default_rng(0)
    rest = np.zeros(600 * SAMPLE_RATE, np.float32)
    if rest_db is not None:
        rest = (10 ** (rest_db / 20) * rng.standard_normal(len(rest))).astype(np.float32)
    alone = speech_frames(speech).sum() * FRAME_SECONDS
    found = speech_frames(np.concatenate([rest, speech, rest])).sum() * FRAME_SECONDS
    assert alone - 1.0 < found < alone + 1.0


def test_pauses_are_cut_away(tone: np.ndarray) -> None:
    silence = np.zeros(5 * SAMPLE_RATE, np.float32)
    kept = speech_frames(np.concatenate([silence, tone, silence, tone, silence]))
    assert 6.0 <= kept.sum() * FRAME_SECONDS <= 7.0


def test_short_speech_is_repeated_to_one_window(tone: np.ndarray) -> None:
    windows = speech_windows(tone)
    assert windows.shape == (1, 96_000)
    np.testing.assert_array_equal(windows[0, :48_000], windows[0, 48_000:])


@given(st.integers(1, 400_000))
@settings(max_examples=40, deadline=None)
def test_windows_cover_all_of_long_speech(length: int) -> None:
    speech = np.arange(length, dtype=np.float32)
    windows = speech_windows(speech)
    assert windows.shape[1] == 96_000
    assert set(np.unique(windows)) == set(speech.tolist())
    assert len(windows) == max(1, -(-length // 96_000))


@given(
    st.integers(0, 3_000),
    st.integers(-5, 10**6),
    st.sampled_from(["float32", "int16", "uint8"]),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_odd_input_gives_samples_or_an_error_of_ours(
    length: int, rate: int, kind: str, dimensions: int
) -> None:
    values = np.random.default_rng(length).integers(0, 100, (length,) + (1,) * (dimensions - 1))
    try:
        samples = load_audio(values.astype(kind), rate)
    except Voice2FaceError:
        return
    assert samples.ndim == 1
    assert np.isfinite(samples).all()


@given(st.binary(max_size=4_000))
@settings(max_examples=60, deadline=None)
def test_garbage_bytes_are_no_audio(data: bytes) -> None:
    with pytest.raises(Voice2FaceError):
        load_audio(data)


@pytest.mark.parametrize("file_format", ["FLAC", "MP3"])
def test_truncated_file_is_refused(tone: np.ndarray, file_format: str) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, np.tile(tone, 4), SAMPLE_RATE, format=file_format)
    with pytest.raises(AudioDecodeError, match=r"cut off|truncated"):
        load_audio(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_an_mp3_that_goes_on_beyond_what_is_read_is_refused(female_speech: Path) -> None:
    samples, rate = sf.read(female_speech)
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    whole = buffer.getvalue()
    tagged = whole + b"TAG" + bytes(125)
    assert len(load_audio(tagged)) == len(load_audio(whole)) == len(samples)
    without_xing_header = whole[whole.index(whole[:2], 4) :]
    for stream in (without_xing_header, whole + whole):
        with pytest.raises(AudioDecodeError, match="more than its header says"):
            load_audio(stream)


ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 3]) + bytes(2 * 128 + 3)
ID3V2_WITH_FOOTER = b"ID3\x04\x00\x10" + ID3V2[6:] + b"3DI\x04\x00\x10" + ID3V2[6:10]
APE_ENDS = [
    b"APETAGEX" + struct.pack("<IIII", 2000, 7 + 32, 1, flags) + bytes(8)
    for flags in (0xA0000000, 0x80000000)
]
APE = bytes(7).join(APE_ENDS)


@pytest.mark.parametrize(
    "tags",
    [ID3V1, ID3V2, ID3V2_WITH_FOOTER, APE, APE_ENDS[1], APE + ID3V1, ID3V1 + ID3V2],
    ids=["ID3v1", "ID3v2", "ID3v2 with footer", "APE", "empty APE", "APE, ID3v1", "both ID3"],
)
def test_joined_mp3s_are_refused_whatever_tags_lie_between(tone: np.ndarray, tags: bytes) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone, SAMPLE_RATE, format="MP3")
    whole = buffer.getvalue()
    assert len(load_audio(whole + tags)) == len(load_audio(ID3V2 + whole + tags)) == len(tone)
    with pytest.raises(AudioDecodeError, match="files that were joined"):
        load_audio(whole + tags + whole)


def test_an_mp3_whose_last_frame_is_not_read_is_whole(female_speech: Path) -> None:
    samples, rate = sf.read(female_speech)
    for count in range(2 * rate, 2 * rate + 16 * 37, 37):  # of some, a frame of silence is left
        buffer = io.BytesIO()
        sf.write(buffer, samples[:count], rate, format="MP3")
        for whole in (buffer.getvalue(), buffer.getvalue() + ID3V1):
            assert len(load_audio(whole)) == count
        with pytest.raises(AudioDecodeError, match="files that were joined"):
            load_audio(buffer.getvalue() + ID3V2 + buffer.getvalue())


def test_an_mp3_of_constant_bitrate_without_a_xing_header_is_whole(female_speech: Path) -> None:
    samples, _ = sf.read(female_speech)
    buffer = io.BytesIO()
    sf.write(buffer, samples, 22_050, format="MP3", bitrate_mode="CONSTANT", compression_level=0.9)
    whole = buffer.getvalue()
    assert b"Xing" not in whole
    assert b"Info" not in whole
    assert len(load_audio(whole)) / SAMPLE_RATE == pytest.approx(len(samples) / 22_050, abs=0.1)


def test_a_file_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    path.write_bytes(b"x" * 999)
    with pytest.raises(AudioDecodeError) as caught:
        load_audio(path)
    assert str(caught.value).count("odd.wav") == 1


def test_what_a_decoder_raises_is_an_audio_error() -> None:
    def fail() -> None:
        raise RuntimeError("Could not push packet to decoder: Invalid data")

    with pytest.raises(AudioDecodeError, match="Invalid data"):
        load_audio(SimpleNamespace(get_all_samples=fail))


def test_a_lack_of_memory_is_explained(monkeypatch: pytest.MonkeyPatch, tone: np.ndarray) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("voice2face.audio.loading.resample", fail)
    with pytest.raises(AudioFormatError, match="the recording is too long for this machine"):
        load_audio(tone, SAMPLE_RATE)


def test_a_stream_of_unknown_length_is_refused(tone: np.ndarray) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, tone, SAMPLE_RATE, format="FLAC")
    streamed = bytearray(buffer.getvalue())
    streamed[21] &= 0xF0  # with the four bytes behind it, STREAMINFO's count of samples
    streamed[22:26] = bytes(4)
    with pytest.raises(AudioDecodeError, match="does not say how long it is"):
        load_audio(bytes(streamed))


@pytest.mark.parametrize(
    ("channels", "rate", "seconds", "most"),
    [(1, 8_000, 3600, 600), (1, 16_000, 3, 2.5), (8, 48_000, 2, 3), (1, 8_000, 1, 0)],
)
def test_more_seconds_than_are_taken_are_refused_before_they_are_decoded(
    channels: int,
    rate: int,
    seconds: int,
    most: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "long.flac"
    sf.write(path, np.zeros((seconds * rate, channels), np.int16), rate)
    read = []
    monkeypatch.setattr("soundfile.SoundFile.read", lambda *_, **__: read.append(1))
    samples = seconds * rate * channels
    for source, name in ((path, "long.flac"), (path.read_bytes(), "the given bytes")):
        with pytest.raises(
            AudioFormatError, match=f"{name}: {seconds} s and {samples} samples; up to {most:g} s"
        ):
            load_audio(source, max_seconds=most)
    assert not read


def test_as_many_seconds_as_are_taken_are_read(tone: np.ndarray, recording: str) -> None:
    seconds = len(tone) / SAMPLE_RATE
    for most in (seconds, np.float64(seconds), 10**9, float("inf"), None):
        np.testing.assert_array_equal(load_audio(tone, SAMPLE_RATE, max_seconds=most), tone)
    np.testing.assert_array_equal(load_audio(recording, max_seconds=seconds), load_audio(recording))
    with pytest.raises(AudioFormatError, match=r"given samples: .* up to 2 s"):
        load_audio(tone, SAMPLE_RATE, max_seconds=2)
    for most in (-1, float("nan"), "600", True):
        with pytest.raises(SettingError, match="max_seconds is 0 to inf, not"):
            load_audio(tone, SAMPLE_RATE, max_seconds=most)


def test_what_datasets_hold_is_read(tone: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "tone.wav"
    sf.write(file, tone, SAMPLE_RATE, subtype="FLOAT")
    stereo = torch.from_numpy(np.stack([tone, tone]))
    decoder = SimpleNamespace(
        get_all_samples=lambda: SimpleNamespace(data=stereo, sample_rate=SAMPLE_RATE)
    )
    for source in (
        {"bytes": file.read_bytes(), "path": "gone.wav"},
        {"bytes": None, "path": str(file)},
        {"array": tone, "sampling_rate": SAMPLE_RATE, "path": None},
        decoder,
    ):
        np.testing.assert_allclose(load_audio(source), tone, atol=1e-6)


ERRORS = {
    "missing file": (lambda _: load_audio("no/such.wav"), AudioNotFoundError, "does not exist"),
    "no such home": (lambda _: load_audio("~nobody/a.wav"), AudioNotFoundError, "does not exist"),
    "long name": (lambda _: load_audio("x" * 300), AudioNotFoundError, "cannot be read"),
    "folder": (lambda folder: load_audio(folder), AudioNotFoundError, "is a folder"),
    "not audio": (
        lambda _: load_audio(b"x" * 999),
        AudioDecodeError,
        r"not audio that can be .*cut off .*; voice2face reads WAV, .* AIFF, M4A and the",
    ),
    "text file": (
        lambda _: load_audio(io.StringIO("x")),
        AudioFormatError,
        "open it as bytes, with mode 'rb'",
    ),
    "address": (lambda _: load_audio("https://a.b/c.wav"), AudioNotFoundError, "download it first"),
    "several": (
        lambda _: load_audio([{"array": np.zeros(9), "sampling_rate": 16_000}]),
        AudioFormatError,
        "pipe.map takes several",
    ),
    "empty bytes": (lambda _: load_audio(b""), AudioDecodeError, "given bytes: it is empty"),
    "empty name": (lambda _: load_audio(""), AudioNotFoundError, "an empty name; name a recording"),
    "base64": (
        lambda _: load_audio(base64.b64encode(bytes(99_999)).decode()),
        AudioNotFoundError,
        "^a text of 133332 characters is no path; of base64, give the bytes: base64.b64decode",
    ),
    "empty": (lambda _: load_audio(np.zeros(0), 16_000), NoSpeechError, "is empty"),
    "no rate": (lambda _: load_audio(np.zeros(9)), AudioFormatError, "needs its sample_rate"),
    "absurd rate": (lambda _: load_audio(np.zeros(9), 3), AudioFormatError, "sample rate of 3"),
    "NaN rate": (
        lambda _: load_audio(np.zeros(9), float("nan")),
        AudioFormatError,
        "sample rate of nan",
    ),
    "NaN": (lambda _: load_audio([0.0, float("nan")], 16_000), AudioFormatError, "NaN or inf"),
    "infinite": (lambda _: load_audio([0.0, float("inf")], 16_000), AudioFormatError, "NaN or"),
    "not scaled": (lambda _: load_audio([1e9, -1e9], 16_000), AudioFormatError, "full scale"),
    "absurd length": (
        lambda _: load_audio(np.zeros(5 * 3600 * 4000, np.int8), 4_000),
        AudioFormatError,
        "5.0 hours at 4000 Hz are more than",
    ),
    "three axes": (lambda _: load_audio(np.zeros((2, 2, 2)), 16_000), AudioFormatError, "shape"),
    "many channels": (
        lambda _: load_audio(np.zeros((100, 200)), 16_000),
        AudioFormatError,
        "over 64 channels",
    ),
    "text array": (lambda _: load_audio(["a"], 16_000), AudioFormatError, "cannot be used"),
    "eight bits": (
        lambda _: load_audio(torch.zeros(9, dtype=torch.float8_e4m3fn), 16_000),
        AudioFormatError,
        "cannot be used",
    ),
    "no samples in it": (
        lambda _: load_audio(torch.zeros(9, device="meta"), 16_000),
        AudioFormatError,
        "cannot be used",
    ),
    "endless rate": (
        lambda _: load_audio(np.zeros(9), 10**400),
        AudioFormatError,
        "cannot be used",
    ),
    "pair and rate": (
        lambda _: load_audio((np.zeros(9), 16_000), 8_000),
        AudioFormatError,
        "sample_rate=8000 contradicts 16000",
    ),
    "dictionary and rate": (
        lambda _: load_audio({"array": np.zeros(9), "sampling_rate": 16_000}, 48_000),
        AudioFormatError,
        "sample_rate=48000 contradicts 16000",
    ),
    "path and rate": (
        lambda _: load_audio("talk.wav", 22_050),
        AudioFormatError,
        "talk.wav: a file says its own sample rate",
    ),
    "path with rate": (
        lambda _: load_audio(("talk.wav", 22_050)),
        AudioFormatError,
        "talk.wav: a file says its own sample rate",
    ),
    "bytes and rate": (
        lambda _: load_audio(bytes(9), 22_050),
        AudioFormatError,
        "raw samples are given as an array",
    ),
    "two arrays": (
        lambda _: load_audio((np.zeros(9), np.zeros(9)), 16_000),
        AudioFormatError,
        "cannot be used",
    ),
    "64 bits": (lambda _: load_audio([1, 2], 16_000), AudioFormatError, "give int16"),
    "16 bits in 32": (
        lambda _: load_audio(np.array([0, -(2**15), 9], np.int32), 16_000),
        AudioFormatError,
        "the largest here is 32768; if these are 16-bit samples, give them as int16",
    ),
    "wrong keys": (lambda _: load_audio({"wave": 1}), AudioFormatError, "'sampling_rate'"),
    "triple": (lambda _: load_audio((1, 2, 3)), AudioFormatError, "a tuple of 3"),
    "wrong type": (lambda _: load_audio(7), AudioFormatError, "cannot be read from int"),
    "silent": (
        lambda _: speech_frames(np.zeros(99_999, np.float32)),
        NoSpeechError,
        "is silent, or far too quiet; check the microphone",
    ),
    "constant": (lambda _: speech_frames(np.ones(99_999, np.float32)), NoSpeechError, "is silent"),
    "too short": (lambda _: speech_frames(_noise(0.5)), NoSpeechError, "only 0.50 s of speech"),
    "a few samples": (lambda _: speech_frames(_noise(0.01)), NoSpeechError, "only 0.01 s"),
}


def _noise(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, int(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_was_wrong(case: str, tmp_path: Path) -> None:
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message) as caught:
        call(tmp_path)
    assert isinstance(caught.value, Voice2FaceError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "locked.wav"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(AudioNotFoundError, match="cannot be read"):
        load_audio(path)


@pytest.mark.parametrize(("rate", "beyond"), [(4_000, 3_999), (768_000, 768_001)])
def test_rates_are_taken_up_to_their_limits(rate: int, beyond: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 2 * rate).astype(np.float32)
    assert len(load_audio(noise, rate)) == pytest.approx(32_000, abs=2)
    with pytest.raises(
        AudioFormatError, match=rf"{beyond}\S* Hz is not between 4000 and 768000 Hz"
    ):
        load_audio(noise, beyond)
