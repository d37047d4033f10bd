"""Checkpoints from a real HTTP server that speaks the Hub's protocol."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from packaging.version import Version

from tests import HUB
from tests.conftest import tiny_portraitist
from tests.hub_server import TOKEN, HubServer
from voice2face import Voice2FacePipeline
from voice2face.checkpoints.files import describe_files, sha256_of
from voice2face.checkpoints.resolving import resolve, where
from voice2face.errors import CheckpointError, CheckpointNotFoundError, ChecksumError

# before version 1, the client raises where a connection breaks, and goes on when it is asked again
CLIENT_IS_OLD = Version(huggingface_hub.__version__) < Version("1")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    HUB.reset()
    yield HUB
    HUB.reset()


@pytest.fixture(scope="module")
def saved(tiny_pipeline: Voice2FacePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline.save_pretrained(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture(scope="module")
def files(saved: Path) -> dict[str, bytes]:
    return {
        path.relative_to(saved).as_posix(): path.read_bytes()
        for path in saved.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def published(hub: HubServer, files: dict[str, bytes]) -> str:
    extra = {"pytorch_model.bin": b"a pickle", "run_me.py": b"import os", ".gitattributes": b""}
    return hub.publish("someone/tiny", files | extra)


def picture(pipe: Voice2FacePipeline, tone: np.ndarray) -> bytes:
    return pipe(tone, 16_000, seed=1, num_inference_steps=2).images[0].tobytes()


def test_a_hub_id_gives_the_same_pictures(
    published: str,
    tiny_pipeline: Voice2FacePipeline,
    tone: np.ndarray,
    tmp_path: Path,
) -> None:
    for revision in (None, "main", published):
        pipe = Voice2FacePipeline.from_pretrained(
            "someone/tiny", revision=revision, cache_dir=tmp_path, device="cpu"
        )
        assert picture(pipe, tone) == picture(tiny_pipeline, tone)


def test_only_files_of_a_checkpoint_are_fetched(
    hub: HubServer, published: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    folder = resolve("someone/tiny", cache_dir=tmp_path)
    fetched = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert fetched == set(files)
    asked = {request.path.split("/")[-1] for request in hub.requests}
    assert not asked & {"pytorch_model.bin", "run_me.py"}


def test_the_cache_needs_no_connection(
    hub: HubServer,
    published: str,
    tone: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online = Voice2FacePipeline.from_pretrained("someone/tiny", cache_dir=tmp_path, device="cpu")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    offline = Voice2FacePipeline.from_pretrained(
        "someone/tiny", cache_dir=tmp_path, local_files_only=True, device="cpu"
    )
    assert picture(online, tone) == picture(offline, tone)


def test_a_hub_that_is_down_leaves_the_cache(
    hub: HubServer, published: str, tmp_path: Path
) -> None:
    folder = resolve("someone/tiny", cache_dir=tmp_path)
    hub.faults.status = 500
    assert resolve("someone/tiny", cache_dir=tmp_path) == folder
    with pytest.raises(CheckpointNotFoundError, match="someone/other"):
        resolve("someone/other", cache_dir=tmp_path)


def test_nothing_cached_and_offline(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="go online"):
        resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True)
    assert hub.requests == []


def test_environment_variables_are_honoured(hub: HubServer, published: str, tmp_path: Path) -> None:
    code = "from voice2face.checkpoints.resolving import resolve; print(resolve('someone/tiny'))"

    def resolve(**environment: str) -> subprocess.CompletedProcess:
        import os

        home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address}
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **home, **environment},
            capture_output=True,
            text=True,
        )

    nothing = resolve(HF_HUB_OFFLINE="1")
    assert "go online and load it once without HF_HUB_OFFLINE" in nothing.stderr
    assert hub.requests == []
    fetched = resolve()
    assert fetched.stdout.startswith(str(tmp_path / "home")), fetched.stderr
    count = len(hub.requests)
    assert resolve(HF_HUB_OFFLINE="1").stdout == fetched.stdout
    assert len(hub.requests) == count
    assert (tmp_path / "home" / "voice2face" / "verified_files.json").is_file()


def test_private_repositories_need_a_token(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.publish("someone/secret", files, private=True)
    with pytest.raises(CheckpointNotFoundError, match="pass a token"):
        resolve("someone/secret", cache_dir=tmp_path)
    assert resolve("someone/secret", cache_dir=tmp_path, token=TOKEN).is_dir()


def test_unknown_repository_and_revision(hub: HubServer, published: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="is not on the Hub, or is private"):
        resolve("someone/else", cache_dir=tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="no such revision"):
        resolve("someone/tiny", revision="v9", cache_dir=tmp_path)


def test_a_dropped_connection_is_taken_up_where_it_broke_off(
    hub: HubServer, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the client keeps whole chunks of a broken download; tiny files need tiny chunks
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10)
    hub.faults.drop_once_after = 50
    if CLIENT_IS_OLD:
        with pytest.raises(CheckpointNotFoundError, match="what was already moved is kept"):
            resolve("someone/tiny", cache_dir=tmp_path)
    assert resolve("someone/tiny", cache_dir=tmp_path).is_dir()
    ranges = [r.headers.get("Range") or r.headers.get("range") for r in hub.requests]
    assert "bytes=50-" in ranges


def test_an_interrupted_download_keeps_what_was_fetched(
    hub: HubServer, published: str, tmp_path: Path, files: dict[str, bytes]
) -> None:
    large = [name for name in files if name.endswith(".safetensors")]
    hub.faults.large_files_left = 2
    with pytest.raises(CheckpointNotFoundError, match="someone/tiny"):
        resolve("someone/tiny", cache_dir=tmp_path)
    told = (
        "is missing; load the checkpoint once without"
        if CLIENT_IS_OLD
        else "not completely in the cache"
    )
    with pytest.raises(CheckpointNotFoundError, match=told):
        resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True)
    hub.faults.large_files_left = None
    hub.requests.clear()
    folder = resolve("someone/tiny", cache_dir=tmp_path)
    assert all((folder / name).is_file() for name in files)
    fetched = [request for request in hub.requests if request.path.startswith("/cdn/")]
    assert len(fetched) == len(large) - 2


def test_a_flipped_byte_on_the_way_is_noticed(
    hub: HubServer, published: str, tmp_path: Path
) -> None:
    hub.faults.flip = True
    with pytest.raises(CheckpointError):
        Voice2FacePipeline.from_pretrained("someone/tiny", cache_dir=tmp_path)


def test_verified_files_are_not_read_again(
    hub: HubServer, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve("someone/tiny", cache_dir=tmp_path)
    read = []
    honest = sha256_of
    monkeypatch.setattr(
        "voice2face.checkpoints.files.sha256_of", lambda path: (read.append(path), honest(path))[1]
    )
    resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True)
    assert read == []
    weights = (folder / "denoiser" / "diffusion_pytorch_model.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ChecksumError, match=r"delete .* and download it again"):
        resolve("someone/tiny", cache_dir=tmp_path, local_files_only=True)
    assert len(read) == 1


def test_released_names_come_with_their_pinned_revision(
    hub: HubServer,
    published: str,
    saved: Path,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {
        "hub": {"repo_id": "someone/tiny", "revision": published},
        "files": describe_files(saved),
    }
    content = {"default": "tiny", "checkpoints": {"tiny": entry}}
    monkeypatch.setattr("voice2face.checkpoints.resolving.manifest", lambda: content)
    first = resolve("tiny", cache_dir=tmp_path)
    assert first.name == published
    hub.requests.clear()
    assert resolve(cache_dir=tmp_path, local_files_only=True) == first
    with pytest.raises(CheckpointNotFoundError, match="go online"):
        resolve(cache_dir=tmp_path / "another", local_files_only=True)
    assert hub.requests == []
    (tmp_path / "tiny").symlink_to(saved)
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", cache_dir=tmp_path) == first, "whatever folder is called so"
    with pytest.raises(CheckpointNotFoundError, match="revision is pinned"):
        resolve("tiny", revision="main", cache_dir=tmp_path)
    hub.repositories["someone/tiny"].private = True
    with pytest.raises(CheckpointNotFoundError, match="pass a token"):
        resolve("tiny", cache_dir=tmp_path / "another")
    assert resolve("tiny", cache_dir=tmp_path / "another", token=TOKEN).name == published
    other = hub.publish("someone/tiny", files | {"README.md": b"# changed"})
    entry["hub"]["revision"] = other
    with pytest.raises(ChecksumError, match=r"README\.md"):
        resolve("tiny", cache_dir=tmp_path)


def test_where_a_released_checkpoint_lies_is_told_without_a_connection(
    hub: HubServer, published: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"hub": {"repo_id": "someone/tiny", "revision": published}}
    entries = {name: {"files": describe_files(saved)} for name in ("tiny", "lost", saved.name)}
    entries["tiny"] |= place
    content = {"default": "tiny", "checkpoints": entries}
    monkeypatch.setattr("voice2face.checkpoints.resolving.manifest", lambda: content)
    monkeypatch.setattr("voice2face.checkpoints.resolving.PACKAGED_WEIGHTS", tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert where("tiny") == f"on the Hub, someone/tiny at {published[:12]}, not downloaded"
    assert where("lost") == "missing; reinstall voice2face"
    with pytest.raises(CheckpointNotFoundError, match=r"lost is missing; reinstall"):
        resolve("lost")
    assert hub.requests == []
    folder = resolve("tiny")
    hub.requests.clear()
    assert where("tiny") == f"in the cache, {folder}"
    assert hub.requests == []
    (tmp_path / "lost").mkdir()
    assert where("lost") == f"in the package, {tmp_path / 'lost'}"


def test_folders_have_no_revisions(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    for name in (saved, f"~/{saved.name}"):
        assert resolve(name) == saved
        with pytest.raises(CheckpointNotFoundError, match="has no revisions; leave revision out"):
            resolve(name, revision="v1")


def test_pushing_uploads_checkpoint_and_card(
    hub: HubServer,
    tiny_pipeline: Voice2FacePipeline,
    tone: np.ndarray,
    tmp_path: Path,
) -> None:
    address = tiny_pipeline.push_to_hub("me/mine", private=True, token=TOKEN)
    assert address == f"{hub.address}/me/mine"
    assert hub.repositories["me/mine"].private
    assert hub.repositories["me/mine"].files["README.md"].startswith(b"# tiny")
    again = Voice2FacePipeline.from_pretrained(
        "me/mine", token=TOKEN, cache_dir=tmp_path, device="cpu"
    )
    assert picture(again, tone) == picture(tiny_pipeline, tone)
    hub.repositories["me/mine"].files["README.md"] = b"older"
    assert tiny_pipeline.push_to_hub("me/mine", token=TOKEN) == address
    assert hub.repositories["me/mine"].files["README.md"].startswith(b"# tiny")


def test_pushing_over_another_checkpoint_leaves_nothing_of_it_and_all_other_files(
    hub: HubServer, tiny_pipeline: Voice2FacePipeline
) -> None:
    Voice2FacePipeline(**tiny_portraitist()).push_to_hub("me/mine", token=TOKEN)
    repository = hub.repositories["me/mine"]
    own = {".gitattributes", "LICENSE", "sounds/a.json", "retriever/people.json", "onnx/a.onnx"}
    repository.files |= dict.fromkeys(own, b"of the user")
    before = set(repository.files)
    hub.requests.clear()
    tiny_pipeline.push_to_hub("me/mine", token=TOKEN)
    index = json.loads(repository.files["model_index.json"])
    assert set(repository.files) == {*index["files"], "model_index.json", "README.md", *own}
    assert "retriever/entries.safetensors" in before - set(repository.files)
    commits = [request for request in hub.requests if "/commit/" in request.path]
    assert len(commits) == 1


def test_pushing_without_permission(hub: HubServer, tiny_pipeline: Voice2FacePipeline) -> None:
    with pytest.raises(CheckpointNotFoundError, match="me/mine"):
        tiny_pipeline.push_to_hub("me/mine", token="hf_wrong")


def test_the_client_under_test_is_the_real_one() -> None:
    assert HUB.address == huggingface_hub.constants.ENDPOINT
