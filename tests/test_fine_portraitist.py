"""Fine-portraitist: what is retrieved, the two stages, and a retriever of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from tests.conftest import tiny_components, tiny_portraitist, tiny_retriever
from voice2face import Voice2FacePipeline
from voice2face.data.tables import VoiceTable, decode_face
from voice2face.errors import PictureError, SettingError
from voice2face.methods import FinePortraitist
from voice2face.models.face_retriever import FaceRetriever
from voice2face.own_faces import OwnFace, retriever_over
from voice2face.settings import Settings
from voice2face.training.latent_pairs import nearest_entries
from voice2face.training.retriever import encode_entries


class Draws(torch.nn.Module):
    """A denoiser that sees through all noise to a goal, and remembers what lay beside it."""

    def __init__(self, schedule, goal: torch.Tensor) -> None:
        super().__init__()
        self.schedule, self.goal = schedule, goal
        self.device_of = torch.nn.Parameter(torch.zeros(()))
        self.denoiser = tiny_components()["denoiser"]
        self.config, self.dtype, self.beside = self.denoiser.config, torch.float32, []

    @property
    def device(self) -> torch.device:
        return self.device_of.device

    def good_portraits(self, generators: list[torch.Generator], variety: float) -> torch.Tensor:
        return self.denoiser.good_portraits(generators, variety)

    def condition(self, *arguments: torch.Tensor, **more: torch.Tensor):
        return self.denoiser.condition(*arguments, **more)

    def forward(self, latents: torch.Tensor, t: torch.Tensor, condition) -> torch.Tensor:
        self.beside.append(condition.beside)
        alpha_bar = self.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (latents - alpha_bar.sqrt() * self.goal) / (1 - alpha_bar).sqrt()
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * self.goal


@pytest.fixture
def portraitist() -> Voice2FacePipeline:
    return Voice2FacePipeline(**tiny_portraitist(), output_size=48, name="fine").to("cpu")


def test_bottom_face_is_drawn_near_the_retrieved_one_and_the_whole_face_around_it() -> None:
    schedule = tiny_components("v_prediction")["scheduler"]
    bottom, whole = torch.randn(2, 4, 8, 8)
    to_bottom, to_upper = Draws(schedule, bottom), Draws(schedule, whole)
    retriever = tiny_retriever()
    method = FinePortraitist(retriever, to_bottom, to_upper)
    speech = retriever.entries.speech[[4, 1]]
    steps = []

    def note(index: int, timestep: int, latents: torch.Tensor) -> torch.Tensor:
        steps.append(index)
        return latents

    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    settings = Settings(3, 1.0, 0.0, "oracle")
    sample = method.sample(speech, generators, schedule, settings, note)
    torch.testing.assert_close(sample.latents, whole.expand(2, -1, -1, -1), atol=1e-3, rtol=1e-3)
    assert sample.retrieved is not None
    assert sample.retrieved.ids == (("face-4",), ("face-1",))
    assert steps == [0, 1, 2, 3, 4, 5]
    assert len(to_bottom.beside) == len(to_upper.beside) == 3
    torch.testing.assert_close(to_bottom.beside[0], retriever.entries.bottoms[[4, 1]])
    drawn, retrieved = to_upper.beside[0].split(4, 1)
    torch.testing.assert_close(drawn, bottom.expand(2, -1, -1, -1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(retrieved, retriever.entries.faces[[4, 1]])


def test_a_portrait_says_which_faces_it_was_drawn_from(
    portraitist: Voice2FacePipeline, tone: np.ndarray
) -> None:
    heard = portraitist.listen(tone, 16_000)
    expected = portraitist.retriever.retrieve(heard.embedding[None])
    portraits = portraitist(tone, 16_000, num_images=2, num_inference_steps=2)
    for portrait in portraits:
        (found,) = portrait.evidence.retrieved
        assert found.id == expected.ids[0][0]
        assert found.score == pytest.approx(expected.scores[0, 0].item())
        assert portrait.evidence.as_dict()["retrieved"] == [{"id": found.id, "score": found.score}]
        json.dumps(portrait.evidence.as_dict())
    assert heard.evidence.retrieved == ()


def test_a_picture_is_the_same_alone_and_in_a_batch(
    portraitist: Voice2FacePipeline, tone: np.ndarray
) -> None:
    batch = portraitist(tone, 16_000, num_images=3, seed=5, num_inference_steps=2)
    alone = portraitist(tone, 16_000, seed=7, num_inference_steps=2)
    difference = np.asarray(batch[2].image).astype(int) - np.asarray(alone[0].image)
    assert np.abs(difference).max() <= 1
    assert batch[2].evidence == alone[0].evidence


def test_a_saved_checkpoint_draws_the_same_picture(
    portraitist: Voice2FacePipeline, tone: np.ndarray, tmp_path: Path
) -> None:
    folder = portraitist.save_pretrained(tmp_path / "fine")
    again = Voice2FacePipeline.from_pretrained(folder, device="cpu")
    assert isinstance(again.method, FinePortraitist)
    assert again.retriever.entries.ids == portraitist.retriever.entries.ids
    pictures = [
        np.asarray(pipe(tone, 16_000, seed=1, num_inference_steps=2).images[0]).astype(int)
        for pipe in (portraitist, again)
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 3  # the entries are kept in half precision


def test_another_retriever_gives_other_faces(
    portraitist: Voice2FacePipeline, tone: np.ndarray, tmp_path: Path
) -> None:
    before = portraitist(tone, 16_000, seed=1, num_inference_steps=2)
    cast = FaceRetriever.load(tiny_retriever(4, "cast-member").save_pretrained(tmp_path / "cast"))
    portraitist.retriever = cast
    after = portraitist(tone, 16_000, seed=1, num_inference_steps=2)
    assert after.evidence.retrieved[0].id.startswith("cast-member-")
    assert after[0].provenance.checkpoint_sha256 is None, "it is not the checkpoint's own cast"
    assert before.images[0].tobytes() != after.images[0].tobytes()
    portraitist.retriever = FaceRetriever(cast.entries, top_k=3, temperature=0.1)
    mixed = portraitist(tone, 16_000, seed=1, num_inference_steps=2)
    scores = [face.score for face in mixed.evidence.retrieved]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_a_retriever_over_own_faces(
    portraitist: Voice2FacePipeline, tone: np.ndarray, recording: str
) -> None:
    higher = np.sin(np.arange(48_000) * 0.3).astype(np.float32)
    colours = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black")]
    cast = [
        OwnFace("ann", recording, colours[0], "own"),
        OwnFace("bob", (higher, 16_000), colours[1], "CC0-1.0"),
    ]
    retriever = retriever_over(portraitist, cast)
    assert retriever.entries.licences == ("own", "CC0-1.0")
    torch.testing.assert_close(retriever.entries.faces, portraitist.encode(colours))
    torch.testing.assert_close(
        retriever.entries.bottoms, portraitist.encode(colours, bottom_only=True)
    )
    portraitist.retriever = retriever
    made = portraitist(tone, 16_000, num_inference_steps=1)
    assert made.evidence.retrieved[0].id == "ann"
    assert made.evidence.retrieved[0].score == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(SettingError, match="at least one entry"):
        retriever_over(portraitist, [])
    with pytest.raises(SettingError, match="no faces"):
        portraitist.encode([])


def test_own_faces_are_upright_squares(
    portraitist: Voice2FacePipeline, recording: str, tmp_path: Path
) -> None:
    half = np.zeros((64, 64, 3), np.uint8)
    half[:32] = 255
    face, file = Image.fromarray(half), tmp_path / "face.png"
    exact = portraitist.encode([face])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter
    face.rotate(90).save(file, exif=exif)
    with Image.open(file) as turned:
        assert torch.equal(portraitist.encode([turned]), exact)
    assert np.array_equal(decode_face(file.read_bytes(), 64), half)
    face.save(file, exif=b"Exif\0\0nonsense")
    with Image.open(file) as of_damaged_exif:
        assert torch.equal(portraitist.encode([of_damaged_exif]), exact)
    for size in ((63, 65), (128, 64)):
        squeezed = OwnFace("ann", recording, Image.new("RGB", size), "own")
        with pytest.raises(PictureError, match=f"given picture has {size[0]} x {size[1]} pixels"):
            retriever_over(portraitist, [squeezed])
    assert portraitist.encode([Image.new("RGB", (64, 65))]).shape == exact.shape


def test_a_retriever_of_another_checkpoint_is_refused(portraitist: Voice2FacePipeline) -> None:
    entries = tiny_retriever().entries
    longer = torch.nn.functional.normalize(torch.randn(6, 20), dim=1)
    with pytest.raises(SettingError, match=r"speech are of shape \(20,\)"):
        portraitist.retriever = FaceRetriever(entries._replace(speech=longer))
    wider = torch.randn(6, 4, 9, 9)
    with pytest.raises(SettingError, match="faces are of shape"):
        portraitist.retriever = FaceRetriever(entries._replace(faces=wider, bottoms=wider))


def test_a_method_without_a_retriever_says_so(tiny_pipeline: Voice2FacePipeline) -> None:
    with pytest.raises(SettingError, match="retrieves no faces"):
        _ = tiny_pipeline.retriever
    with pytest.raises(SettingError, match="retrieves no faces"):
        tiny_pipeline.retriever = tiny_retriever()


def test_components_of_no_method_are_refused() -> None:
    parts = tiny_portraitist()
    del parts["upper_denoiser"]
    with pytest.raises(TypeError, match="no method has the components"):
        Voice2FacePipeline(**parts)


def test_ids_that_entries_could_not_be_told_apart_by_are_refused() -> None:
    nobody = [np.zeros(0, int)] * 2
    voices = VoiceTable([np.zeros(1)], *[np.zeros(1, int)] * 2, ["one"], ["a+b"], [""], [""])
    with pytest.raises(SettingError, match="no voice's id may hold a \\+"):
        encode_entries(None, voices, nobody, None, None, "", torch.device("cpu"))


def test_training_does_not_retrieve_a_speakers_own_entries() -> None:
    entries = tiny_retriever().entries
    names = [f"f{k}+v{k}" for k in range(6)]
    retriever = FaceRetriever(entries._replace(ids=tuple(names)))
    speakers = ["ann", "ann", "bob", "cem", "dee", "eva"]
    embeddings = torch.stack([entries.speech, -entries.speech], 1)
    rows = nearest_entries(retriever, embeddings, [f"v{k}" for k in range(6)], speakers)
    assert rows.shape == (6, 2)
    cosines = entries.speech @ entries.speech.T
    for voice, speaker in enumerate(speakers):
        others = [k for k in range(6) if speakers[k] != speaker]
        assert rows[voice, 0] == max(others, key=lambda k, v=voice: float(cosines[v, k]))
        assert rows[voice, 1] == min(others, key=lambda k, v=voice: float(cosines[v, k]))
