"""Detect objects on a picture with an exported file; needs numpy, Pillow and onnxruntime only."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

# What the file's metadata have beside text.
VALUES = ('input_size', 'classes', 'mean', 'std', 'pad_value', 'keep_ratio', 'resize_scale')


def resize(picture: Image.Image, size: tuple[int, int], backend: str) -> Image.Image:
    """Return a picture of another size as the model was evaluated with: OpenCV averages nothing."""
    if backend == 'pillow':
        return picture.resize(size, Image.Resampling.BILINEAR)
    steps = (picture.width / size[0], 0, 0, 0, picture.height / size[1], 0)
    return picture.transform(size, Image.Transform.AFFINE, steps, Image.Resampling.BILINEAR)


def make_input(picture: Image.Image, meta: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the input (1, 3, H, W), and by what width and height were resized."""
    height, width = meta['input_size']
    w, h = picture.size
    size = (width, height)
    if meta['keep_ratio']:
        long, short = meta['resize_scale']
        factor = min(width / w, height / h)
        if short:
            factor = min(factor, long / max(w, h), short / min(w, h))
        size = (min(width, int(w * factor + 0.5)), min(height, int(h * factor + 0.5)))
    pixels = np.asarray(resize(picture, size, meta['resize_backend']), np.float32)
    if meta['channel_order'] == 'bgr':
        pixels = pixels[..., ::-1]
    if meta['normalize'] == 'outside':
        pixels = (pixels - np.float32(meta['mean'])) / np.float32(meta['std'])
    padded = np.tile(np.float32(meta['pad_value']), (height, width, 1))
    padded[: size[1], : size[0]] = pixels
    return padded.transpose(2, 0, 1)[None], np.float32([size[0] / w, size[1] / h])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', help='what tools/export.py wrote, .onnx')
    parser.add_argument('picture')
    parser.add_argument('--out', default='detections.png', help='where the picture goes')
    parser.add_argument('--score', type=float, default=0.3, help='of the boxes that are drawn')
    args = parser.parse_args()
    for path in (args.file, args.picture):
        if not Path(path).is_file():
            parser.error(f'{path!r} does not exist')
    session = onnxruntime.InferenceSession(args.file, providers=['CPUExecutionProvider'])
    if [output.name for output in session.get_outputs()] != ['dets', 'labels']:
        parser.error(f'{args.file!r} should be a detector that tools/export.py wrote without --raw')
    meta = session.get_modelmeta().custom_metadata_map
    meta.update((key, json.loads(meta[key])) for key in VALUES)
    # as the eye sees it: a phone notes how it was held, and turns no pixels
    picture = ImageOps.exif_transpose(Image.open(args.picture)).convert('RGB')
    pixels, factors = make_input(picture, meta)
    dets, labels = session.run(['dets', 'labels'], {'input': pixels})
    draw = ImageDraw.Draw(picture)
    for (*box, score), label in zip(dets[0].tolist(), labels[0].tolist(), strict=True):
        if label >= 0 and score >= args.score:
            box = (np.array(box) / np.tile(factors, 2)).round(1).tolist()
            name = meta['classes'][label] if label < len(meta['classes']) else str(label)
            print(f'{name} {score:.3f} {box}')
            draw.rectangle(box, outline='red', width=2)
            draw.text((box[0] + 2, box[1]), f'{name} {score:.2f}', fill='red')
    picture.save(args.out)


if __name__ == '__main__':
    main()
