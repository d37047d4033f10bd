"""Four portraits of one voice, side by side: ``python examples/portrait.py talk.wav faces.png``."""

import sys

from voice2face import Voice2FacePipeline

if len(sys.argv) != 3:
    sys.exit(__doc__)
recording, picture = sys.argv[1:]
pipe = Voice2FacePipeline.from_pretrained()
portraits = pipe(recording, num_images=4, seed=7)
evidence = portraits.evidence
print(f"sounds {evidence.sex}, about {evidence.age}, from {evidence.speech_seconds} s of speech")
portraits.save_grid(picture, columns=4)
