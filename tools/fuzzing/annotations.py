"""Damaged annotations of COCO and of Pascal VOC."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from fuzzing.mutations import damage_file, mutated

_CLASSES = ('cat', 'dog')
_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
_XML = """<annotation><filename>{i}.png</filename><size><width>32</width><height>24</height>
<depth>3</depth></size><object><name>cat</name><difficult>0</difficult><bndbox><xmin>3</xmin>
<ymin>4</ymin><xmax>20</xmax><ymax>19</ymax></bndbox></object><object><name>dog</name><bndbox>
<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def prepare(folder: Path) -> Callable[[random.Random], Callable[[Path], None]]:
    """Read whole annotations once, which imports what all cases need; return what makes one."""
    _load_coco(*_write_coco(folder / 'whole'))

    def case(rng: random.Random) -> Callable[[Path], None]:
        return lambda target: rng.choice((_try_coco, _try_voc))(target, rng)

    return case


def _draw(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f'{i}.png'), np.full((24, 32, 3), 20 * i, np.uint8))


def _load(**config: object) -> None:
    """Read a data set and all its samples, as a data loader does."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(
            dict(metainfo=dict(classes=_CLASSES), pipeline=_PIPELINE, **config)
        )
        for i in range(len(dataset)):
            dataset[i]


def _write_coco(folder: Path) -> tuple[Path, Path]:
    """Write a data set, and return its annotation file and the folder of its pictures."""
    _draw(folder / 'images', 3)
    boxes = [[3, 4, 17, 15], [1, 1, 8, 8]]
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=32, height=24) for i in range(3)],
        annotations=[
            dict(id=10 * i + j, image_id=i, category_id=j, bbox=box, area=box[2] * box[3],
                 iscrowd=0, segmentation=[[1, 1, 5, 1, 5, 5]])
            for i in range(3) for j, box in enumerate(boxes)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(_CLASSES)],
    )  # fmt: skip
    path = folder / 'train.json'
    path.write_text(json.dumps(content))
    return path, folder / 'images'


def _load_coco(path: Path, images: Path) -> None:
    _load(
        type='CocoDataset', ann_file=str(path), data_prefix=dict(img=str(images)),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
    )  # fmt: skip


def _try_coco(folder: Path, rng: random.Random) -> None:
    path, images = _write_coco(folder)
    if rng.random() < 0.3:
        damage_file(path, rng)
    else:
        changed = mutated(json.loads(path.read_text()), rng, rng.choice((1, 1, 3)))
        path.write_text(json.dumps(changed, default=repr, skipkeys=True), errors='replace')
    _load_coco(path, images)


def _try_voc(folder: Path, rng: random.Random) -> None:
    root = folder / 'VOC2007'
    _draw(root / 'JPEGImages', 3)
    (root / 'Annotations').mkdir()
    (root / 'ImageSets/Main').mkdir(parents=True)
    for i in range(3):
        (root / f'JPEGImages/{i}.jpg').write_bytes((root / f'JPEGImages/{i}.png').read_bytes())
        (root / f'Annotations/{i}.xml').write_text(_XML.format(i=i))
    names = root / 'ImageSets/Main/trainval.txt'
    names.write_text('0\n1\n2\n')
    path = rng.choice((names, *(root / 'Annotations').iterdir(), root / 'Annotations/1.xml'))
    if rng.random() < 0.4:
        damage_file(path, rng)
    else:
        _change_xml(path, rng)
    _load(
        type='VOCDataset', data_root=str(folder), ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'), filter_cfg=dict(filter_empty_gt=True),
    )  # fmt: skip


def _change_xml(path: Path, rng: random.Random) -> None:
    """Lose an element, or put something else into one."""
    text = path.read_text()
    elements = list(re.finditer(r'<(\w+)>([^<]*)</\1>', text)) or list(re.finditer(r'\S+', text))
    chosen = rng.choice(elements)
    odd = ('', '-5', 'nan', '1e400', '12.5', 'cat ', 'é', '<a/>', '&x;', '9' * 30, '../0', '\0')
    first, last = (chosen.start(2), chosen.end(2)) if chosen.re.groups else chosen.span()
    if rng.random() < 0.3:
        first, last = chosen.span()
    path.write_text(text[:first] + rng.choice(odd) + text[last:])
