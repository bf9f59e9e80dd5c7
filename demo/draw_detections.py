"""Draws the detections of two models beside each other."""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np

import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported

SIDE = 256  # pixels of one drawn picture
COLOR = (60, 220, 60)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('float_config')
    parser.add_argument('float_checkpoint')
    parser.add_argument('quantized_config')
    parser.add_argument('quantized_checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='picture to write (.png)')
    parser.add_argument('--image-dir', type=Path, default=Path('data/digits/val'))
    parser.add_argument('--num-images', type=int, default=6)
    parser.add_argument('--score-thr', type=float, default=0.4, help='boxes below are not drawn')
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error(f'--num-images should be at least 1, but got {args.num_images}')
    return args


def draw(image: np.ndarray, instances, classes: tuple[str, ...], threshold: float) -> np.ndarray:
    """A copy of ``image``, (SIDE, SIDE, 3), with boxes, classes and scores."""
    scale = SIDE / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    for instance in instances[instances.scores >= threshold]:
        x1, y1, x2, y2 = (instance.bboxes[0] * scale).round().int().tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), COLOR, 1)
        text = f'{classes[int(instance.labels[0])]} {float(instance.scores[0]):.2f}'
        place = (x1 + 1, y1 - 3 if y1 > 12 else y2 - 3)
        for color, width in (((0, 0, 0), 3), (COLOR, 1)):
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, width)
    return image


def make_picture(args: argparse.Namespace) -> np.ndarray:
    """Two rows, float above quantized; one column an image."""
    from mmdet.apis import inference_detector, init_detector

    paths = sorted(path for path in args.image_dir.iterdir() if path.suffix in ('.jpg', '.png'))
    if not paths:
        raise FileNotFoundError(f'no pictures in {args.image_dir}')
    images = [cv2.imread(str(path)) for path in paths[: args.num_images]]
    rows = []
    for title, config, checkpoint in (
        ('float', args.float_config, args.float_checkpoint),
        ('quantized', args.quantized_config, args.quantized_checkpoint),
    ):
        model = init_detector(config, checkpoint, device='cpu')
        results = inference_detector(model, images)
        drawn = [
            draw(image, result.pred_instances, model.dataset_meta['classes'], args.score_thr)
            for image, result in zip(images, results, strict=True)
        ]
        head = np.full((24, SIDE * len(drawn), 3), 255, dtype=np.uint8)
        cv2.putText(head, title, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
        rows += [head, np.hstack(drawn)]
    return np.vstack(rows)


def main() -> None:
    args = parse_args()
    picture = make_picture(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.out.with_name(f'.{args.out.stem}-unfinished{args.out.suffix}')
    if not cv2.imwrite(str(unfinished), picture):
        raise OSError(f'cannot write {args.out}')
    os.replace(unfinished, args.out)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
