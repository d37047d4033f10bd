"""Whose voice is it most like? ``python examples/own_faces.py talk.wav face.png``.

A cast of two, each with a voice and a drawn face, becomes the retriever of Fine-portraitist; the
recording finds the member that sounds most like it, and its portrait is drawn near that face. The
picture shows them side by side.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.own_faces import OwnFace, retriever_over
from voice2face.picture_files import save_marked

if len(sys.argv) != 3:
    sys.exit(__doc__)
recording, picture = sys.argv[1:]
voices = Path(__file__).parent / "speech"
artist = Voice2FacePipeline.from_pretrained()
faces = {
    "Ada": (voices / "female.flac", artist(voices / "female.flac", seed=3).images[0]),
    "Ben": (voices / "male.flac", artist(voices / "male.flac", seed=5).images[0]),
}
pipe = Voice2FacePipeline.from_pretrained("fine-portraitist-192")
pipe.retriever = retriever_over(
    pipe, [OwnFace(name, voice, face, "own") for name, (voice, face) in faces.items()]
)
portrait = pipe(recording, seed=7)[0]
for found in portrait.evidence.retrieved:
    print(f"{found.id}: {found.score:.2f}")
retrieved = faces[portrait.evidence.retrieved[0].id][1]
side_by_side = np.hstack([np.asarray(image) for image in (retrieved, portrait.image)])
save_marked(Image.fromarray(side_by_side), picture, {})
