"""Whose voice is it most like? ``python examples/own_faces.py talk.wav face.png``.

A cast of two, each with a voice and a drawn face, becomes a retriever; the recording finds the
member that sounds most like it. With a checkpoint of Fine-portraitist, ``pipe.retriever = cast``
makes its portraits resemble the cast.
"""

import sys
from pathlib import Path

from PIL import Image

from voice2face import Voice2FacePipeline
from voice2face.own_faces import OwnFace, retriever_over
from voice2face.portrait import save_marked

recording, picture = sys.argv[1:3]
voices = Path(__file__).parent / "speech"
pipe = Voice2FacePipeline.from_pretrained()
cast = retriever_over(
    pipe,
    [
        OwnFace(
            "Ada", voices / "female.flac", pipe(voices / "female.flac", seed=3).images[0], "own"
        ),
        OwnFace("Ben", voices / "male.flac", pipe(voices / "male.flac", seed=5).images[0], "own"),
    ],
)
found = cast.retrieve(pipe.listen(recording).embedding[None], top_k=2)
for name, score in zip(found.ids[0], found.scores[0].tolist(), strict=True):
    print(f"{name}: {score:.2f}")
save_marked(Image.fromarray(pipe.decode(found.faces)[0]), picture, {})
