"""Batches of stage 2: what belongs together, and what the denoisers see beside the latents."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from tests.conftest import tiny_components, tiny_portraitist
from voice2face.data.quality_columns import QUALITY_COLUMNS
from voice2face.data.tables import UNKNOWN, FaceTable, VoiceTable
from voice2face.methods import FinePortraitist
from voice2face.methods.guided_sampling import DenoisingLoop
from voice2face.models.face_retriever import FaceRetriever
from voice2face.settings import Settings
from voice2face.training.latent_pairs import (
    BOTTOM_NOISE,
    FacePairs,
    PortraitistPairs,
    labelled_attributes,
)
from voice2face.training.latents import FARTHEST_MOVE, EncodedTables, encode_tables, moved
from voice2face.training.pairing import RaggedLists, TruePairs

FACES, VARIANTS = 6, 3
YAW = QUALITY_COLUMNS.index("yaw")
PEOPLE = list("abcdef")
NOISE = "voice2face.training.latent_pairs.BOTTOM_NOISE"


def face_table() -> FaceTable:
    quality = np.random.default_rng(3).normal(1.0, 0.1, (FACES, 6)).astype(np.float32)
    images = np.random.default_rng(4).integers(0, 255, (FACES, 32, 32, 3), dtype=np.uint8)
    return FaceTable(images, np.arange(FACES) % 2, np.arange(FACES), quality, PEOPLE)


def encoded_tables() -> EncodedTables:
    torch.manual_seed(0)
    latents = torch.randn(FACES, 2, 4, 8, 8)
    quality = torch.from_numpy(face_table().quality)[:, None].repeat(1, 2, 1)
    quality[:, 1, YAW] *= -1
    embeddings = torch.nn.functional.normalize(torch.randn(FACES, VARIANTS, 16), dim=2)
    return EncodedTables(latents, quality, embeddings)


def portraitist_pairs(
    stage: Literal["bottom", "upper"], tables: EncodedTables, retriever: FaceRetriever
) -> PortraitistPairs:
    found = [retriever.retrieve(of_variant).ids for of_variant in tables.embeddings.unbind(1)]
    rows = [[retriever.rows[name] for (name,) in of_variant] for of_variant in found]
    return PortraitistPairs(
        stage=stage,
        faces=face_table(),
        tables=tables,
        bottoms=torch.randn(FACES, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        pairing=TruePairs(PEOPLE, PEOPLE[::-1]),
        entries=retriever.entries,
        nearest=torch.tensor(rows).T,
    )


def places(drawn: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Row and variant ``(count, 2)`` of each thing drawn among ``(rows, variants, ...)``."""
    flat = among.flatten(2)
    equal = (drawn.flatten(1)[:, None, None] == flat).all(3)
    assert bool((equal.sum((1, 2)) == 1).all())
    return equal.nonzero()[:, 1:]


def test_a_batch_tells_of_each_face_what_belongs_to_it() -> None:
    tables = encoded_tables()
    pairs = FacePairs(faces=face_table(), tables=tables, pairing=TruePairs(PEOPLE, PEOPLE[::-1]))
    batch = pairs.sample(np.random.default_rng(0), 200)
    faces, mirrored = places(batch.clean, tables.latents).T
    voices, variants = places(batch.speech, tables.embeddings).T
    assert len(batch.clean) == 200
    assert torch.equal(voices, FACES - 1 - faces), "of the same person"
    assert (set(faces.tolist()), set(mirrored.tolist())) == (set(range(FACES)), {0, 1})
    assert set(variants.tolist()) == set(range(VARIANTS))
    assert torch.equal(batch.quality, tables.quality[faces, mirrored])
    assert torch.equal(batch.attributes[:, 0], 2.0 * (faces % 2) - 1.0)
    assert torch.equal(batch.attributes[:, 1].floor(), faces.float())
    assert batch.beside is None


def test_mirrored_faces_look_the_other_way() -> None:
    tables = encoded_tables()
    pairs = FacePairs(faces=face_table(), tables=tables, pairing=TruePairs(PEOPLE, PEOPLE))
    batch = pairs.sample(np.random.default_rng(0), 64)
    _, mirrored = places(batch.clean, tables.latents).T
    assert torch.equal(batch.quality[:, YAW] < 0, mirrored.bool())
    assert bool((batch.quality[:, [k for k in range(6) if k != YAW]] > 0).all())


def test_beside_a_bottom_face_lies_the_one_found_for_the_voice() -> None:
    tables, retriever = encoded_tables(), tiny_portraitist()["retriever"]
    pairs = portraitist_pairs("bottom", tables, retriever)
    batch = pairs.sample(np.random.default_rng(0), 100)
    faces, mirrored = places(batch.clean, pairs.bottoms).T
    voices, variants = places(batch.speech, tables.embeddings).T
    assert torch.equal(voices, FACES - 1 - faces)
    assert torch.equal(batch.quality, tables.quality[faces, mirrored])
    found = pairs.nearest[voices, variants]
    assert len(set(found.tolist())) > 2
    assert torch.equal(batch.beside, retriever.entries.bottoms[found])


def test_beside_a_whole_face_lie_its_bottom_and_the_one_found_for_the_voice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NOISE, 0.0)
    tables, retriever = encoded_tables(), tiny_portraitist()["retriever"]
    pairs = portraitist_pairs("upper", tables, retriever)
    batch = pairs.sample(np.random.default_rng(0), 100)
    faces, mirrored = places(batch.clean, tables.latents).T
    voices, variants = places(batch.speech, tables.embeddings).T
    assert torch.equal(voices, FACES - 1 - faces)
    assert torch.equal(batch.quality, tables.quality[faces, mirrored])
    bottoms = pairs.bottoms[faces, mirrored]
    found = retriever.entries.faces[pairs.nearest[voices, variants]]
    assert torch.equal(batch.beside, torch.cat([bottoms, found], 1))


def test_bottom_faces_alone_are_disturbed_while_the_upper_denoiser_learns() -> None:
    tables, retriever = encoded_tables(), tiny_portraitist()["retriever"]
    pairs = portraitist_pairs("upper", tables, retriever)
    batch = pairs.sample(np.random.default_rng(0), 50)
    faces, mirrored = places(batch.clean, tables.latents).T
    voices, variants = places(batch.speech, tables.embeddings).T
    bottoms, found = batch.beside.split(4, 1)
    noise = bottoms - pairs.bottoms[faces, mirrored]
    assert float(noise.std()) == pytest.approx(BOTTOM_NOISE, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert torch.equal(found, retriever.entries.faces[pairs.nearest[voices, variants]])


def test_the_method_shows_both_denoisers_what_they_learnt_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NOISE, 0.0)
    tables, components = encoded_tables(), tiny_portraitist()
    learnt = {
        stage: portraitist_pairs(stage, tables, components["retriever"]).sample(
            np.random.default_rng(0), 8
        )
        for stage in ("bottom", "upper")
    }
    shown = {}

    def note(loop: DenoisingLoop, *_: object, beside: torch.Tensor, **__: object):
        stage = "bottom" if loop.denoiser is components["bottom_denoiser"] else "upper"
        shown[stage] = beside
        return learnt[stage].clean

    monkeypatch.setattr("voice2face.methods.fine_portraitist.sample_guided", note)
    method = FinePortraitist(
        **{name: components[name] for name in ("retriever", "bottom_denoiser", "upper_denoiser")}
    )
    generators = [torch.Generator().manual_seed(k) for k in range(8)]
    speech, settings = learnt["bottom"].speech, Settings(1, 1.0, 0.0, "tiny")
    quality = method.quality(generators, settings)
    method.draw(speech, quality, generators, components["scheduler"], settings)
    for stage, batch in learnt.items():
        assert torch.equal(batch.speech, speech)
        assert torch.equal(shown[stage], batch.beside), stage


def test_sex_and_age_are_told_where_both_are_known() -> None:
    sex = np.array([0, 1, UNKNOWN, 1, UNKNOWN, 0])
    age = np.array([0, 5, 2, UNKNOWN, UNKNOWN, 3])
    faces = FaceTable(np.zeros((6, 2, 2, 3)), sex, age, np.zeros((6, 6)), PEOPLE)
    rows = np.repeat(np.arange(6), 100)
    told = labelled_attributes(faces, rows, np.random.default_rng(0)).unflatten(0, (6, 100))
    assert bool(told[[2, 3, 4]].isnan().all())
    for row in (0, 1, 5):
        assert set(told[row, :, 0].tolist()) == {2.0 * sex[row] - 1.0}
        within = told[row, :, 1] - float(age[row])
        assert 0.0 <= float(within.min()) < 0.1
        assert 0.9 < float(within.max()) < 1.0


def test_mirrors_differ_in_the_sign_of_their_yaw_and_in_nothing_else() -> None:
    faces, components = face_table(), tiny_components()
    quality = faces.quality.copy()
    speech = [np.full(40_000, 500 * k, np.int16) for k in (1, -1)]
    voices = VoiceTable(speech, *np.zeros((2, 2), int), *[["x", "y"]] * 4)
    how = {"variants": 1, "device": torch.device("cpu")}
    networks = (components["face_encoder"], components["speech_encoder"])
    encoded = encode_tables(faces, voices, *networks, **how)
    assert np.array_equal(faces.quality, quality), "the table stays as it is"
    assert torch.equal(encoded.quality[:, 0], torch.from_numpy(quality))
    expected = torch.from_numpy(quality)
    expected[:, YAW] *= -1
    assert torch.equal(encoded.quality[:, 1], expected)

    reflected = replace(faces, images=faces.images[:, :, ::-1].copy())
    again = encode_tables(reflected, voices, *networks, **how)
    assert torch.equal(again.latents, encoded.latents.flip(1))
    assert not torch.equal(encoded.latents[:, 0], encoded.latents[:, 1])


def test_moved_faces_are_the_faces_a_few_pixels_further() -> None:
    pictures = torch.arange(4 * 3 * 16 * 16.0).view(4, 3, 16, 16)
    seen = moved(pictures, torch.Generator().manual_seed(0))
    assert seen.shape == pictures.shape
    corners = set()
    for before, after in zip(pictures, seen, strict=True):
        inner = after[:, FARTHEST_MOVE:-FARTHEST_MOVE, FARTHEST_MOVE:-FARTHEST_MOVE]
        side = inner.shape[1]
        windows = before.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
        places = (windows == inner).flatten(2).all(2).nonzero()
        assert len(places) == 1
        corners.add(tuple(places[0].tolist()))
    assert len(corners) > 1, "each its own way"


def test_moved_views_come_in_pairs_whose_yaw_is_that_of_faces_and_mirrors() -> None:
    faces, components = face_table(), tiny_components()
    speech = [np.full(40_000, 500, np.int16)]
    voices = VoiceTable(speech, *np.zeros((2, 1), int), *[["x"]] * 4)
    networks = (components["face_encoder"], components["speech_encoder"])
    how = {"variants": 1, "device": torch.device("cpu")}
    plain = encode_tables(faces, voices, *networks, **how)
    more = encode_tables(faces, voices, *networks, **how, moves=2)
    assert more.latents.shape[:2] == (FACES, 6)
    assert torch.equal(more.latents[:, :2], plain.latents)
    assert torch.equal(more.quality, plain.quality.repeat(1, 3, 1))


def test_one_of_each_list_is_drawn_as_often_as_any_other_of_it() -> None:
    lists = RaggedLists([[7], [1, 2, 3], [5, 5, 6, 8]])
    which = np.repeat([2, 0, 1], 3_000)
    drawn = lists.draw(np.random.default_rng(0), which)
    assert set(drawn[3_000:6_000].tolist()) == {7}
    for part, expected in ((drawn[:3_000], [5, 5, 6, 8]), (drawn[6_000:], [1, 2, 3])):
        for value in set(expected):
            share = expected.count(value) / len(expected)
            assert abs(float((part == value).mean()) - share) < 0.05
