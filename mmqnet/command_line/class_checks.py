"""Checks of the classes of a config against its data and its model, before either is built."""

import json
import mmap
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmqnet.checks import did_you_mean

_MANY_FILES = 200  # annotation files of one picture each that are looked into
_SHOWN = 12  # class names in a message


def check_classes(config: Config, where: str, dataset: Any) -> None:
    """Check the classes of one data set.

    Args:
        config: Its ``model`` is checked too, where there is one.
        where: Key of the data set in the config, for messages.
        dataset: Config of the data set, not of one that wraps others.

    Raises:
        ValueError: If the annotation file lacks classes of the config, or the model predicts
            another number of classes.

    Example:
        >>> dataset = dict(type='mmdet.CocoDataset', metainfo=dict(classes=('tree', 'car')))
        >>> config = Config(dict(model=dict(bbox_head=dict(num_classes=80)), default_scope='mmdet'))
        >>> check_classes(config, 'train_dataloader.dataset', dataset)
        Traceback (most recent call last):
            ...
        ValueError: `model.bbox_head.num_classes` should be 2, as `train_dataloader.dataset` has
        the classes ('tree', 'car'), but got 80
    """
    kind = _dataset_class(config, dataset)
    classes = _classes_of(dataset, kind)
    if classes is None:
        return
    found = list(_annotated_classes(dataset, kind))
    missing = [name for name in classes if name not in found]
    # Of VOC's annotations only a part is read.
    if found and (missing if _is_a(kind, 'CocoDataset') else len(missing) == len(classes)):
        raise ValueError(
            f'the annotations of `{where}` lack {_list(missing)} of the classes {_list(classes)}: '
            f'they have {_list(found)}.{did_you_mean(missing[0], found)}'
        )
    for key, number in _numbers_of_classes(config.get('model'), 'model'):
        is_classifier = config.get('default_scope') == 'mmpretrain'
        if number < len(classes) or (number > len(classes) and not is_classifier):
            raise ValueError(
                f'`{key}` should be {len(classes)}, as `{where}` has the classes '
                f'{_list(classes)}, but got {number}'
            )


def _dataset_class(config: Config, dataset: Any) -> type | None:
    kind = dataset.get('type')
    if isinstance(kind, type):
        return kind
    with DATASETS.switch_scope_and_registry(config.get('default_scope')) as registry:
        return registry.get(kind)


def _is_a(kind: type | None, name: str) -> bool:
    """Whether a class reads annotations as the class ``name`` of MMDetection or MMPretrain does."""
    bases = kind.__mro__ if kind is not None else ()
    for base in bases:
        if base.__name__ == name:
            return getattr(kind, 'load_data_list', None) is getattr(base, 'load_data_list', None)
    return False


def _classes_of(dataset: Any, kind: type | None) -> tuple[str, ...] | None:
    """Return the names of the classes; None if the config and the class do not tell them."""
    given = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    given = given or (getattr(kind, 'METAINFO', None) or {}).get('classes')
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(given)
    if _is_a(kind, 'CustomDataset') and not dataset.get('ann_file'):
        folder = _folder(dataset)
        if folder.is_dir():
            return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) or None
    return None


def _folder(dataset: Any) -> Path:
    prefix = dataset.get('data_prefix') or ''
    if not isinstance(prefix, str):
        prefix = next(iter(prefix.values()), '')
    return Path(dataset.get('data_root') or '', prefix)


def _annotated_classes(dataset: Any, kind: type | None) -> Iterator[str]:
    """Yield the names in COCO's annotation file, or in the first ones of VOC's."""
    ann_file = dataset.get('ann_file')
    if not ann_file or '://' in f'{dataset.get("data_root")}{ann_file}':
        return
    path = Path(dataset.get('data_root') or '', ann_file)
    if _is_a(kind, 'CocoDataset'):
        yield from (str(item.get('name')) for item in _read_categories(path))
    elif _is_a(kind, 'XMLDataset'):
        yield from dict.fromkeys(_names_in_voc(path, dataset))


def _read_categories(path: Path) -> list[dict[str, Any]]:
    """Return COCO's categories, without reading all of a file of hundreds of megabytes."""
    if not path.stat().st_size:
        return []
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = content.rfind(b'"categories"')
        begin = content.find(b'[', begin) if begin >= 0 else -1
        end = content.find(b']', begin)
        text = content[begin : end + 1].decode(errors='replace') if 0 <= begin < end else '[]'
    try:
        found = json.loads(text)
    except json.JSONDecodeError:  # lists inside, as of keypoints
        found = json.loads(path.read_text(errors='replace')).get('categories', [])
    return [item for item in found if isinstance(item, dict)]


def _names_in_voc(path: Path, dataset: Any) -> Iterator[str]:
    names = path.read_text(encoding='utf-8').split()
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = Path(dataset.get('data_root') or '', prefix, dataset.get('ann_subdir', 'Annotations'))
    files = (folder / f'{name}.xml' for name in names)
    for file in islice((file for file in files if file.is_file()), _MANY_FILES):
        for item in ElementTree.parse(file).iterfind('object/name'):
            yield (item.text or '').strip()


def _numbers_of_classes(model: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield the keys of all heads that predict classes, and how many."""
    if isinstance(model, list | tuple):
        for i, item in enumerate(model):
            yield from _numbers_of_classes(item, f'{key}[{i}]')
    if not isinstance(model, dict):
        return
    number = model.get('num_classes')
    is_head = 'head' in key.rpartition('.')[2]
    if is_head and isinstance(number, int) and not model.get('class_agnostic'):
        yield f'{key}.num_classes', number
    for name, item in model.items():
        is_next = name == 'head' or (name.endswith('_head') and name != 'rpn_head')
        if is_next or name in ('model', 'module', 'detector'):  # those that wrap a model
            yield from _numbers_of_classes(item, f'{key}.{name}')


def _list(names: Sequence[str]) -> str:
    more = f', .. ({len(names)})' if len(names) > _SHOWN else ''
    return f'({", ".join(map(repr, names[:_SHOWN]))}{more})'
