from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from tests.conftest import tiny_components
from voice2face.models import Denoiser, FaceDecoder, FaceEncoder, SpeakerEncoder, SpeechEncoder
from voice2face.models.attribute_heads import SpeechEncoding
from voice2face.models.bottom_face import bottom_face, first_bottom_row
from voice2face.models.cbam import CBAM
from voice2face.models.heard_attributes import emphasised_attributes, heard_attributes
from voice2face.models.network import Network
from voice2face.models.spectrograms import mel_filters
from voice2face.training.starting_denoiser import with_attribute_inputs

NETWORKS = ["speech_encoder", "face_encoder", "face_prior", "denoiser", "face_decoder"]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_survive_saving(name: str, tmp_path: Path) -> None:
    network = tiny_components()[name]
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False)
    for key, value in network.config.items():
        if not key.startswith("_"):
            kept = again.config[key]
            assert (tuple(kept) if isinstance(kept, list) else kept) == value, key
    state = again.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(state[key], value), key
    assert [path.suffix for path in tmp_path.iterdir() if "json" not in path.suffix] == [
        ".safetensors"
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_say_where_they_lie_without_a_walk(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_components()[name]
    torch.nn.Module.to(network, "meta", torch.float16)
    monkeypatch.setattr(torch.nn.Module, "modules", lambda _: pytest.fail("walked"))
    assert (network.device, network.dtype) == (torch.device("meta"), torch.float16)


@pytest.mark.parametrize("kind", Network.__subclasses__())
def test_every_number_of_a_configuration_has_a_range(kind: type) -> None:
    assert kind.ranges.keys() == inspect.signature(kind).parameters.keys()
    for name, value in kind().config.items():
        if not name.startswith("_"):
            low, high = kind.ranges[name]
            numbers = value if isinstance(value, tuple) else (value,)
            assert all(low <= number <= high for number in numbers), name


def test_cbam_keeps_the_shape_and_only_weakens() -> None:
    features = torch.rand(2, 16, 5, 7) + 0.1
    weighed = CBAM(16)(features)
    assert weighed.shape == features.shape
    assert (weighed < features).all()


@pytest.mark.parametrize("size", [64, 128, 256])
def test_latent_is_eight_by_eight_at_any_resolution(size: int) -> None:
    shape = {"image_size": size, "patch_size": size // 64, "block_channels": (8, 8, 8, 8)}
    encoder, decoder = FaceEncoder(**shape), FaceDecoder(**shape)
    images = torch.rand(2, 3, size, size) * 2 - 1
    latents = encoder(images)
    assert encoder.latent_size == 8
    assert latents.shape == (2, 16, 8, 8)
    assert decoder(latents).shape == images.shape
    torch.testing.assert_close(encoder.embed(latents).norm(dim=1), torch.ones(2))


def test_latents_are_standardised_per_channel_in_training() -> None:
    torch.manual_seed(0)
    encoder = FaceEncoder(image_size=32, block_channels=(8, 8), blocks_per_level=(0, 1)).train()
    latents = encoder(4 * torch.randn(16, 3, 32, 32))
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        latents.std((0, 2, 3), correction=0), torch.ones(16), atol=1e-2, rtol=0
    )


def test_speech_embedding_ignores_loudness(female_speech: Path) -> None:
    speech, _ = sf.read(female_speech, dtype="float32")
    encoder = tiny_components()["speech_encoder"].eval()
    batch = torch.from_numpy(np.stack([speech[:96_000], 0.1 * speech[:96_000]]))
    encoding = encoder(batch)
    assert encoding.embedding.shape == (2, 16)
    assert encoding.sex_logits.shape == (2, 2)
    assert encoding.age_logits.shape == (2, 6)
    torch.testing.assert_close(encoding.embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(encoding.embedding[0], encoding.embedding[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", [SpeechEncoder, SpeakerEncoder])
def test_silence_gives_a_finite_embedding(kind: type) -> None:
    encoding = kind(embedding_dim=16).eval()(torch.zeros(1, 32_000))
    assert torch.isfinite(encoding.embedding).all()


@pytest.mark.parametrize("kind", [SpeechEncoder, SpeakerEncoder])
def test_a_window_is_six_seconds_at_16_khz(kind: type) -> None:
    assert kind().window_samples == 96_000


def test_mel_filters_have_equal_area_and_their_peaks_on_slaneys_scale() -> None:
    filters = mel_filters(16_000, 4_000, 40).double()
    frequencies = torch.linspace(0, 8_000, 2_001, dtype=torch.float64)
    torch.testing.assert_close(
        torch.trapezoid(filters, frequencies), torch.ones(40).double(), atol=2e-3, rtol=0
    )
    peaks = frequencies[filters.argmax(1)]
    mels = torch.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 42, dtype=torch.float64)[1:-1]
    hertz = torch.where(mels < 15, mels * 200 / 3, 1_000 * 6.4 ** ((mels - 15) / 27))
    torch.testing.assert_close(peaks, hertz, atol=4.0, rtol=0)


def test_speaker_encoder_hears_slices_of_a_voice_at_any_loudness(female_speech: Path) -> None:
    speech = torch.from_numpy(sf.read(female_speech, dtype="float32")[0])[None, :96_000]
    torch.manual_seed(0)
    encoder = SpeakerEncoder(hidden_size=16, layers=1, speaker_dim=8, embedding_dim=16).eval()
    features = encoder.speaker_features(speech)
    torch.testing.assert_close(encoder.speaker_features(0.05 * speech), features)
    # 601 frames hold six slices of 160 that start 80 frames apart
    spectrogram = encoder.spectrogram(speech)
    slices = [spectrogram[:, start : start + 160] for start in range(0, 442, 80)]
    alone = [encoder.to_speaker(encoder.recurrent(one)[1][0][-1]) for one in slices]
    torch.testing.assert_close(features, torch.stack(alone).mean(0))
    encoding = encoder(speech)
    torch.testing.assert_close(encoding.embedding.norm(dim=1), torch.ones(1))
    assert encoding.sex_logits.shape == (1, 2)
    assert torch.isfinite(encoder(speech[:, :8_000]).embedding).all()


def test_denoiser_hears_voice_time_and_quality() -> None:
    denoiser: Denoiser = tiny_components()["denoiser"].eval()
    latents = torch.randn(1, 4, 8, 8)
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)

    def predict(voice: int, time: int, sharpness: float, kept: bool = True) -> torch.Tensor:
        quality = torch.tensor([[sharpness, 0, 0, 0, 0, 0]])
        flags = torch.tensor([kept])
        condition = denoiser.condition(speech[voice : voice + 1], quality, flags, flags)
        return denoiser(latents, torch.tensor([time]), condition)

    usual = predict(0, 500, 0.0)
    assert usual.shape == latents.shape
    for other in (predict(1, 500, 0.0), predict(0, 100, 0.0), predict(0, 500, 2.0)):
        assert not torch.allclose(usual, other)
    assert torch.equal(predict(0, 500, 0.0, kept=False), predict(1, 500, 2.0, kept=False))


def test_age_is_the_median_of_what_is_heard_and_sex_the_likelier() -> None:
    shares = torch.tensor(
        [
            [0.5, 0.5, 0, 0, 0, 0],
            [0.8, 0.2, 0, 0, 0, 0],
            [0.1, 0.1, 0.6, 0.1, 0.1, 0],
            [0, 0, 0, 0, 0, 1.0],
        ]
    )
    sex_logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0], [1.0, 0.0]])
    nothing = torch.zeros(4, 1)
    heard = heard_attributes(SpeechEncoding(nothing, sex_logits, shares.log(), nothing))
    expected = torch.tensor([[-1, 1.0], [1, 0.625], [1, 2.5], [-1, 5.5]])
    torch.testing.assert_close(heard, expected)


def test_denoiser_is_told_sex_and_age_as_the_voice_or_the_caller_says() -> None:
    torch.manual_seed(0)
    config = dict(tiny_components()["denoiser"].config)
    denoiser = Denoiser.from_config(config, heard_attributes=2).eval()
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    quality = torch.zeros(2, 6)
    heard = heard_attributes(denoiser.describe(speech))
    by_voice = denoiser.condition(speech, quality).numbers
    assert torch.equal(by_voice, denoiser.condition(speech, quality, attributes=heard).numbers)
    told = torch.tensor([[1.0, 3.5], [float("nan"), 1.0]])
    numbers = denoiser.condition(speech, quality, attributes=told).numbers
    assert numbers[:, 7:].tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    kept = torch.tensor([True, False])
    dropped = denoiser.condition(speech, quality, kept, attributes=told[[0, 0]]).numbers
    assert dropped[:, 7:].tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="0 or 2"):
        Denoiser.from_config(config, heard_attributes=1)


def test_what_is_heard_is_emphasised_but_no_child_is_asked_for() -> None:
    heard = torch.tensor([[-1.0, 0.5], [1.0, 2.0], [1.0, 3.0], [1.0, 5.5]])
    expected = torch.tensor([[-1.5, 0.0], [1.5, 2.0], [1.5, 3.5], [1.5, 6.0]])
    torch.testing.assert_close(emphasised_attributes(heard, 1.5), expected)
    config = dict(tiny_components()["denoiser"].config)
    denoiser = Denoiser.from_config(config, heard_attributes=2, attributes_emphasis=1.5).eval()
    speech = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    quality = torch.zeros(2, 6)
    told = emphasised_attributes(heard_attributes(denoiser.describe(speech)), 1.5)
    by_voice = denoiser.condition(speech, quality).numbers
    assert torch.equal(by_voice, denoiser.condition(speech, quality, attributes=told).numbers)


def test_a_denoiser_that_learns_of_attributes_starts_as_it_was() -> None:
    denoiser: Denoiser = tiny_components()["denoiser"].eval()
    wider = with_attribute_inputs(denoiser).eval()
    speech, quality = torch.nn.functional.normalize(torch.randn(1, 16), dim=1), torch.zeros(1, 6)
    latents, time = torch.randn(1, 4, 8, 8), torch.tensor([300])
    torch.testing.assert_close(
        wider(latents, time, wider.condition(speech, quality)),
        denoiser(latents, time, denoiser.condition(speech, quality)),
    )


def test_bottom_face_starts_below_the_eyes() -> None:
    images = torch.rand(2, 3, 128, 128) + 0.1
    bottom = bottom_face(images)
    assert (bottom[:, :, :48] == 0).all()
    assert torch.equal(bottom[:, :, 48:], images[:, :, 48:])
    assert first_bottom_row(8) == 3
    eyes, mouth = 0.300 * 128, 0.717 * 128
    assert eyes < first_bottom_row(128) < mouth
