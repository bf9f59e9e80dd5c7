"""Small data sets on disk in the layouts of COCO, VOC and ImageNet: bright boxes on noise."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIZE = 96
_ANNOTATION = """<annotation><filename>{name}.jpg</filename>
<size><width>{size}</width><height>{size}</height><depth>3</depth></size>
{objects}</annotation>"""
_OBJECT = """<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{}</xmin>
<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>
"""


def write_coco(
    root: Path,
    splits: dict[str, tuple[str, str, int]],
    classes: Sequence[str] = ('person', 'bicycle', 'car'),
) -> None:
    """Write a data set in COCO's layout.

    Args:
        root: Folder to make.
        splits: From the name of a split to its annotation file, image folder and number of images.
        classes: Names of the categories.
    """
    for seed, (ann_file, folder, count) in enumerate(splits.values()):
        images, annotations = [], []
        for i in range(count):
            name = f'{i:04}.jpg'
            boxes = _write_image(root / folder / name, seed=1000 * seed + i)
            images.append(dict(id=i, file_name=name, width=SIZE, height=SIZE))
            for x, y, w, h in boxes:
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=i,
                        category_id=1 + len(annotations) % len(classes),
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
        content = dict(images=images, annotations=annotations, categories=categories)
        _write(root / ann_file, json.dumps(content))


def write_voc(
    root: Path,
    splits: dict[tuple[str, str], int],
    classes: Sequence[str] = ('aeroplane', 'bicycle', 'bird'),
) -> None:
    """Write data sets in VOC's layout.

    Args:
        root: Folder to make.
        splits: From the names of a set and of a split to the number of images.
        classes: Names of the categories.
    """
    for seed, ((year, split), count) in enumerate(splits.items()):
        names = [f'{split}_{i:04}' for i in range(count)]
        _write(root / year / 'ImageSets' / 'Main' / f'{split}.txt', '\n'.join(names))
        for i, name in enumerate(names):
            boxes = _write_image(root / year / 'JPEGImages' / f'{name}.jpg', seed=1000 * seed + i)
            objects = ''.join(
                _OBJECT.format(x, y, x + w, y + h, label=classes[j % len(classes)])
                for j, (x, y, w, h) in enumerate(boxes)
            )
            text = _ANNOTATION.format(name=name, size=SIZE, objects=objects)
            _write(root / year / 'Annotations' / f'{name}.xml', text)


def write_imagenet(root: Path, train: int, val: int) -> None:
    """Write images of a few classes, with lists of them in ``meta``."""
    for seed, (split, count) in enumerate((('train', train), ('val', val))):
        lines = []
        for i in range(count):
            _write_image(root / split / f'{i:04}.jpg', seed=1000 * seed + i)
            lines.append(f'{i:04}.jpg {i % 3}')
        _write(root / 'meta' / f'{split}.txt', '\n'.join(lines))


def write_class_folders(root: Path, classes: Sequence[str], count: int) -> None:
    """Write ``train`` and ``val`` with a folder of ``count`` images for each class."""
    for seed, split in enumerate(('train', 'val')):
        for number, name in enumerate(classes):
            for i in range(count):
                path = root / split / name / f'{i:04}.jpg'
                _write_image(path, seed=1000 * seed + 100 * number + i)


def _write_image(path: Path, seed: int) -> list[tuple[int, int, int, int]]:
    """Write an image with two boxes, each (x, y, width, height), and return the boxes."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
    boxes = []
    for left in (4, SIZE // 2):
        x, y = left + int(random.integers(8)), int(random.integers(4, SIZE // 2))
        w, h = (int(v) for v in random.integers(24, 36, 2))
        image[y : y + h, x : x + w] = random.integers(150, 256, 3)
        boxes.append((x, y, w, h))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return boxes


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
