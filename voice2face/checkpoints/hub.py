"""The Hugging Face Hub: fetching checkpoints from it, and putting them there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from voice2face.errors import CheckpointNotFoundError


def download(
    repo_id: str,
    patterns: Sequence[str],
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Fetch a checkpoint's files from the Hub into its cache, going on where a download broke off.

    Args:
        repo_id: ``owner/name``.
        patterns: of the files' names.
        revision: branch, tag or commit.
        cache_dir: where downloads are kept.
        local_files_only: use the cache alone.
        token: for private repositories.

    Raises:
        CheckpointNotFoundError: missing, private, or out of reach; says which.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repo_id):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(patterns),
        )
    return Path(folder)


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one error that says what to do.

    Raises:
        CheckpointNotFoundError: the code inside could not reach or use the repository.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"{repo_id} has no such revision on the Hub") from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise CheckpointNotFoundError(
            f"{repo_id} is not on the Hub, or is private; check the name, or pass a token"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{repo_id} is not completely in the cache and the Hub was not reached; go online "
            "and load it once without HF_HUB_OFFLINE and local_files_only, or pass a local folder"
        ) from error
    except Exception as error:  # the client lets its transport's many errors through
        raise CheckpointNotFoundError(
            f"{repo_id}: the Hub was not reached, or refused ({type(error).__name__}: {error}); "
            "try again later, what was already moved is kept"
        ) from error


def upload(
    folder: Path,
    repo_id: str,
    replaced: Collection[str],
    *,
    private: bool,
    token: str | bool | None,
) -> str:
    """Put a checkpoint folder on the Hub in one commit, and return its address.

    Args:
        folder: the checkpoint, model card included.
        repo_id: ``owner/name``; made where it does not exist.
        replaced: files that are deleted from the repository where the folder has none of that name.
        private: whether a new repository is private.
        token: of an account that may write there.

    Raises:
        CheckpointNotFoundError: the Hub was not reached, or refused.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    with hub_errors(repo_id):
        api = HfApi(token=token)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        old = set(api.list_repo_files(repo_id)).intersection(replaced) - files.keys()
        api.create_commit(
            repo_id,
            [CommitOperationDelete(name, is_folder=False) for name in sorted(old)]
            + [CommitOperationAdd(name, path) for name, path in files.items()],
            commit_message="Upload voice2face checkpoint",
        )
    return str(address)
