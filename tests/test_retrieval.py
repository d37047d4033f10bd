from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.retrieval import NEIGHBOURS, compare, table
from tests.conftest import tiny_portraitist, tiny_retriever
from voice2face import Voice2FacePipeline
from voice2face.errors import ArchitectureError, OutputError, SettingError
from voice2face.models.face_entries import (
    EIGHT_BITS,
    ENTRIES_FILE,
    FORMAT,
    Entries,
    pack,
    unpack,
)
from voice2face.models.face_retriever import FaceRetriever
from voice2face.models.nearest_search import ExactSearch, FaissSearch
from voice2face.own_faces import OwnFace, retriever_over

KINDS = [ExactSearch, FaissSearch]


def made_up(count: int, first: int = 0) -> Entries:
    generator = torch.Generator().manual_seed(first)
    speech = torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=1)
    faces, bottoms = torch.randn(2, count, 4, 2, 2, generator=generator)
    names = tuple(f"face-{first + k}" for k in range(count))
    return Entries(speech, faces, bottoms, names, tuple(f"CC BY {name}" for name in names))


def assert_same(found: Entries, expected: Entries) -> None:
    for one, other in zip(found[:3], expected[:3], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.float(), other.float())
    assert (found.ids, found.licences) == (expected.ids, expected.licences)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_voice_gives_its_faces(kind: type) -> None:
    entries = made_up(20)
    found = FaceRetriever(entries, kind).retrieve(entries.speech[[3, 7]])
    assert found.ids == (("face-3",), ("face-7",))
    torch.testing.assert_close(found.scores, torch.ones(2, 1))
    torch.testing.assert_close(found.faces, entries.faces[[3, 7]])
    torch.testing.assert_close(found.bottoms, entries.bottoms[[3, 7]])


def test_faiss_finds_what_the_exact_search_finds() -> None:
    entries, queries = made_up(500), made_up(50, 1_000).speech
    exact, faiss = (FaceRetriever(entries, k).retrieve(queries, top_k=5) for k in KINDS)
    assert exact.ids == faiss.ids
    torch.testing.assert_close(exact.scores, faiss.scores)


def test_clusters_find_most_of_what_the_exact_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaissSearch, "EXACT_ENTRIES", 1_000)
    entries, queries = made_up(4_000), made_up(200, 9_000).speech
    exact = FaceRetriever(entries).retrieve(queries)
    fast = FaceRetriever(entries, FaissSearch).retrieve(queries)
    same = sum(a == b for a, b in zip(exact.ids, fast.ids, strict=True))
    assert same > 100
    assert (fast.scores <= exact.scores + 1e-6).all()


def test_where_the_nearest_clusters_hold_too_few_all_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FaissSearch, "EXACT_ENTRIES", 1_000)
    entries, queries = made_up(2_000), made_up(20, 9_000).speech
    exact, fast = (FaceRetriever(entries, k).retrieve(queries, top_k=256) for k in KINDS)
    assert all(len(set(names)) == 256 for names in fast.ids)
    assert (fast.scores[:, 0] <= exact.scores[:, 0] + 1e-6).all()
    whole = FaceRetriever(entries, partial(FaissSearch, probes=1e-3)).retrieve(queries, top_k=256)
    torch.testing.assert_close(whole.scores, exact.scores)


@pytest.mark.parametrize("count", [1, 3, 40, 60])
@pytest.mark.parametrize("scores_at_once", [1, 150, 1 << 26])
def test_lower_rows_come_first_on_a_tie(
    count: int, scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExactSearch, "SCORES_AT_ONCE", scores_at_once)
    axes = torch.eye(4)[torch.randint(4, (50,), generator=torch.Generator().manual_seed(0))]
    queries = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])
    ordered = (queries @ axes.T).sort(dim=1, descending=True, stable=True)
    scores, rows = ExactSearch(axes)(queries, count)
    assert torch.equal(rows, ordered.indices[:, :count])
    assert torch.equal(scores, ordered.values[:, :count])


def test_the_benchmark_compares_clusters_with_the_exact_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FaissSearch, "EXACT_ENTRIES", 1_000)
    exact, faiss = compare(entries=3_000, dim=32, queries=100)
    assert (exact.recall_at_1, exact.recall_at_10) == (1, 1)
    assert 0.8 < faiss.recall_at_1 <= 1
    assert 1 / NEIGHBOURS < faiss.recall_at_10 < 1, "there are clusters, and some are not searched"
    assert exact.vector_bytes == faiss.vector_bytes == 3_000 * 32 * 4
    assert all(figures.alone_seconds > 0 < figures.together_seconds for figures in (exact, faiss))
    lines = table(exact, faiss).splitlines()
    assert len(lines) == 8
    assert lines[5] == f"| recall@1 | 1.000 | {faiss.recall_at_1:.3f} | {faiss.recall_at_1:.2f} |"


def test_another_default_device_changes_nothing() -> None:
    entries = made_up(20)
    expected = FaceRetriever(entries).retrieve(entries.speech[:2], top_k=3)
    with torch.device("meta"):
        retriever = FaceRetriever(entries)
        found = retriever.retrieve(entries.speech[:2], top_k=3)
        retriever.remove(["face-0"])
    assert found.ids == expected.ids
    torch.testing.assert_close(found.faces, expected.faces)


@pytest.mark.parametrize("kind", KINDS)
def test_own_entries_can_be_left_out(kind: type) -> None:
    entries = made_up(20)
    retriever = FaceRetriever(entries, kind)
    leave_out = [{"face-3"}, {"nobody"}]
    found = retriever.retrieve(entries.speech[[3, 7]], top_k=2, leave_out=leave_out)
    usual = retriever.retrieve(entries.speech[[3, 7]], top_k=3)
    assert found.ids == (usual.ids[0][1:], usual.ids[1][:2])
    first, second, third = usual.ids[1]
    for left_out, nearest in (({first, second}, third), (first, second)):
        found = retriever.retrieve(entries.speech[[3, 7]], leave_out=[(), left_out])
        assert found.ids == (usual.ids[0][:1], (nearest,))


def test_neighbours_are_mixed_by_softmax() -> None:
    entries = made_up(20)
    found = FaceRetriever(entries).retrieve(entries.speech[:1], top_k=3, temperature=0.5)
    rows = [int(name.removeprefix("face-")) for name in found.ids[0]]
    weights = (found.scores[0] / 0.5).softmax(0)
    mixed = sum(weight * entries.faces[row] for weight, row in zip(weights, rows, strict=True))
    torch.testing.assert_close(found.faces[0], mixed)
    for temperature in (1e-4, 1e-42):
        sharp = FaceRetriever(entries).retrieve(
            entries.speech[:1], top_k=3, temperature=temperature
        )
        torch.testing.assert_close(sharp.faces[0], entries.faces[0])
    own = FaceRetriever(entries, top_k=3, temperature=0.5).retrieve(3.0 * entries.speech[:1])
    assert own.ids == found.ids
    torch.testing.assert_close(own.scores, found.scores)
    torch.testing.assert_close(own.faces, found.faces)


def test_entries_are_added_and_removed_by_id() -> None:
    small = FaceRetriever(made_up(5))
    both = small.add(made_up(3, 100))
    assert (len(small), len(both)) == (5, 8)
    query = made_up(3, 100).speech[:1]
    assert both.retrieve(query).ids == (("face-100",),)
    without = both.remove({"face-100"})
    assert len(without) == 7
    assert without.retrieve(query).ids != (("face-100",),)
    with pytest.raises(SettingError, match="same id"):
        both.add(made_up(1))
    with pytest.raises(SettingError, match="no entry is called face-999"):
        both.remove(["face-999"])
    with pytest.raises(SettingError, match="the last"):
        small.remove(small.entries.ids)
    assert small.remove("face-1").entries.ids == ("face-0", "face-2", "face-3", "face-4")


def test_what_is_added_and_what_is_left_stay_as_they_are(tmp_path: Path) -> None:
    all_entries, rows = made_up(7), [1, 4, 6]
    first, others = (
        Entries(*(part[rows] for part in all_entries)) for rows in (np.s_[:4], np.s_[4:])
    )
    retriever = FaceRetriever(first, FaissSearch, top_k=2, temperature=0.5)
    both = retriever.add(others)
    assert_same(both.entries, all_entries)
    left = both.remove({f"face-{row}" for row in range(7)} - {f"face-{row}" for row in rows})
    assert [left.entries.ids[row] for row in range(3)] == ["face-1", "face-4", "face-6"]
    for part, whole in zip(left.entries[:3], all_entries[:3], strict=True):
        assert torch.equal(part, whole[rows])
    assert left.entries.licences == tuple(all_entries.licences[row] for row in rows)
    again = FaceRetriever.load(left.save_pretrained(tmp_path), FaissSearch)
    for made in (both, left, again, again.add(first._replace(ids=list("abcd"))).remove("a")):
        assert (made.top_k, made.temperature) == (2, 0.5)
        assert isinstance(made.search, FaissSearch)


@pytest.mark.parametrize(
    ("field", "shape"),
    [("speech", (3, 9)), ("faces", (3, 4, 2, 3)), ("bottoms", (3, 5, 2, 2))],
)
def test_entries_of_other_sizes_cannot_be_added(field: str, shape: tuple[int, ...]) -> None:
    odd = made_up(3, 100)._replace(**{field: torch.ones(shape)})
    with pytest.raises(SettingError, match=f"{field} to add are of shape"):
        FaceRetriever(made_up(4)).add(odd)


def test_latents_in_eight_bits_can_be_pickled() -> None:
    exact = made_up(3)
    coarse = exact._replace(faces=exact.faces.to(EIGHT_BITS), bottoms=exact.bottoms.to(EIGHT_BITS))
    for entries in (exact, coarse):
        assert_same(pickle.loads(pickle.dumps(entries)), entries)


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    retriever = FaceRetriever(made_up(6))
    retriever.save_pretrained(tmp_path)
    again = FaceRetriever.load(tmp_path)
    assert again.entries.ids == retriever.entries.ids
    assert again.entries.licences == retriever.entries.licences
    assert again.entries.faces.dtype == torch.float16
    torch.testing.assert_close(
        again.entries.bottoms.float(), retriever.entries.bottoms, atol=2e-3, rtol=1e-3
    )
    assert (again.top_k, again.temperature) == (1, None)
    assert [path.name for path in tmp_path.iterdir()] == [ENTRIES_FILE]
    mixing = FaceRetriever(made_up(6), top_k=3, temperature=0.1)
    again = FaceRetriever.load(mixing.save_pretrained(tmp_path))
    assert (again.top_k, again.temperature) == (3, 0.1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        retriever.save_pretrained(tmp_path / "file")


def test_latents_in_eight_bits_stay_so(tmp_path: Path) -> None:
    exact = made_up(6)
    faces, bottoms = (latents.to(EIGHT_BITS) for latents in (exact.faces, exact.bottoms))
    retriever = FaceRetriever(exact._replace(faces=faces, bottoms=bottoms))
    again = FaceRetriever.load(retriever.save_pretrained(tmp_path))
    assert again.entries.faces.dtype == again.entries.bottoms.dtype == EIGHT_BITS
    query = exact.speech[[4, 2]]
    found, expected = again.retrieve(query), FaceRetriever(exact).retrieve(query)
    assert found.ids == expected.ids
    torch.testing.assert_close(found.faces, expected.faces, atol=2e-3, rtol=0.07)
    more = again.remove(["face-1"]).add(made_up(2, first=100))
    assert more.entries.faces.dtype == EIGHT_BITS
    assert len(more) == 7
    spoilt = exact.bottoms.clone()
    spoilt[3, 0, 0, 0] = torch.nan
    with pytest.raises(SettingError, match="finite"):
        FaceRetriever(exact._replace(bottoms=spoilt.to(EIGHT_BITS)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 0}, "top_k is 1 to 256"),
        ({"top_k": 257}, "top_k is 1 to 256"),
        ({"top_k": 2.5}, "top_k is 1 to 256"),
        ({"top_k": 21}, "20 entries are there"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"temperature": float("nan")}, "temperature is above 0"),
        ({"temperature": "0.1"}, "temperature is above 0"),
        ({"leave_out": []}, "0 lists to leave out"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        FaceRetriever(made_up(20)).retrieve(made_up(1).speech, **change)


@pytest.mark.parametrize("change", [{"top_k": 0}, {"top_k": True}, {"temperature": -0.1}])
def test_bad_arguments_are_named_before_a_retriever_is_kept(change: dict) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(change))} is"):
        FaceRetriever(made_up(20), **change)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("speech", torch.ones(4, 8), "length one"),
        ("speech", torch.full((4, 8), float("nan")), "finite"),
        ("faces", torch.ones(3, 4, 2, 2), "one embedding"),
        ("bottoms", torch.ones(4, 4, 2, 3), "both latents"),
        ("bottoms", torch.ones(4, 4, 2, 2, dtype=torch.int64), "floating-point"),
        ("faces", torch.tensor([1.0] * 63 + [torch.inf]).reshape(4, 4, 2, 2), "finite"),
        ("licences", ("CC0",) * 3, "a licence each"),
        ("ids", ("a", "a", "b", "c"), "same id"),
        ("ids", (), "at least one"),
    ],
)
def test_entries_that_do_not_fit_are_refused(
    field: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice2face.models.face_entries.CHECKED_AT_ONCE", 3)
    with pytest.raises(SettingError, match=message):
        FaceRetriever(made_up(4)._replace(**{field: value}))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="cannot be read"):
        FaceRetriever.load(tmp_path)
    FaceRetriever(made_up(4)).save_pretrained(tmp_path)
    file = tmp_path / ENTRIES_FILE
    tensors = load_file(file)
    save_file(tensors, file)
    with pytest.raises(ArchitectureError, match="of this version"):
        FaceRetriever.load(tmp_path)
    for name, value in (
        ("id_ends", torch.tensor([5, 3, 9, 12])),
        ("id_ends", torch.tensor([6.0, 12.0, 18.0, 24.0])),
        ("licence_ends", torch.tensor([0, 0, 0, 9_999])),
        ("speech", torch.ones(4, 8)),
    ):
        save_file(tensors | {name: value}, file, {"format": FORMAT})
        with pytest.raises(ArchitectureError, match="cannot be read"):
            FaceRetriever.load(tmp_path)
    save_file({"speech": tensors["speech"]}, file, {"format": FORMAT})
    with pytest.raises(ArchitectureError, match="lacks bottoms"):
        FaceRetriever.load(tmp_path)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ArchitectureError, match="cannot be read"):
        FaceRetriever.load(tmp_path)


@given(st.lists(st.text(max_size=40)))
@settings(max_examples=100)
def test_texts_survive_packing(texts: list[str]) -> None:
    assert unpack(*pack(texts)) == tuple(texts)


def test_endless_texts_are_refused() -> None:
    assert unpack(*pack(["a" * 200])) == ("a" * 200,)
    with pytest.raises(SettingError, match="at most 200 bytes"):
        pack(["a" * 201])


def test_retrievers_are_kept_where_a_text_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tiny_retriever().save_pretrained("~/kept") == tmp_path / "kept"
    assert FaceRetriever.load(str(tmp_path / "kept")).entries.ids == tiny_retriever().entries.ids
    with pytest.raises(ArchitectureError, match="missing"):
        FaceRetriever.load("missing")


@pytest.mark.parametrize("odd", [1, None, "x" * 201, "\udcff"])
def test_ids_and_licences_are_texts(odd: Any, tiny_pipeline: Voice2FacePipeline) -> None:
    entries = tiny_retriever().entries
    for texts in ("ids", "licences"):
        changed = entries._replace(**{texts: (*getattr(entries, texts)[1:], odd)})
        with pytest.raises(SettingError, match="texts of at most 200 bytes"):
            FaceRetriever(changed)
    for own in (OwnFace(odd, None, None, "CC0"), OwnFace("me", None, None, odd)):
        with pytest.raises(SettingError, match="texts of at most 200 bytes"):
            retriever_over(tiny_pipeline, [own])


def test_what_is_no_retriever_is_refused() -> None:
    pipe = Voice2FacePipeline(**tiny_portraitist(), output_size=48)
    for other in (None, [tiny_retriever()], tiny_retriever().entries):
        with pytest.raises(SettingError, match="retriever is a FaceRetriever"):
            pipe.retriever = other
