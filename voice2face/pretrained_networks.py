"""The networks of a checkpoint: loaded, saved, asked for latents and pictures."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from voice2face.checkpoints.files import component_folder, sha256_of
from voice2face.checkpoints.hub import upload
from voice2face.checkpoints.model_card import read_card
from voice2face.checkpoints.model_index import MODEL_INDEX, read_model_index
from voice2face.checkpoints.resolving import resolve
from voice2face.checkpoints.saving import save_checkpoint
from voice2face.components import component_files, load_component
from voice2face.devices import at_once, choose_device
from voice2face.errors import ArchitectureError, NoRetrieverError, SettingError
from voice2face.methods import METHODS
from voice2face.models import (
    SPEECH_ENCODERS,
    FaceDecoder,
    FaceEncoder,
    FaceRetriever,
    SpeakerEncoder,
    SpeechEncoder,
)
from voice2face.models.bottom_face import bottom_face
from voice2face.picture_files import resized
from voice2face.pixels import to_model_range
from voice2face.placed_networks import PlacedNetworks

logger = logging.getLogger("voice2face")

# of every method; its own come beside them
COMPONENTS: dict[str, type | tuple[type, ...]] = {
    "speech_encoder": SPEECH_ENCODERS,
    "face_encoder": FaceEncoder,
    "face_decoder": FaceDecoder,
    "scheduler": DDIMScheduler,
}


class PretrainedNetworks(PlacedNetworks):
    """What a checkpoint holds, wherever it lies and whatever runs it.

    Args:
        speech_encoder: recording to Z^s.
        face_encoder: picture to Z^f; for priors and retrievers, not used when sampling.
        face_decoder: Z^f to picture.
        scheduler: the noise schedule; read, never changed.
        output_size: side of the pictures in pixels; the decoder's are resized where it differs.
        name: what results call this checkpoint.
        card: text of the model card, saved with the checkpoint.
        checkpoint_sha256: of the ``model_index.json`` that the networks came with.
        components_of_method: those of one method by name, ``face_prior`` and ``denoiser`` for
            SCLDM and ``few_step_update`` where it was distilled, ``retriever``,
            ``bottom_denoiser`` and ``upper_denoiser`` for Fine-portraitist and
            ``bottom_few_step_update`` and ``upper_few_step_update`` where both were, and
            ``face_check`` for both where portraits with no face or a badly drawn one are to be
            drawn again.

    Attributes:
        method: how face latents are drawn, see ``voice2face.methods``.
    """

    def __init__(
        self,
        speech_encoder: SpeechEncoder | SpeakerEncoder,
        face_encoder: FaceEncoder,
        face_decoder: FaceDecoder,
        scheduler: DDIMScheduler,
        *,
        output_size: int = 256,
        name: str = "unnamed",
        card: str | None = None,
        checkpoint_sha256: str | None = None,
        **components_of_method: Any,
    ) -> None:
        given = components_of_method.keys()
        fitting = [
            method
            for method in METHODS.values()
            if method.components.keys() <= given
            and given <= method.components.keys() | method.optional.keys()
        ]
        if not fitting:
            raise TypeError(f"no method has the components {', '.join(components_of_method)}")
        method = fitting[0](**components_of_method)
        super().__init__(speech_encoder, face_encoder, face_decoder, method, checkpoint_sha256)
        self._scheduler = scheduler
        self.output_size = output_size
        self.name = name
        self.card = card or f"# {name}\n\nA checkpoint of voice2face, without a model card yet.\n"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            name_or_path: nothing for the checkpoint in the package (no network is touched), a
                name that ``voice2face models`` lists, a folder, or ``owner/name`` on the Hugging
                Face Hub. A ``Path`` is always a folder; as text, one that has such a name is
                ``./name``.
            revision: branch, tag or commit of a Hub id.
            cache_dir: where downloads are kept.
            local_files_only: never open a connection.
            token: for private Hub repositories.
            device: ``None`` or ``"auto"`` takes CUDA, else MPS, else the CPU.
            dtype: of the networks; by default bfloat16 on CUDA devices that have it, from Ampere
                on, and float32 elsewhere.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, or of another architecture.
            DeviceError: there is no such device.
        """
        chosen = choose_device(device)
        folder = resolve(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        index = read_model_index(folder)
        files = index["files"]
        kinds = components_of(index["method"], {name.partition("/")[0] for name in files})
        for name, kind in kinds.items():
            for file in component_files(kind):
                if f"{name}/{file}" not in files:
                    raise ArchitectureError(f"{folder}: {name}/{file} is missing")
        pipeline = cls(
            **{
                name: load_component(kind, component_folder(folder, name, files))
                for name, kind in kinds.items()
            },
            output_size=index["output_size"],
            name=index["name"],
            card=read_card(folder),
            checkpoint_sha256=sha256_of(folder / MODEL_INDEX),
        )
        return pipeline.to(chosen, dtype)

    def __repr__(self) -> str:
        kind, dtype = type(self).__name__, str(self.dtype).removeprefix("torch.")
        return f"<{kind} {self.name}: {self.method.name} on {self.device}, {dtype}>"

    @property
    def scheduler(self) -> DDIMScheduler:
        """The noise schedule that the networks have learnt; it cannot be replaced.

        Raises:
            SettingError: one is assigned, as diffusers' pipelines take a sampler.
        """
        return self._scheduler

    @scheduler.setter
    def scheduler(self, _: DDIMScheduler) -> None:
        raise SettingError(
            "pipe.scheduler is the noise schedule that the networks have learnt, and cannot be "
            'replaced; a call chooses its sampler: pipe(audio, sampler="unipc"), or preset="best"'
        )

    @property
    def retriever(self) -> FaceRetriever:
        """The faces that Fine-portraitist draws from; assign another to draw from its faces.

        Raises:
            NoRetrieverError: the checkpoint's method retrieves no faces.
            SettingError: the new retriever's embeddings or latents are of other sizes.
        """
        found: FaceRetriever | None = self.method.parts().get("retriever")
        if found is None:
            raise NoRetrieverError(f"{self.name} ({self.method.name}) retrieves no faces")
        return found

    @retriever.setter
    def retriever(self, retriever: FaceRetriever) -> None:
        old = self.retriever.entries
        if not isinstance(retriever, FaceRetriever):
            raise SettingError(f"retriever is a FaceRetriever, not a {type(retriever).__name__}")
        new = retriever.entries
        for name in ("speech", "faces"):
            shapes = [tuple(getattr(entries, name).shape[1:]) for entries in (old, new)]
            if shapes[0] != shapes[1]:
                raise SettingError(
                    f"the retriever's {name} are of shape {shapes[1]}, this checkpoint's of "
                    f"{shapes[0]}; build it with this checkpoint's encoders"
                )
        method: Any = copy.copy(self.method)  # its networks stay as they are, compiled or not
        method.retriever = retriever
        self.method = method
        self.checkpoint_sha256 = None

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COMPONENTS} | self.method.parts()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the checkpoint as a folder that ``from_pretrained`` reads.

        It appears as a whole: a crash leaves what was there before, or the new checkpoint. An
        empty folder is filled, and so is the working directory or a mount that holds an older
        checkpoint: there, a crash may leave files that are no checkpoint.

        A network is written as float16 where that changes none of its weights, as of the released
        ones, else as it is. In bfloat16, the type on CUDA, weights are rounded already, which a
        warning says: load with ``dtype=torch.float32`` what is to be saved.

        Args:
            folder: a new folder, an empty one, or an older checkpoint to replace; or a link to it.

        Raises:
            OutputError: the folder cannot be written, or holds other files.
        """
        if self.dtype == torch.bfloat16:
            logger.warning(
                "%s is saved as it was rounded to bfloat16; load with dtype=torch.float32 before "
                "saving, to keep its weights as they were",
                self.name,
            )
        return save_checkpoint(
            folder,
            self._parts(),
            method=self.method.name,
            name=self.name,
            output_size=self.output_size,
            card=self.card,
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | bool | None = None
    ) -> str:
        """Upload the checkpoint, as ``save_pretrained`` writes it, to the Hub, in one commit.

        Args:
            repo_id: ``owner/name``; made where it does not exist. A checkpoint that is there is
                replaced, whatever its method; other files stay.
            private: whether a new repository is private.
            token: of an account that may write there; the one logged in by default.

        Returns:
            The repository's address.

        Raises:
            CheckpointNotFoundError: the Hub was not reached, or refused.
        """
        with tempfile.TemporaryDirectory() as space:
            folder = self.save_pretrained(Path(space) / "checkpoint")
            return upload(folder, repo_id, possible_files(), private=private, token=token)

    @torch.no_grad()
    def encode(self, faces: Sequence[Image.Image], *, bottom_only: bool = False) -> Tensor:
        """Make latents of pictures, for retrievers and priors.

        Args:
            faces: squares, aligned as portraits are (``voice2face.face_alignment.aligned``), of any
                size; they are turned as their EXIF says.
            bottom_only: of what lies below the eyes alone; see ``voice2face.models.bottom_face``.

        Returns:
            Z^f, ``(faces, channels, size, size)``, float32.

        Raises:
            SettingError: there are no faces, or they are no pictures of Pillow's.
            PictureError: a picture is no square, or cannot be read to its end.
        """
        given = list(faces) if isinstance(faces, Iterable) else [faces]
        if not isinstance(faces, Iterable) or not all(isinstance(f, Image.Image) for f in given):
            raise SettingError("encode takes a list of pictures as Image.open gives; give [face]")
        if not given:
            raise SettingError("there are no faces to encode")
        side = self.face_encoder.config.image_size
        pixels = [np.asarray(resized(face, side)) for face in given]
        images = to_model_range(np.stack(pixels))
        if bottom_only:
            images = bottom_face(images)
        with self._turn(self.face_encoder):
            encoder = self.face_encoder
            parts = [
                encoder(part.to(encoder.device, encoder.dtype))
                for part in images.split(at_once(self.device).pictures)
            ]
        return torch.cat(parts).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, *, watermark: bool = True) -> NDArray[np.uint8]:
        """Make pictures of latents, finished ones or those a step's callback is shown.

        Args:
            latents: Z^f or Z^t, ``(images, channels, size, size)``, of any type, on any device.
            watermark: as in ``__call__``.

        Returns:
            ``(images, output_size, output_size, 3)`` uint8.

        Raises:
            SettingError: these are no latents of that shape.
            DeviceError: the device ran out of memory.
        """
        decoder = self.face_decoder
        channels, side = decoder.config.latent_channels, decoder.latent_size
        if not isinstance(latents, Tensor) or latents.shape[1:] != (channels, side, side):
            raise SettingError(
                "decode takes a tensor of latents, (images, channels, size, size), as "
                f"output_type='latent' gives it, here (images, {channels}, {side}, {side}); of one "
                "picture: latents[:1]"
            )
        with self._turn(decoder):
            size, shape = self.output_size, (self.output_size, self.output_size, 3)
            pictures = torch.empty(len(latents), *shape, dtype=torch.uint8, device=decoder.device)
            most = at_once(self.device).pictures
            given = latents.to(decoder.device, decoder.dtype).split(most)
            for part, room in zip(given, pictures.split(most), strict=True):
                room.copy_(self._finishing(decoder(part), size, watermark))
            finished: NDArray[np.uint8] = pictures.cpu().numpy()
        return finished


def components_of(method: str, folders: Container[str] = ()) -> dict[str, type | tuple[type, ...]]:
    """Class of each component of a method's checkpoint, by the name of its folder.

    Args:
        method: its name.
        folders: that the checkpoint has; of optional components, only these are named.
    """
    of_method = METHODS[method]
    optional = {name: kind for name, kind in of_method.optional.items() if name in folders}
    return COMPONENTS | dict(of_method.components) | optional


def possible_files() -> set[str]:
    """Names of the files that components of checkpoints have, of whatever method."""
    return {
        f"{name}/{file}"
        for method in METHODS
        for name, kind in components_of(method, METHODS[method].optional).items()
        for file in component_files(kind)
    }
