"""A retriever over faces of one's own: a game's cast, say, each member with a voice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from voice2face.errors import SettingError
from voice2face.models.face_entries import Entries, check_texts
from voice2face.models.face_retriever import FaceRetriever
from voice2face.pipeline import Voice2FacePipeline


class OwnFace(NamedTuple):
    """A face that may be retrieved.

    Attributes:
        id: a name, different from all others.
        voice: a recording, as ``Voice2FacePipeline`` takes it.
        face: a square picture, aligned as portraits are: ``voice2face.face_alignment.aligned``
            makes one of a photograph.
        licence: what the face may be used for.
    """

    id: str
    voice: Any
    face: Image.Image
    licence: str


def retriever_over(pipe: Voice2FacePipeline, faces: Iterable[OwnFace]) -> FaceRetriever:
    """Make a retriever of voices and faces, with a checkpoint's encoders.

    Only embeddings and latents are kept. For a checkpoint of Fine-portraitist, assign the result
    to ``pipe.retriever``; with any, ``retrieve`` tells whose voice is nearest to another.

    Args:
        pipe: the checkpoint whose encoders are used.
        faces: at least one.

    Raises:
        AudioError: a voice cannot be used.
        PictureError: a face's picture is no square, or cannot be read to its end.
        SettingError: there are no faces, two have the same id, or an id or a licence is no text of
            at most 200 bytes.
    """
    entries = [entry_of(pipe, own) for own in faces]
    if not entries:
        raise SettingError("a retriever needs at least one entry; there are no faces")
    speech, whole, bottoms, ids, licences = zip(*entries, strict=True)
    return FaceRetriever(
        Entries(torch.cat(speech), torch.cat(whole), torch.cat(bottoms), ids, licences)
    )


def entry_of(pipe: Voice2FacePipeline, own: OwnFace) -> tuple[Tensor, Tensor, Tensor, str, str]:
    """What a retriever holds of one face; see ``retriever_over``."""
    check_texts((own.id, own.licence))
    return (
        pipe.listen(own.voice).embedding[None].float().cpu(),
        pipe.encode([own.face]).cpu(),
        pipe.encode([own.face], bottom_only=True).cpu(),
        own.id,
        own.licence,
    )
