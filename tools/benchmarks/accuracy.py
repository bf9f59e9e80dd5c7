"""Accuracy beside size and speed: models in integers, and the int8 of the runtimes themselves.

    python tools/benchmarks/accuracy.py --float CONFIG CHECKPOINT --ours CONFIG CHECKPOINT ...

exports the checkpoints, quantizes the float file by ``onnxruntime.quantization.quantize_static``
and by NNCF on pictures of the training data, evaluates all of them on the config's test data in
ONNX Runtime and OpenVINO, and times them in turns. The table is ``accuracy.md`` in the output
folder, all that was measured ``accuracy.json``. After an interruption the same command continues.
"""

import argparse
import hashlib
import shutil
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import peers
from candidates import BACKENDS, candidates, size_of, write
from measuring import CLOCKS, Ratio, Row, Settings, interleave
from mmengine.config import Config
from records import Records
from runtimes import has_vnni

import mmqnet
from mmqnet import atomic
from mmqnet.command_line import positive_integer
from mmqnet.export.pictures import loader_of_test_data, pictures
from mmqnet.export.runtime import ExportedDetector, open_session
from mmqnet.export.verify_metrics import metrics_of

TURNS = 50
MEASURED, TIMED = 'accuracy', 'times'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    pair = dict(nargs=2, metavar=('CONFIG', 'CHECKPOINT'))
    parser.add_argument('--float', required=True, help='the float detector', **pair)
    parser.add_argument(
        '--ours', action='append', default=[], help='a quantized one, repeatable', **pair
    )
    parser.add_argument(
        '--backends', nargs='+', choices=BACKENDS, default=list(BACKENDS), help='default: both'
    )
    parser.add_argument('--images', type=positive_integer, default=128, help='to calibrate on')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--fresh', action='store_true', help='measure again what is kept')
    parser.add_argument('--threads', type=positive_integer, default=1)
    parser.add_argument(
        '--clock', choices=CLOCKS, default='wall', help='cpu: for one thread on a busy machine'
    )
    return parser.parse_args()


def evaluate(path: Path, backend: str, config: Config) -> Row:
    """Return the first metric of a file on all test data, and its size."""
    metrics = metrics_of(ExportedDetector(str(path), backend), config, loader_of_test_data(config))
    name, value = next(iter(metrics.items()))
    size = size_of(path)
    return Row({name: Ratio(float(value))}, dict(metrics=metrics, bytes=size))


def measure_times(runs: dict[str, tuple[Path, str]], config: Config, settings: Settings) -> Row:
    """Return the milliseconds a picture of all files, in turns."""
    threads = settings.threads
    sessions = {case: open_session(str(path), b, threads) for case, (path, b) in runs.items()}
    first = next(iter(sessions.values()))
    image = next(pictures(config, first.metadata, 1))[0].numpy()
    subjects = {case: partial(session.run, image) for case, session in sessions.items()}
    seconds = interleave(subjects, TURNS, settings)
    milliseconds = {case: Ratio(1000 * statistics.median(s)) for case, s in seconds.items()}
    return Row(milliseconds, dict(seconds=seconds, vnni=has_vnni()))


def describe(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures depend on."""
    pairs = {
        config: hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:12]
        for config, checkpoint in (args.float, *args.ours)
    }
    return dict(
        mmqnet=mmqnet.__version__,
        **peers.versions(),
        checkpoints=pairs,
        images=args.images,
        threads=args.threads,
        clock=args.clock,
    )


def table(records: Records) -> str:
    """Return the rows in Markdown."""
    rows, times = records.rows.get(MEASURED, {}), records.rows.get(TIMED, {})
    milliseconds = times['all'].ratios if 'all' in times else {}
    metric = next((name for row in rows.values() for name in row.ratios), 'metric')
    lines = [f'| file, runtime | {metric} | KiB | ms a picture |', '|---|---|---|---|']
    for case, row in rows.items():
        value = next(iter(row.ratios.values()), None)
        time = f'{milliseconds[case].value:.2f}' if case in milliseconds else ''
        figures = (
            ('', '') if value is None else (f'{value.value:.3f}', f'{row.raw["bytes"] / 1024:,.0f}')
        )
        lines.append(f'| {case} | {" | ".join(figures)} | {time} |')
    return '\n'.join(lines) + '\n'


def measure(args: argparse.Namespace, records: Records, folder: Path) -> None:
    """Write the missing files, and measure what the records lack."""
    config = Config.fromfile(args.float[0])
    runs: dict[str, tuple[Path, str]] = {}
    for candidate in candidates(args, folder):
        backends, path = set(args.backends) & set(candidate.backends), folder / candidate.file
        if not backends:
            continue
        print(f'{candidate.name}: {path}', flush=True)
        try:
            write(candidate, path)
        except ImportError as error:
            print(f'left out: {candidate.name} ({error})', flush=True)
            continue
        for backend in sorted(backends):
            case = f'{candidate.name}, {BACKENDS[backend]}'
            runs[case] = path, backend
            if case not in records.rows.get(MEASURED, {}):
                records.add(MEASURED, case, evaluate(path, backend, config))
    if set(records.rows.get(TIMED, {}).get('all', Row({}, {})).ratios) != set(runs):
        settings = Settings(args.threads, args.clock, quick=False)
        records.add(TIMED, 'all', measure_times(runs, config, settings))


def main() -> None:
    args = parse_args()
    conditions = describe(args)
    try:
        records = Records(args.out_dir / 'accuracy.json', conditions)
    except ValueError as error:
        sys.exit(f'accuracy.py: error: {error}')
    digest = hashlib.sha256(repr(conditions).encode()).hexdigest()[:12]
    folder = args.out_dir / f'accuracy-{digest}'
    if args.fresh:
        records.rows.clear()
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    measure(args, records, folder)
    text = table(records)
    atomic.write_text(args.out_dir / 'accuracy.md', text)
    print(f'\n{text}\nwritten: {args.out_dir}/accuracy.json and .md')


if __name__ == '__main__':
    main()
