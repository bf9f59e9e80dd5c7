"""Times of exported files in ONNX Runtime."""

import contextlib
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmqnet.export.pictures import pictures
from mmqnet.export.runtime import open_session


def time_files(paths: Sequence[Path], config: Config, num_pictures: int = 50) -> list[float]:
    """Return the median milliseconds a picture of each file, in one thread.

    The files take turns on each picture, so that other load of the machine meets all of them.

    Args:
        paths: Exported files that take the same pictures.
        config: With ``test_dataloader``, whose pictures are taken.
        num_pictures: How many of them.
    """
    sessions = [open_session(str(path), 'onnxruntime', threads=1) for path in paths]
    with contextlib.redirect_stdout(io.StringIO()):  # the annotations are no news
        inputs = [
            image.numpy() for (image,) in pictures(config, sessions[0].metadata, num_pictures)
        ]
    for session in sessions:
        session.run(inputs[0])
    times = [[_seconds(session, image) for session in sessions] for image in inputs]
    return [1000 * median for median in np.median(times, axis=0)]


def _seconds(session, image: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(image)
    return time.perf_counter() - start
