"""Find the bits of each layer that lose least within a budget, and write a config with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
except ModuleNotFoundError as error:
    import wrong_python  # beside this file

    wrong_python.stop(error)
from mmqnet.command_line import choose_threads
from mmqnet.failures import one_line_errors

if TYPE_CHECKING:
    from mmqnet import sensitivity

_KINDS = dict(
    bits='bits of a weight, on average',
    kib='KiB of weights',
    gbops='1e9 multiplications for a picture, each times the bits of both its factors',
)


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the quantized model')
    parser.add_argument('sensitivities', type=Path, help='what tools/sensitivity.py wrote (.json)')
    for kind, text in _KINDS.items():
        parser.add_argument(f'--{kind}', type=float, metavar='MOST', help=f'budget: {text}')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='config (.py) to write, with a picture (.png) of the frontier beside it',
    )
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None, cfg_options=None)
    parsed = parser.parse_args(args)
    if parsed.out.suffix != '.py':
        parser.error(f'--out should end in .py, but got {str(parsed.out)!r}')
    if all(getattr(parsed, kind) is None for kind in _KINDS):
        parser.error(f'a budget should be given: --{", --".join(_KINDS)}, or several of them')
    return parsed


def describe(allocator: sensitivity.Allocator, allocation: sensitivity.Allocation) -> str:
    """Return the costs and the error of an allocation, in a line."""
    from mmqnet import sensitivity

    budgets = [sensitivity.Budget(kind, 1) for kind in _KINDS]
    costs = [f'{allocator.cost(allocation, budget):.4g} {budget.unit}' for budget in budgets]
    return f'{", ".join(costs)}; loss {allocator.error(allocation):.3g}'


def run(args: argparse.Namespace) -> None:
    from mmengine.logging import MMLogger

    from mmqnet import sensitivity
    from mmqnet.command_line import load_config
    from mmqnet.models import build_model

    MMLogger.get_instance('allocate_bits', log_level='WARNING')  # the report is not news here
    given = {kind: getattr(args, kind) for kind in _KINDS if getattr(args, kind) is not None}
    budgets = [sensitivity.Budget(kind, most) for kind, most in given.items()]
    config = load_config(args, ())
    sensitivity.check_target(args.out, config)
    record = sensitivity.load_sensitivities(args.sensitivities)
    report = build_model(config).quantization_report
    quantization = config.model.quantization.to_dict()
    sensitivity.check_model(record, report, quantization)
    allocator = sensitivity.Allocator(record)
    allocation = allocator.allocate(budgets)
    overrides = sensitivity.overrides_of(allocation, record.layers, quantization)
    line = describe(allocator, allocation)
    sensitivity.write_mixed_config(args.out, Path(args.config), overrides, line)
    draw(args.out.with_suffix('.png'), allocator, allocation, budgets)
    for layer in record.layers:
        print(f'{layer.name}  {allocation[layer.name]}')
    print(line)
    for choice, uniform in allocator.uniform().items():
        print(f'all {choice}: {describe(allocator, uniform)}')
    in_float = sum(layer.weight_bytes for layer in report.skipped) / 1024
    print(f'layers in float: {in_float:.4g} KiB more')
    print(f'written to {args.out} and {args.out.with_suffix(".png")}')


def draw(
    path: Path,
    allocator: sensitivity.Allocator,
    allocation: sensitivity.Allocation,
    budgets: list[sensitivity.Budget],
) -> None:
    from mmqnet import visualization as vis

    def point(those: sensitivity.Allocation) -> tuple[float, float]:
        return allocator.cost(those, budgets[0]), allocator.error(those)

    uniform = {str(choice): point(those) for choice, those in allocator.uniform().items()}
    frontier = allocator.frontier(budgets)
    figure = vis.draw_frontier(frontier, uniform, point(allocation), budgets[0].unit)
    vis.save_figure(figure, path)


def main(args: list[str] | None = None) -> None:
    parsed = parse_args(args)
    choose_threads()
    run(parsed)


if __name__ == '__main__':
    with one_line_errors():
        main()
