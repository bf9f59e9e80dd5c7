"""Exported files in ONNX Runtime and OpenVINO, against float and against the runtimes' own int8.

Weights are random and images noise: times and sizes depend on neither. The files are those of
``tools/export.py --raw``: neither decoding nor NMS counts.
"""

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from exporting import quantized_module, write_float, write_quantized
from measuring import Cases, Ratio, Row, Settings, interleave, median_ratio
from runtimes import (
    IMAGES,
    has_vnni,
    noise,
    onnxruntime_session,
    openvino_session,
    quantize_by_onnxruntime,
)

TURNS = 9
RUNTIMES = ('onnx', 'onnxscript', 'onnxruntime', 'openvino')


@dataclass(frozen=True)
class Case:
    """A config to export.

    Attributes:
        config: File below ``configs/``.
        size: Side of the image in pixels.
        over_float: Largest time over float in ONNX Runtime: without VNNI, with it.
        limits: Whether the other columns have targets.
    """

    config: str
    size: int
    over_float: tuple[float, float] = (0.50, 0.50)
    limits: bool = False


CASES = {
    'SSD300-VGG16, w3-a8-int': Case('ssd/ssd300_w3-a8-int_coco.py', 300, (0.50, 0.25), True),
    'ResNet-18, w4-a4-int': Case('resnet/resnet18_w4-a4-int_in1k.py', 224),
    'RetinaNet-R18, w4-a4-int': Case('retinanet/retinanet_r18_fpn_w4-a4-int_1x_coco.py', 320),
}
QUICK = {'ResNet-18, w4-a4-int': Case('resnet/resnet18_w4-a4-int_in1k.py', 64)}


def cases(settings: Settings) -> Cases:
    """Return a case for each config."""
    chosen = QUICK if settings.quick else CASES
    return {name: functools.partial(measure, case, settings) for name, case in chosen.items()}


def measure(case: Case, settings: Settings) -> Row:
    """Export, quantize the float file by the runtimes' own tools, and run all in turns."""
    try:
        for package in RUNTIMES:
            __import__(package)
    except ImportError as error:
        return Row({}, {}, {str(error.name): str(error)})
    with tempfile.TemporaryDirectory() as folder:
        ours, floats = Path(folder, 'ours.onnx'), Path(folder, 'float.onnx')
        module = quantized_module(case.config, case.size)
        cost = write_quantized(case.config, case.size, module, ours)
        write_float(case.config, case.size, floats)
        layers = json.loads(Path(f'{ours}.json').read_text())['layers']
        size = ours.stat().st_size / floats.stat().st_size
        subjects, left_out = load(case, module, ours, floats, settings.threads)
        seconds = interleave(subjects, 1 if settings.quick else TURNS, settings)
    ratios = ratios_of_times(case, seconds)
    most = functools.partial(limit, case)
    ratios['file / float'] = Ratio(size, at_most=most(0.15))
    ratios['export, minutes'] = Ratio(getattr(cost, settings.clock) / 60, at_most=most(1))
    ratios['export, GiB'] = Ratio(cost.gibibytes, at_most=most(3))
    raw = dict(seconds=seconds, export=asdict(cost), vnni=has_vnni(), layers=layers)
    return Row(ratios, raw, left_out)


def load(
    case: Case, module: torch.nn.Module, ours: Path, floats: Path, threads: int
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Return what is timed, and the reasons why peers are left out, by name."""
    static = floats.with_name('static.onnx')
    quantize_by_onnxruntime(floats, [noise(case.size)] * IMAGES, static)
    openvino = functools.partial(openvino_session, threads=threads, size=case.size)
    sessions = {
        'ORT ours': onnxruntime_session(ours, threads),
        'ORT float': onnxruntime_session(floats, threads),
        'ORT static': onnxruntime_session(static, threads),
        'OpenVINO ours': openvino(ours),
        'OpenVINO float': openvino(floats),
    }
    left_out = {}
    try:
        sessions['OpenVINO NNCF'] = openvino(floats, nncf=True)
    except ImportError as error:
        left_out['nncf'] = str(error)
    image = noise(case.size)
    subjects = {name: functools.partial(run, image) for name, run in sessions.items()}
    subjects['torch'] = torch.no_grad()(functools.partial(module, torch.from_numpy(image)))
    return subjects, left_out


def ratios_of_times(case: Case, seconds: dict[str, list[float]]) -> dict[str, Ratio]:
    """Return the ratios of times that were measured."""
    over = functools.partial(median_ratio, seconds)
    ratios = {
        'ORT: ours / static': Ratio(over('ORT ours', 'ORT static'), at_most=limit(case, 1.0)),
        'ORT: ours / float': Ratio(
            over('ORT ours', 'ORT float'), at_most=case.over_float[has_vnni()]
        ),
        'torch / ORT ours': Ratio(over('torch', 'ORT ours'), at_least=limit(case, 2.5)),
        'OpenVINO: ours / float': Ratio(over('OpenVINO ours', 'OpenVINO float')),
    }
    if 'OpenVINO NNCF' in seconds:
        ratios['OpenVINO: ours / NNCF'] = Ratio(
            over('OpenVINO ours', 'OpenVINO NNCF'), at_most=limit(case, 1.0)
        )
    return ratios


def limit(case: Case, value: float) -> float | None:
    """Return a target, where the case has it."""
    return value if case.limits else None
