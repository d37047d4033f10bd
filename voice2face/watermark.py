"""An invisible watermark: a faint pattern that says that a picture is synthetic.

A fixed pseudo-random tile, band-limited so that halving the picture and JPEG keep it, is added to
the brightness, stronger where the picture has texture. It is found again by folding the picture on
itself at the tile's period and correlating, whatever part of the picture is left and at whatever
scale (spread spectrum, Cox et al. 1997).

It is a mark of honesty, not a lock: whoever wants to remove it can.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

TILE = 64  # pixels, at the size a picture is saved at
LOWEST_CYCLES, HIGHEST_CYCLES = 6, 14  # a tile
KEY = 0x766F6963653266616365
BASE_LEVELS = 1.0  # strength on flat ground, of 255 levels
TEXTURE_SHARE = 0.1  # strength gained per level of local contrast
MOST_LEVELS = 3.0
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
LARGEST_SCALE = 6.0  # of a portrait that fills a phone's screen
SCALES = (  # the likeliest first; then the largest, at which there is least to look at
    *(1.0, 0.5, 0.75, 2.0),
    *np.geomspace(LARGEST_SCALE, 2.0, 109, endpoint=False),
    *np.geomspace(2.0, 0.45, 150),
)
SURE_SCORE = 10.0  # at which the search for the scale ends
SMALLEST_SIDE, LARGEST_SIDE = 48, 640
WINDOW, WINDOW_STEP = 6, 2  # tiles, of a picture larger than that
MOST_PIXELS, MOST_PIXELS_A_SCALE = 130_000_000, 10_000_000  # to be looked at, seconds of work
MIDDLE_SCORE, SCORE_WIDTH = 7.2, 0.35  # of the probability
YES, NO = 0.95, 0.05


class Detection(NamedTuple):
    """What a search for the watermark found.

    Attributes:
        answer: ``"yes"``, ``"no"`` or ``"unsure"``.
        probability: 0 to 1 that the watermark is there.
        score: height of the correlation's peak in standard deviations.
        scale: size of the picture against the one that was marked.
    """

    answer: Literal["yes", "no", "unsure"]
    probability: float
    score: float
    scale: float


@lru_cache(maxsize=1)
def pattern() -> np.ndarray:
    """The tile, ``(64, 64)``, zero mean and unit variance, the same on every machine."""
    rng = np.random.Generator(np.random.PCG64(KEY))
    spectrum = np.fft.fft2(rng.standard_normal((TILE, TILE)))
    tile = np.fft.ifft2(np.where(_band(), spectrum / np.abs(spectrum), 0.0)).real
    return tile / tile.std()


@lru_cache(maxsize=1)
def _conjugate_pattern() -> np.ndarray:
    return np.conj(np.fft.fft2(pattern()))


@lru_cache(maxsize=1)
def _band() -> np.ndarray:
    cycles = np.fft.fftfreq(TILE, 1 / TILE)
    radius = np.hypot(cycles[:, None], cycles[None])
    return (radius >= LOWEST_CYCLES) & (radius <= HIGHEST_CYCLES)


def embed(picture: np.ndarray) -> np.ndarray:
    """Add the watermark to a picture, ``(H, W, 3)`` uint8."""
    height, width = picture.shape[:2]
    tile, rows, columns = tiled(height, width), means_of(height), means_of(width).T
    return marked(picture.astype(np.float32), tile, rows, columns).astype(np.uint8)


def marked(pictures: Any, tile: Any, rows: Any, columns: Any) -> Any:
    """Add the watermark to pictures, NumPy's arrays or PyTorch's tensors on any device.

    Args:
        pictures: ``(..., H, W, 3)`` float32, 0 to 255.
        tile: ``(H, W)``, as ``tiled`` returns it.
        rows: ``(H, H)``, as ``means_of`` returns it.
        columns: ``(W, W)``, likewise, transposed.

    Returns:
        Of the pictures' shape and type, whole numbers.
    """
    shade = sum(float(share) * pictures[..., k] for k, share in enumerate(BRIGHTNESS))
    detail = shade - rows @ shade @ columns
    contrast = (rows @ (detail * detail) @ columns).clip(0.0) ** 0.5
    strength = (BASE_LEVELS + TEXTURE_SHARE * contrast).clip(0.0, MOST_LEVELS)
    return (pictures + (strength * tile)[..., None]).round().clip(0.0, 255.0)


@lru_cache(maxsize=16)
def tiled(height: int, width: int) -> np.ndarray:
    """The pattern over a whole picture, ``(height, width)`` float32."""
    repeats = (-(-height // TILE), -(-width // TILE))
    return np.tile(pattern(), repeats)[:height, :width].astype(np.float32)


@lru_cache(maxsize=16)
def means_of(length: int) -> np.ndarray:
    """The matrix that takes the mean of nine neighbours, edges repeated, ``(length, length)``."""
    neighbours = np.arange(length)[:, None] + np.arange(-4, 5)
    matrix = np.zeros((length, length), np.float32)
    np.add.at(matrix, (np.arange(length)[:, None], neighbours.clip(0, length - 1)), 1 / 9)
    return matrix


def detect(image: Image.Image) -> Detection:
    """Look for the watermark in a picture of any size, of which a portrait may be a part.

    The portrait may be 0.45 to 6 times as large as it was saved.

    A picture so large that not every scale can be tried in seconds is never cleared: where nothing
    is found in it, the answer is ``"unsure"``, and a crop around the portrait tells more.
    """
    picture = image.convert("RGB")
    if min(picture.size) < SMALLEST_SIDE:
        return Detection("unsure", 0.5, 0.0, 1.0)
    brightness = Image.fromarray(np.asarray(picture, np.float32) @ BRIGHTNESS)
    best, best_scale, left, skipped = 0.0, 1.0, MOST_PIXELS, False
    for scale in SCALES:
        size = (round(picture.width / scale), round(picture.height / scale))
        if min(size) < SMALLEST_SIDE:
            continue
        if math.prod(size) > min(left, MOST_PIXELS_A_SCALE):
            skipped = True
            continue
        left -= math.prod(size)
        found = score(np.asarray(brightness.resize(size, Image.Resampling.BICUBIC)))
        if found > best:
            best, best_scale = found, float(scale)
        if best >= SURE_SCORE:
            break
    probability = 1.0 / (1.0 + math.exp(-(best - MIDDLE_SCORE) / SCORE_WIDTH))
    if skipped:
        probability = max(probability, 0.5)
    answer: Literal["yes", "no", "unsure"] = "unsure"
    if probability >= YES:
        answer = "yes"
    elif probability <= NO:
        answer = "no"
    return Detection(answer, probability, best, best_scale)


def score(brightness: np.ndarray) -> float:
    """Peak of the correlation with the tile over all shifts, in standard deviations.

    A large picture is looked at in windows, too, of which one may hold a portrait.

    Args:
        brightness: ``(H, W)``, 0 to 255, at the scale at which the picture was marked.
    """
    detail = brightness - _blur(brightness)
    detail = detail / (_local_contrast(detail) + 2.0)
    sums, counts = _tiles(detail), _tiles(np.ones_like(detail))
    rows, columns = sums.shape[:2]
    windows: list[tuple[slice, slice]] = [np.s_[:, :]]
    if max(brightness.shape) > LARGEST_SIDE:
        windows += [
            np.s_[row : row + WINDOW, column : column + WINDOW]
            for row in range(0, rows, WINDOW_STEP)
            for column in range(0, columns, WINDOW_STEP)
        ]
    return max(_peak(sums[part].sum((0, 1)), counts[part].sum((0, 1))) for part in windows)


def _tiles(values: np.ndarray) -> np.ndarray:
    """Cut ``(H, W)`` into tiles, ``(rows, columns, 64, 64)``; what lies outside is 0."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % TILE), (0, -width % TILE)))
    return padded.reshape(-1, TILE, padded.shape[1] // TILE, TILE).swapaxes(1, 2)


def _peak(folded: np.ndarray, counts: np.ndarray) -> float:
    spectrum = np.fft.fft2(folded / np.maximum(counts, 1.0))
    spectrum = np.where(_band(), spectrum, 0.0)
    spectrum /= _radial_mean(np.abs(spectrum)) + 1e-9
    correlation = np.fft.ifft2(spectrum * _conjugate_pattern()).real
    return float((correlation.max() - correlation.mean()) / (correlation.std() + 1e-12))


def _local_contrast(detail: np.ndarray) -> np.ndarray:
    return np.sqrt(_blur(np.square(detail)).clip(0.0))


def _blur(values: np.ndarray) -> np.ndarray:
    """Mean over squares of nine pixels, edges repeated."""
    for axis in (0, 1):
        padding = [(5, 4) if k == axis else (0, 0) for k in (0, 1)]
        sums = np.cumsum(np.pad(values, padding, "edge"), axis, dtype=np.float64)
        ahead, behind = (sums[9:], sums[:-9]) if axis == 0 else (sums[:, 9:], sums[:, :-9])
        values = (ahead - behind) / 9
    return values


def _radial_mean(magnitude: np.ndarray) -> np.ndarray:
    cycles = np.fft.fftfreq(TILE, 1 / TILE)
    ring = np.hypot(cycles[:, None], cycles[None]).round().astype(int)
    sums = np.bincount(ring.ravel(), magnitude.ravel())
    inside = np.bincount(ring.ravel(), _band().ravel().astype(float))
    return (sums / np.maximum(inside, 1.0))[ring]
