"""The demo: train a float and a 3-bit detector of digits, export both and compare them.

Runs, one after another, the commands that a user would type, and collects their results. What is
finished is reused by the next run; a training that was interrupted is resumed.
"""

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

try:
    from mmengine.config import Config
except ModuleNotFoundError as error:
    sys.path.append(str(Path(__file__).resolve().parent.parent / 'tools'))
    import wrong_python

    wrong_python.stop(error)
from results import Row, describe_backbone, write_results
from timing import time_files

ROOT = Path(__file__).resolve().parent.parent
OUT_DIR = Path('work_dirs/demo')
DATA_DIR = Path('data/digits')
FLOAT_CONFIG = Path('configs/demo/ssd_r18_digits.py')
QUANTIZED_CONFIG = Path('configs/demo/ssd_r18_w3-a8-int_digits.py')
# What share of the float mAP hard inference should keep, for each recipe.
TARGETS = {
    'w3-a32u': 0.99,
    'w2-a32u': 0.97,
    'w3-a8u': 0.98,
    'w4-a4u': 0.97,
    'w2-a2u': 0.90,
    'w1-a2u': 0.80,
    'w3-a8-int': 0.98,
    'w4-a4-int': 0.97,
    'w2-a2-int': 0.90,
}
LOG = OUT_DIR / 'log.txt'
# Printed before each step; measured on two cores.
MINUTES = dict(data=0.5, test=0.4, export=0.4, pictures=0.4)
EPOCH_MINUTES = dict(float=0.6, quantized=1.0)
SHOWN = ('Epoch(train)', 'Epoch(val)', 'Epoch(test)', 'run in integers')
# Settings of how a training was started; they do not change its result.
START_KEYS = ('load_from', 'resume', 'work_dir', 'launcher')


class DemoError(Exception):
    """What went wrong, in one line."""


def say(text: str) -> None:
    print(text, flush=True)


def run(title: str, minutes: float, command: list[str]) -> None:
    """Run one step as a process, print its main lines and append all of its output to LOG."""
    say(f'\n== {title} (about {describe_time(60 * minutes)})\n   {shlex.join(command)}')
    start = time.monotonic()
    tail: list[str] = []
    with LOG.open('a') as log:
        log.write(f'\n$ {shlex.join(command)}\n')
        log.flush()
        program = [sys.executable, *command[1:]] if command[0] == 'python' else command
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
        with subprocess.Popen(program, **pipe) as process:
            try:
                for line in process.stdout:
                    log.write(line)
                    tail = [*tail[-14:], line.rstrip().rpartition('\r')[2]]
                    if any(word in line for word in SHOWN):
                        say('   ' + line.rstrip().rpartition(' - ')[2])
            except BaseException:
                process.terminate()
                raise
        code = process.returncode
    if code:
        say('\n'.join(tail))
        raise DemoError(f'"{title}" failed with exit code {code}; all of its output is in {LOG}')
    say(f'   done in {describe_time(time.monotonic() - start)}')


def describe_time(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.1f} min'


def reuse(title: str, what: Path) -> None:
    say(f'\n== {title}\n   reusing {what}')


def why_stale(work_dir: Path, config: Config, needs: list[Path]) -> str:
    """Return why ``work_dir`` holds no training of this config on these files, or ''."""
    dumped = work_dir / Path(config.filename).name
    try:
        before = Config.fromfile(dumped).to_dict()
    except (OSError, SyntaxError):
        return f'{dumped} is missing or unreadable'
    now = config.to_dict()
    for key in START_KEYS:
        before.pop(key, None)
        now.pop(key, None)
    changed = sorted(key for key in before.keys() | now if before.get(key) != now.get(key))
    if changed:
        return f'the config has changed ({", ".join(changed)})'
    first = min(path.stat().st_mtime for path in [dumped, *work_dir.glob('epoch_*.pth')])
    for path in needs:
        if path.stat().st_mtime > first:
            return f'{path} is newer'
    return ''


def set_aside(folder: Path) -> Path:
    """Rename a folder to the first free name beside it."""
    number = 1
    while (aside := folder.with_name(f'{folder.name}.old{number}')).exists():
        number += 1
    return folder.rename(aside)


def last_checkpoint(work_dir: Path) -> Path | None:
    """Return the last complete checkpoint, whose name MMEngine writes to ``last_checkpoint``."""
    try:
        noted = Path((work_dir / 'last_checkpoint').read_text().strip())
    except OSError:
        return None
    path = work_dir / noted.name
    return path if path.is_file() else None


def train(title: str, config_file: Path, epoch_minutes: float, needs: list[Path]) -> Path:
    """Train, resume or reuse a training, and return the final checkpoint."""
    config = Config.fromfile(config_file)
    work_dir = Path('work_dirs', config_file.stem)
    final = work_dir / f'epoch_{config.train_cfg.max_epochs}.pth'
    command = ['python', 'tools/train.py', str(config_file)]
    last = last_checkpoint(work_dir)
    if last:
        reason = why_stale(work_dir, config, needs)
        if reason:
            say(f'\n{reason}: the former training is kept as {set_aside(work_dir)}')
        elif last == final:
            reuse(title, final)
            return final
        else:
            command.append('--resume')
    run(title, epoch_minutes * config.train_cfg.max_epochs, command)
    if last_checkpoint(work_dir) != final:
        raise DemoError(f'{config_file} was trained, but {final} is not there')
    return final


def evaluate(title: str, config_file: Path, checkpoint: Path, name: str, *options: str) -> dict:
    """Return the metrics that tools/test.py writes for a checkpoint."""
    work_dir = OUT_DIR / name

    def newest() -> Path | None:
        found = sorted(work_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
        fresh = [path for path in found if path.stat().st_mtime > checkpoint.stat().st_mtime]
        return fresh[-1] if fresh else None

    title = f'Evaluation: {title}'
    if newest():
        reuse(title, newest())
    else:
        command = ['python', 'tools/test.py', str(config_file), str(checkpoint)]
        run(title, MINUTES['test'], [*command, '--work-dir', str(work_dir), *options])
    if not newest():
        raise DemoError(f'tools/test.py left no metrics below {work_dir}')
    metrics = json.loads(newest().read_text())
    value = metrics.get('coco/bbox_mAP', math.nan)
    if not math.isfinite(value):
        raise DemoError(f'{newest()} holds no `coco/bbox_mAP`')
    return metrics


def epochs_of(config_file: Path) -> int:
    return Config.fromfile(config_file).train_cfg.max_epochs


def recipe_of(config_file: Path) -> str:
    return config_file.stem.split('_')[2]


def make_rows(float_checkpoint: Path, quantized: dict[Path, Path]) -> list[Row]:
    """Evaluate all models and return the rows of the final table.

    Args:
        float_checkpoint: The float model's.
        quantized: From config to checkpoint.
    """
    metrics = evaluate('float', FLOAT_CONFIG, float_checkpoint, 'float')
    backbones = {file: describe_backbone(Config.fromfile(file)) for file in quantized}
    rows = [Row('float', metrics, '32 / 32', backbones[QUANTIZED_CONFIG].float_bytes)]
    for config_file, checkpoint in quantized.items():
        recipe, backbone = recipe_of(config_file), backbones[config_file]
        for name, num_bytes, target, options in (
            ('soft', None, None, ['--soft']),
            ('hard', backbone.packed_bytes, TARGETS[recipe], []),
        ):
            title, folder = f'{recipe}, {name}', f'{recipe}-{name}'
            metrics = evaluate(title, config_file, checkpoint, folder, *options)
            rows.append(Row(title, metrics, backbone.bits, num_bytes, target))
    return rows


def is_newer(path: Path, source: Path) -> bool:
    return path.exists() and path.stat().st_mtime > source.stat().st_mtime


def export(title: str, config_file: Path, checkpoint: Path, name: str) -> Path:
    """Return the ONNX file of a model, which is written unless it is there."""
    path = OUT_DIR / f'{name}.onnx'
    title = f'Export: {title}'
    if is_newer(path, checkpoint):
        reuse(title, path)
        return path
    command = ['python', 'tools/export.py', str(config_file), str(checkpoint)]
    run(title, MINUTES['export'], [*command, '--out', str(path)])
    return path


def make_exported_rows(float_checkpoint: Path, quantized_checkpoint: Path) -> list[Row]:
    """Export the float model and the quantized one, and evaluate both in ONNX Runtime."""
    recipe = recipe_of(QUANTIZED_CONFIG)
    models = (
        ('float', FLOAT_CONFIG, float_checkpoint, 'float'),
        (recipe, QUANTIZED_CONFIG, quantized_checkpoint, f'{recipe}, hard'),
    )
    files, found = [], []
    for name, config_file, checkpoint, _ in models:
        title = f'{name}, ONNX Runtime'
        files.append(export(name, config_file, checkpoint, name))
        options = ('--backend', 'onnxruntime')
        found.append((title, evaluate(title, config_file, files[-1], f'{name}-ort', *options)))
    say('\n== Times in ONNX Runtime')
    times = time_files(files, Config.fromfile(QUANTIZED_CONFIG))
    return [
        Row(title, metrics, '', None, same_as=model[3], file=file, milliseconds=milliseconds)
        for (title, metrics), model, file, milliseconds in zip(
            found, models, files, times, strict=True
        )
    ]


def draw(float_checkpoint: Path, quantized_checkpoint: Path, exported: Path) -> None:
    picture = OUT_DIR / 'detections.jpg'
    title = 'Pictures: float, quantized and exported'
    if is_newer(picture, exported):
        reuse(title, picture)
        return
    models = (
        ('float', FLOAT_CONFIG, float_checkpoint),
        ('quantized', QUANTIZED_CONFIG, quantized_checkpoint),
        ('ONNX Runtime', QUANTIZED_CONFIG, exported),
    )
    command = ['python', 'tools/analyze.py', 'detections', '--images', str(DATA_DIR / 'val')]
    for model in models:
        command += ['--model', *map(str, model)]
    run(title, MINUTES['pictures'], [*command, '--out', str(picture)])


def demo(all_bits: bool) -> None:
    OUT_DIR.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    configs = [QUANTIZED_CONFIG]
    if all_bits:
        configs = [Path(f'configs/demo/ssd_r18_{recipe}_digits.py') for recipe in TARGETS]
    total = sum(MINUTES.values()) + 2 * MINUTES['test'] + MINUTES['export']  # two are exported
    total += epochs_of(FLOAT_CONFIG) * EPOCH_MINUTES['float']
    total += sum(epochs_of(file) * EPOCH_MINUTES['quantized'] + 0.8 for file in configs)
    say(f'This takes about {total:.0f} minutes on two cores; a second run reuses what is there.')
    data = ['python', 'tools/dataset_converters/digits.py', '--out-dir', str(DATA_DIR)]
    run('Data: handwritten digits on photographs', MINUTES['data'], data)
    stamp = DATA_DIR / 'digits.json'
    float_checkpoint = train('Float training', FLOAT_CONFIG, EPOCH_MINUTES['float'], [stamp])
    quantized = {}
    for config_file in configs:
        title = f'Quantization-aware training: {recipe_of(config_file)}'
        needs = [stamp, float_checkpoint]
        quantized[config_file] = train(title, config_file, EPOCH_MINUTES['quantized'], needs)
    rows = make_rows(float_checkpoint, quantized)
    rows += make_exported_rows(float_checkpoint, quantized[QUANTIZED_CONFIG])
    draw(float_checkpoint, quantized[QUANTIZED_CONFIG], rows[-1].file)
    name = 'all_bits' if all_bits else 'results'
    text = write_results(OUT_DIR, name, rows)
    took = describe_time(time.monotonic() - start)
    files = f'{name}.md, {name}.json, *.onnx, detections.jpg'
    say(f'\n{text}\nIn {OUT_DIR}: {files}. All of it took {took}.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help_text = (
        f'train and compare all of {", ".join(TARGETS)}, not {recipe_of(QUANTIZED_CONFIG)} alone'
    )
    parser.add_argument('--all-bits', action='store_true', help=help_text)
    args = parser.parse_args()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a running step is ended
    try:
        demo(args.all_bits)
    except (DemoError, OSError) as error:
        sys.exit(f'run_demo.py: error: {error}')
    except KeyboardInterrupt:
        sys.exit('run_demo.py: interrupted; the next run continues from here')


if __name__ == '__main__':
    main()
