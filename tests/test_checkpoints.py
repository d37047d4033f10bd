"""No way in for bad files: every damaged checkpoint is refused before anything in it is used."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests.conftest import tiny_components, tiny_portraitist
from voice2face import Voice2FacePipeline, whole_folders
from voice2face.checkpoints import verified_files
from voice2face.checkpoints.files import describe_files, sha256_of, verify
from voice2face.checkpoints.manifest import MANIFEST_FILE, read_manifest
from voice2face.checkpoints.model_card import CARD
from voice2face.checkpoints.model_index import INDEX_KEYS, MODEL_INDEX, read_model_index
from voice2face.checkpoints.resolving import resolve
from voice2face.checkpoints.saving import copy_checkpoint
from voice2face.checkpoints.verified_files import memory_file
from voice2face.components import (
    CONFIG_FILE,
    SCHEDULE_FILE,
    WEIGHTS_FILE,
    check_header,
    load_component,
    load_network,
    load_schedule,
)
from voice2face.errors import (
    ArchitectureError,
    CheckpointError,
    CheckpointNotFoundError,
    ChecksumError,
    OutputError,
)
from voice2face.models import FacePrior, SpeechEncoder
from voice2face.pretrained_networks import components_of
from voice2face.training import release

FUZZ = settings(
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def saved(tiny_pipeline: Voice2FacePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline.save_pretrained(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def edit(path: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reindex(folder: Path) -> None:
    """Write checksums of the present files, as somebody who made the files on purpose would."""
    files = describe_files(folder)
    files = {name: facts for name, facts in files.items() if "/" in name}
    edit(folder / "model_index.json", lambda index: index.update(files=files))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "face_prior" / WEIGHTS_FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def config_of(folder: Path, name: str) -> Path:
    return folder / name / (SCHEDULE_FILE if name == "scheduler" else CONFIG_FILE)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "folder missing": (lambda f: shutil.rmtree(f / "denoiser"), "denoiser.* is missing"),
    "config missing": (lambda f: config_of(f, "denoiser").unlink(), "config.json is missing"),
    "no object": (lambda f: config_of(f, "denoiser").write_text("[]"), "no JSON object"),
    "no json": (lambda f: config_of(f, "denoiser").write_text("{"), "cannot be read"),
    "no text": (lambda f: config_of(f, "denoiser").write_bytes(b"\xff"), "cannot be read"),
    "half steps": (
        lambda f: edit(config_of(f, "scheduler"), lambda c: c.update(num_train_timesteps=999.5)),
        "describes no noise schedule",
    ),
    "deep json": (lambda f: config_of(f, "denoiser").write_text("[" * 10**5), "cannot be read"),
    "large json": (lambda f: config_of(f, "denoiser").write_text(" " * 2**21), "over 1 MiB"),
    "other class": (
        lambda f: edit(config_of(f, "denoiser"), lambda c: c.update(_class_name="os.system")),
        "'os.system', expected Denoiser",
    ),
    "unknown key": (
        lambda f: edit(config_of(f, "denoiser"), lambda c: c.update(turbo=True)),
        "unknown keys turbo",
    ),
    "number too large": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(image_size=10**9)),
        "image_size lies from 8 to 1024",
    ),
    "number without end": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(image_size=10**400)),
        "image_size lies from 8 to 1024",
    ),
    "no number": (
        lambda f: edit(config_of(f, "face_prior"), lambda c: c.update(weight=float("nan"))),
        "weight lies from",
    ),
    "infinite number": (
        lambda f: edit(config_of(f, "face_prior"), lambda c: c.update(weight=float("inf"))),
        "weight lies from",
    ),
    "word for a number": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(image_size="32")),
        "image_size lies from",
    ),
    "long list": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(block_channels=[8] * 99)),
        "block_channels lies from",
    ),
    "lists that differ in length": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(blocks_per_level=[1])),
        "describes no FaceDecoder",
    ),
    "other shapes": (
        lambda f: edit(config_of(f, "face_decoder"), lambda c: c.update(latent_channels=5)),
        r"its configuration asks for \[\d+, 5",
    ),
    "unknown schedule": (
        lambda f: edit(config_of(f, "scheduler"), lambda c: c.update(prediction_type="magic")),
        "prediction_type is epsilon or v_prediction",
    ),
    "absurd schedule": (
        lambda f: edit(config_of(f, "scheduler"), lambda c: c.update(num_train_timesteps=0)),
        "num_train_timesteps lies from 1",
    ),
    "weights missing": (lambda f: (f / "denoiser" / WEIGHTS_FILE).unlink(), "is missing"),
    "weights cut off": (
        lambda f: os.truncate(f / "denoiser" / WEIGHTS_FILE, 5000),
        "no safetensors file",
    ),
    "a pickle": (
        lambda f: torch.save({}, f / "denoiser" / WEIGHTS_FILE),
        "no safetensors file",
    ),
    "header longer than the file": (
        lambda f: (f / "denoiser" / WEIGHTS_FILE).write_bytes(struct.pack("<Q", 2**40) + b"{}"),
        "no safetensors file",
    ),
    "tensor missing": (
        lambda f: edit_weights(f, lambda t: (t.pop("mean"), t.update(other=torch.zeros(1)))),
        r"1 tensors are missing \(mean\), 1 are unknown \(other\)",
    ),
    "tensor of another shape": (
        lambda f: edit_weights(f, lambda t: t.update(mean=torch.zeros(4, 8))),
        r"mean is F32 \[4, 8\]",
    ),
    "tensor of another kind": (
        lambda f: edit_weights(f, lambda t: t.update(mean=torch.zeros(4, 8, 8, dtype=torch.int8))),
        "mean is I8",
    ),
    "NaN": (
        lambda f: edit_weights(f, lambda t: t["mean"].fill_(float("nan"))),
        "mean holds NaN",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_files_that_do_not_fit_are_refused(what: str, folder: Path) -> None:
    change, message = DAMAGE[what]
    change(folder)
    reindex(folder)
    with pytest.raises(ArchitectureError, match=message):
        Voice2FacePipeline.from_pretrained(folder, device="cpu")


INDEX_DAMAGE: dict[str, tuple[Callable[[dict], Any], str]] = {
    "newer format": (lambda i: i.update(format_version=99), "newer version.*upgrade voice2face"),
    "no version": (lambda i: i.pop("format_version"), "not of a voice2face checkpoint"),
    "other method": (lambda i: i.update(method="gan"), "'gan'; this version knows scldm"),
    "unknown key": (lambda i: i.update(code="import os"), "has the keys"),
    "absurd size": (lambda i: i.update(output_size=10**6), "output_size is 8 to 4096"),
    "long name": (lambda i: i.update(name="x" * 101), "at most 100"),
    "no files": (lambda i: i.update(files={}), "files lists"),
    "no checksum": (lambda i: i["files"].update({"a.json": {"size": 1}}), "size and sha256"),
    "way out": (
        lambda i: i["files"].update({"../a.json": {"size": 1, "sha256": "0" * 64}}),
        "no name of a checkpoint's file",
    ),
    "absolute": (
        lambda i: i["files"].update({"/etc/passwd": {"size": 1, "sha256": "0" * 64}}),
        "no name of a checkpoint's file",
    ),
    "unlisted": (lambda i: i["files"].pop("denoiser/config.json"), "denoiser/config.json is miss"),
}


@pytest.mark.parametrize("what", INDEX_DAMAGE)
def test_bad_tables_of_contents_are_refused(what: str, folder: Path) -> None:
    change, message = INDEX_DAMAGE[what]
    edit(folder / "model_index.json", change)
    with pytest.raises(ArchitectureError, match=message):
        Voice2FacePipeline.from_pretrained(folder, device="cpu")


def test_links_out_of_the_checkpoint_are_refused(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, "denoiser")
    shutil.move(config, tmp_path / "elsewhere.json")
    config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ArchitectureError, match="leads out of the checkpoint"):
        Voice2FacePipeline.from_pretrained(folder)


def test_cards_that_link_elsewhere_are_refused(folder: Path, tmp_path: Path) -> None:
    secret, card = tmp_path / "secret", folder / CARD
    secret.write_text("what is nobody's business")
    card.unlink()
    card.symlink_to(secret)
    with pytest.raises(ArchitectureError, match="leads out of the checkpoint"):
        Voice2FacePipeline.from_pretrained(folder)


def test_cards_are_read_whatever_they_are_written_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / CARD).write_bytes("# Stimme für Gesichter".encode("latin-1"))
    assert Voice2FacePipeline.from_pretrained(folder).card == "# Stimme f\ufffdr Gesichter"
    monkeypatch.setattr("voice2face.checkpoints.model_card.LARGEST_CARD_BYTES", 4)
    with pytest.raises(ArchitectureError, match="no model card"):
        Voice2FacePipeline.from_pretrained(folder)


def test_a_package_may_be_made_of_links(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = tmp_path / "package" / "tiny"
    for file in folder.rglob("*"):
        if file.is_file():
            link = linked / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    with pytest.raises(ArchitectureError, match="leads out of the checkpoint"):
        Voice2FacePipeline.from_pretrained(linked)
    monkeypatch.setattr("voice2face.checkpoints.files.PACKAGED_WEIGHTS", linked.parent)
    assert Voice2FacePipeline.from_pretrained(linked).name == "tiny"


def test_a_full_disk_is_an_error_of_ours(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(type(tiny_pipeline.face_decoder), "save_pretrained", full)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        tiny_pipeline.save_pretrained(tmp_path / "full")
    assert list(tmp_path.iterdir()) == []


def test_pickles_beside_the_weights_are_ignored(folder: Path) -> None:
    (folder / "denoiser" / "diffusion_pytorch_model.bin").write_bytes(
        b"cos\nsystem\n(S'false'\ntR."
    )
    assert Voice2FacePipeline.from_pretrained(folder, device="cpu").name == "tiny"


def test_missing_files_and_changed_files_say_what_to_do(folder: Path) -> None:
    weights = folder / "denoiser" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ChecksumError, match=r"bytes, not the .* save or copy the checkpoint again"):
        resolve(folder)
    weights.unlink()
    with pytest.raises(CheckpointNotFoundError, match="is missing"):
        resolve(folder)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"holds no model_index\.json"):
        Voice2FacePipeline.from_pretrained(tmp_path)
    for name in ("no-such-model", "../secret", "a/b/c", "owner/../name", "/nowhere", "", "a" * 300):
        with pytest.raises(CheckpointNotFoundError, match=r"neither a folder|holds no"):
            resolve(name)


def test_a_folder_with_a_released_name(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="scldm-192 is not there, and a Path is a fo"):
        resolve(Path("scldm-192"))
    packaged = resolve("scldm-192")
    copy_checkpoint(packaged, "scldm-192")
    assert resolve("scldm-192") == packaged
    assert caplog.text == "", "of a copy"
    shutil.rmtree("scldm-192")
    shutil.copytree(saved, "scldm-192")
    for folder in (Path("scldm-192"), "./scldm-192", tmp_path / "scldm-192"):
        assert read_model_index(resolve(folder))["name"] == "tiny"
    assert resolve() == packaged
    assert caplog.text == ""
    assert resolve("scldm-192") == packaged
    assert "not the folder of that name here; write ./scldm-192 for that" in caplog.text


@pytest.mark.parametrize("name", ["scldm-192", "fine-portraitist-192"])
def test_a_released_checkpoint_is_saved_as_it_was(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = Voice2FacePipeline.from_pretrained(name, device="cpu")
    released = read_model_index(resolve(name))["files"]
    saved_files = read_model_index(pipe.save_pretrained(tmp_path / "saved"))["files"]
    for file, facts in saved_files.items():
        if file.endswith(WEIGHTS_FILE):
            assert facts == released[file], file
    assert saved_files.keys() == released.keys()
    assert caplog.text == ""


def test_weights_that_float16_would_round_are_saved_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = Voice2FacePipeline(**tiny_components(), output_size=48, name="tiny")
    for parameter in pipe.face_decoder.parameters():
        parameter.data = parameter.data.half().float()
    weights = f"face_decoder/{WEIGHTS_FILE}"
    exact = load_file(pipe.save_pretrained(tmp_path / "exact") / weights)
    assert {tensor.dtype for tensor in exact.values()} == {torch.float16}
    next(pipe.face_decoder.parameters()).data[0] += 2.0**-20
    again = load_file(pipe.save_pretrained(tmp_path / "again") / weights)
    assert {tensor.dtype for tensor in again.values()} == {torch.float32}
    for key, value in pipe.face_decoder.state_dict().items():
        assert torch.equal(again[key], value)
    assert caplog.text == ""
    rounded = pipe.to(dtype=torch.bfloat16).save_pretrained(tmp_path / "rounded")
    assert "load with dtype=torch.float32 before saving" in caplog.text
    assert {one.dtype for one in load_file(rounded / weights).values()} == {torch.bfloat16}


def test_files_that_cannot_be_read_are_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"a cannot be read: File name too long"):
        verify(saved, {"a" * 300: {"size": 1, "sha256": "0" * 64}})

    def forbid(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("voice2face.checkpoints.files.sha256_of", forbid)
    files = read_model_index(saved)["files"]
    with pytest.raises(CheckpointNotFoundError, match="cannot be read: Permission denied"):
        verify(saved, files, again=True)


@pytest.mark.parametrize("name", sorted(components_of("scldm")))
def test_a_flipped_byte_of_any_file_is_noticed(saved: Path, name: str) -> None:
    files = [path for path in (saved / name).iterdir() if path.is_file()]
    assert files
    for path in files:
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[len(damaged) // 2] ^= 1
        try:
            path.write_bytes(bytes(damaged))
            with pytest.raises(ChecksumError):
                resolve(saved)
        finally:
            path.write_bytes(original)


@given(st.integers(0, 10**6), st.binary(max_size=12), st.integers(0, 12))
@FUZZ
def test_damaged_safetensors_give_an_error_or_fit(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, place: int, inserted: bytes, cut: int
) -> None:
    original = (saved / "face_prior" / WEIGHTS_FILE).read_bytes()
    header = 8 + struct.unpack("<Q", original[:8])[0]
    place %= header + 8
    damaged = original[:place] + inserted + original[place + cut :]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    expected = {"mean": torch.zeros(4, 8, 8)}
    try:
        check_header(path, expected)
    except CheckpointError:
        return
    tensors = load_file(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"mean": (4, 8, 8)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
speech_keys = st.sampled_from(
    [
        "sample_rate",
        "window_seconds",
        "fft_size",
        "window_ms",
        "hop_ms",
        "block_channels",
        "attention_from_level",
        "embedding_dim",
        "dropout",
        "_class_name",
        "turbo",
    ]
)


@given(st.dictionaries(speech_keys, json_values | st.integers(0, 5000), min_size=1, max_size=3))
@example({"block_channels": [4, 8, 8]})
@FUZZ
def test_damaged_configurations_give_an_error_or_fit(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        shutil.copytree(saved / "speech_encoder", folder)
    config = json.loads((saved / "speech_encoder" / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))
    try:
        network = load_network(SpeechEncoder, folder)
    except CheckpointError:
        return
    assert sum(p.numel() for p in network.parameters()) < 10**5


@given(st.dictionaries(st.sampled_from([*sorted(INDEX_KEYS), "x"]), json_values))
@FUZZ
def test_damaged_tables_of_contents_give_an_error_or_fit(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "index"
    folder.mkdir(exist_ok=True)
    index = json.loads((saved / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changes))
    try:
        found = read_model_index(folder)
    except CheckpointError:
        return
    assert set(found) == INDEX_KEYS
    assert 8 <= found["output_size"] <= 4096


@given(st.integers(0, 10**6), st.binary(max_size=8), st.integers(0, 40))
@FUZZ
def test_damaged_manifests_give_an_error_or_fit(
    tmp_path_factory: pytest.TempPathFactory, place: int, inserted: bytes, cut: int
) -> None:
    original = MANIFEST_FILE.read_bytes()
    place %= len(original)
    file = tmp_path_factory.getbasetemp() / "manifest.json"
    file.write_bytes(original[:place] + inserted + original[place + cut :])
    try:
        content = read_manifest(file)
    except CheckpointError:
        return
    assert content["default"] in content["checkpoints"]
    assert all(entry["files"] for entry in content["checkpoints"].values())


@given(
    st.recursive(
        json_values,
        lambda inner: st.dictionaries(
            st.sampled_from(["format_version", "default", "checkpoints", "files", "hub", "a"]),
            inner | st.just(1) | st.just("a"),
        ),
    )
)
@FUZZ
def test_invented_manifests_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "invented.json"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        read_manifest(file)


@given(st.binary(max_size=200))
@FUZZ
def test_garbage_is_no_component(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbage"
    folder.mkdir(exist_ok=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE, SCHEDULE_FILE):
        (folder / name).write_bytes(data)
    for load in (lambda: load_component(FacePrior, folder), lambda: load_schedule(folder)):
        with pytest.raises(CheckpointError):
            load()


def test_checkpoints_never_replace_other_files(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        tiny_pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_who_works_in_a_folder_still_does_after_saving_there(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in ("empty", "an older checkpoint"):
        tiny_pipeline.save_pretrained(".")
        assert Path.cwd() == tmp_path
        assert Path("model_index.json").is_file()
        assert Voice2FacePipeline.from_pretrained(".", device="cpu").name == "tiny"
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_links_to_folders_stay_links(tiny_pipeline: Voice2FacePipeline, tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    for what in ("missing", "older", "empty"):
        if what == "empty":
            shutil.rmtree(target)
            target.mkdir(mode=0o700)
        assert tiny_pipeline.save_pretrained(link) == link
        assert link.is_symlink()
        assert (target / "model_index.json").is_file()
        assert {path.name for path in tmp_path.iterdir()} == {"link", "target"}
    assert target.stat().st_mode & 0o777 == 0o700, "an empty folder keeps its permissions"


def test_mounts_are_filled(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    mount = tmp_path / "mount"
    mount.mkdir()
    honest = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.is_relative_to(mount) != target.is_relative_to(mount):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return honest(self, target)

    monkeypatch.setattr(Path, "is_mount", lambda path: path == mount)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(whole_folders, "replace_folder", busy)
    before = mount.stat().st_ino
    for _ in ("empty", "an older checkpoint"):
        tiny_pipeline.save_pretrained(mount)
        assert mount.stat().st_ino == before
        assert describe_files(mount).keys() > read_model_index(mount)["files"].keys()


def test_what_a_crash_left_in_a_mount_is_in_nobodys_way(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "mount"
    left = mount / f"{whole_folders.prefix_of(mount)}abc" / "fresh"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"half")
    monkeypatch.setattr(Path, "is_mount", lambda path: path == mount)
    for _ in ("empty", "an older checkpoint"):
        tiny_pipeline.save_pretrained(mount)
        assert describe_files(mount).keys() > read_model_index(mount)["files"].keys()
    assert (left / "half.safetensors").exists(), "it may be of somebody who saves right now"


def test_an_empty_folder_holds_nothing_until_all_is_there(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, honest = tmp_path / "empty", whole_folders.replace_contents

    def replace(fresh: Path, place: Path, last: str) -> None:
        assert not any(folder.iterdir()), "a crash before this leaves it as it was"
        honest(fresh, place, last)

    folder.mkdir()
    monkeypatch.setattr(whole_folders, "replace_contents", replace)
    tiny_pipeline.save_pretrained(folder)
    assert read_model_index(folder)["files"].keys() < describe_files(folder).keys()


def test_a_checkpoint_that_was_not_finished_is_none(
    tiny_pipeline: Voice2FacePipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, whole = folder / MODEL_INDEX, []
    listed, moved, removed = Path.iterdir, Path.replace, shutil.rmtree

    def iterdir(path: Path) -> Iterator[Path]:
        """The table of contents is the last of the old files and the first of the new ones."""
        worst = path == folder
        return iter(sorted(listed(path), key=lambda entry: (entry.name == MODEL_INDEX) == worst))

    def replace(path: Path, target: Path) -> Path:
        whole.append(index.exists())
        return moved(path, target)

    def rmtree(path: Path, *more: Any, **named: Any) -> None:
        whole.append(index.exists() and Path(path).parent == folder)
        removed(path, *more, **named)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    before = describe_files(folder)
    tiny_pipeline.save_pretrained(folder)
    assert len(whole) > 2
    assert not any(whole), "a crash in between leaves no folder that is taken for one"
    assert describe_files(folder) == before


def test_places_that_are_no_paths_are_refused(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for place in ("a\0", tmp_path / "round"):
        with pytest.raises(OutputError, match="cannot be written"):
            tiny_pipeline.save_pretrained(place)


def test_what_lies_in_a_checkpoint_and_is_not_of_it_is_kept(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    folder = tiny_pipeline.save_pretrained(tmp_path / "mine")
    tiny_pipeline.save_pretrained(folder)
    (folder / ".git").mkdir()
    tiny_pipeline.save_pretrained(folder)
    for name in ("denoiser/notes.txt", ".gitattributes"):
        (folder / name).write_text("mine")
        with pytest.raises(OutputError, match=f"holds other files, {name}"):
            tiny_pipeline.save_pretrained(folder)
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(OutputError, match="holds other files, link"):
        tiny_pipeline.save_pretrained(folder)
    assert (folder / "link").is_symlink()


def test_a_checkpoint_of_another_library_is_never_replaced(
    tiny_pipeline: Voice2FacePipeline, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(OutputError, match=r"holds other files, model_index.json"):
        tiny_pipeline.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    tiny_pipeline: Voice2FacePipeline,
    folder: Path,
    system: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = describe_files(folder)
    monkeypatch.setattr(whole_folders.sys, "platform", system)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny_pipeline.face_decoder, "save_pretrained", fail)
        with pytest.raises(KeyboardInterrupt):
            tiny_pipeline.save_pretrained(folder)
    assert describe_files(folder) == before
    tiny_pipeline.save_pretrained(folder)
    assert describe_files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_move_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, folder = tmp_path / "fresh", tmp_path / "folder"
    for path in (fresh, folder):
        path.mkdir()
        (path / "name").write_text(path.name)
    monkeypatch.setattr(whole_folders, "exchange", lambda *_: False)
    honest = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self == fresh:
            raise OSError("the disk is gone")
        return honest(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="disk is gone"):
            whole_folders.replace_folder(fresh, folder)
    assert (folder / "name").read_text() == "folder"
    whole_folders.replace_folder(fresh, folder)
    assert (folder / "name").read_text() == "fresh"


def test_folders_change_places_in_one_step_on_linux(tmp_path: Path) -> None:
    if not whole_folders.sys.platform.startswith("linux"):
        pytest.skip("only Linux can exchange two folders")
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "file").write_text("one")
    assert whole_folders.exchange(one, other)
    assert (other / "file").read_text() == "one"
    assert not list(one.iterdir())
    assert not whole_folders.exchange(one, tmp_path / "missing")


def test_memory_of_verified_files_survives_damage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    resolve(folder)
    memory = memory_file()
    assert len(json.loads(memory.read_text())) == 11
    for damaged in ("damaged", "[]", "\xff"):
        memory.write_text(damaged, encoding="latin-1")
        resolve(folder)
        assert len(json.loads(memory.read_text())) == 11
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("no folder")
    resolve(folder)


def test_what_is_remembered_of_a_file_is_all_of_it_and_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(verified_files, "MOST_ENTRIES", 2)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for path in (first, second, first, third):
        path.write_text(path.name)
        verified_files.remember(path, verified_files.fingerprint(path), "its checksum")
    remembered = [verified_files.is_remembered(x, "its checksum") for x in (first, second, third)]
    assert remembered == [True, False, True]
    assert not verified_files.is_remembered(first, "another checksum")
    (tmp_path / "link").symlink_to(first)
    assert verified_files.is_remembered(tmp_path / "link", "its checksum")
    status = third.stat()
    third.write_text("longer")
    os.utime(third, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not verified_files.is_remembered(third, "its checksum")


def test_a_file_that_changes_while_it_is_verified_is_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))

    def read_and_spoil(path: Path) -> str:
        checksum = sha256_of(path)
        if path.suffix == ".safetensors":
            path.write_bytes(bytes(path.stat().st_size))
        return checksum

    with monkeypatch.context() as patch:
        patch.setattr("voice2face.checkpoints.files.sha256_of", read_and_spoil)
        resolve(folder)
    with pytest.raises(ChecksumError, match="damaged"):
        resolve(folder)


def test_packaged_checkpoints_hold_common_files_once(
    saved: Path, tone: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, second = tmp_path / "weights", tmp_path / "weights" / "second"
    shutil.copytree(saved, weights / "first")
    Voice2FacePipeline(**tiny_portraitist(), output_size=48, name="second").save_pretrained(second)
    content = {
        "default": "first",
        "checkpoints": {
            name: {"files": describe_files(weights / name)} for name in ("first", "second")
        },
    }
    for module in ("files", "resolving"):
        monkeypatch.setattr(f"voice2face.checkpoints.{module}.PACKAGED_WEIGHTS", weights)
        monkeypatch.setattr(f"voice2face.checkpoints.{module}.manifest", lambda: content)

    release.leave_out_shared(second)
    release.leave_out_shared(weights / "first")
    parts = {path.name for path in second.iterdir() if path.is_dir()}
    assert parts == {"retriever", "bottom_denoiser", "upper_denoiser"}
    assert describe_files(weights / "first") == describe_files(saved)

    alone = copy_checkpoint(second, tmp_path / "alone")
    assert describe_files(alone) == content["checkpoints"]["second"]["files"]
    settings = {"seed": 3, "num_inference_steps": 2, "output_type": "np"}
    one, other = (
        Voice2FacePipeline.from_pretrained(name, device="cpu")(tone, 16_000, **settings)
        for name in ("second", alone)
    )
    assert np.array_equal(one, other)

    (weights / "first" / "face_decoder" / WEIGHTS_FILE).unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"face_decoder.* is missing; reinstall"):
        Voice2FacePipeline.from_pretrained("second")
