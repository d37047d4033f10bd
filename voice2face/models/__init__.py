"""The networks, each a diffusers ``ModelMixin`` with its configuration; retriever and update."""

from voice2face.models.denoiser import Denoiser
from voice2face.models.face_autoencoder import FaceDecoder, FaceEncoder
from voice2face.models.face_check import FaceCheck
from voice2face.models.face_prior import FacePrior
from voice2face.models.face_retriever import FaceRetriever
from voice2face.models.few_step_update import FewStepUpdate
from voice2face.models.speaker_encoder import SpeakerEncoder
from voice2face.models.speech_encoder import SpeechEncoder

SPEECH_ENCODERS: tuple[type[SpeechEncoder | SpeakerEncoder], ...] = (SpeechEncoder, SpeakerEncoder)

__all__ = [
    "SPEECH_ENCODERS",
    "Denoiser",
    "FaceCheck",
    "FaceDecoder",
    "FaceEncoder",
    "FacePrior",
    "FaceRetriever",
    "FewStepUpdate",
    "SpeakerEncoder",
    "SpeechEncoder",
]
