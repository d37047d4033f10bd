"""Faces that voices may belong to: ``python examples/voices_and_faces.py talk.wav faces.png``.

Of each recording there is a row: its waveform, then seven portraits. Several may be named.
"""

import sys

import numpy as np
from PIL import Image, ImageDraw

from voice2face import Voice2FacePipeline, load_audio
from voice2face.picture_files import save_marked, side_by_side

SIDE = 160  # pixels of each picture in a row
FACES = 7


def waveform(recording: str) -> Image.Image:
    """The loudest sample of each column of pixels, upwards and downwards from the middle."""
    samples = np.abs(load_audio(recording))
    peaks = [part.max() / samples.max() for part in np.array_split(samples, SIDE - 20)]
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for column, peak in enumerate(peaks, start=10):
        reach = 1 + peak * SIDE * 0.35
        draw.line((column, SIDE / 2 - reach, column, SIDE / 2 + reach), fill="#3b6ea5")
    return picture


if len(sys.argv) < 3:
    sys.exit(__doc__)
*recordings, out = sys.argv[1:]
pipe = Voice2FacePipeline.from_pretrained()
pictures = []
for recording in recordings:
    portraits = pipe(recording, num_images=FACES, seed=7)
    evidence = portraits.evidence
    print(f"{recording} sounds {evidence.sex}, about {evidence.age}")
    faces = [face.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for face in portraits.images]
    pictures += [waveform(recording), *faces]
save_marked(side_by_side(pictures, 1 + FACES), out, {})
