"""Portraits over HTTP; the pipeline is shared by the threads that answer.

uvicorn --app-dir examples service:app --limit-concurrency 8
curl --data-binary @talk.wav 'localhost:8000/portrait?seed=7' -o face.png
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response

from voice2face import Voice2FacePipeline, load_audio
from voice2face.audio import SAMPLE_RATE
from voice2face.errors import AudioError

LARGEST_RECORDING = 20 << 20  # bytes
LONGEST_RECORDING = 600  # seconds: compressed, hours are small

app = FastAPI(title="voice2face")
pipe = Voice2FacePipeline.from_pretrained()


async def recording(request: Request) -> bytes:
    """The request's body, refused as soon as it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_RECORDING:
            raise HTTPException(413, f"recordings may have {LARGEST_RECORDING >> 20} MiB")
    return bytes(body)


@app.post("/portrait", response_class=Response)
def portrait(
    audio: Annotated[bytes, Depends(recording)],
    seed: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    steps: Annotated[int | None, Query(ge=1, le=50)] = None,
) -> Response:
    """A PNG for a recording (WAV, FLAC, Ogg, MP3 or AIFF) that is the body."""
    try:
        samples = load_audio(audio, max_seconds=LONGEST_RECORDING)
        made = pipe(samples, SAMPLE_RATE, seed=seed, num_inference_steps=steps)[0]
    except AudioError as error:
        raise HTTPException(422, str(error)) from error
    return Response(made.png(), media_type="image/png", headers={"X-Seed": str(made.seed)})
