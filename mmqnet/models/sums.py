"""Sums of integers: quantizers of the operands that residual blocks and FPNs add."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import nn

from mmqnet.layers import quantize_block_input, quantize_summed_outputs, summed_outputs
from mmqnet.models.plan import LayerPlan
from mmqnet.models.report import SumReport, describe_quantizer
from mmqnet.quantizers import QuantizerConfig, quantizers_of


@dataclass(frozen=True)
class SumPlan:
    """A module whose sums are to be between integers.

    Attributes:
        name: Dotted module name.
        module: A residual block or an FPN.
        quantizer: Quantizer of the operands.
        quantizes_input: Whether the block's input, which it adds, is to pass a quantizer too: not
            where one for all its readers has been planned, or another tensor is added.
    """

    name: str
    module: nn.Module
    quantizer: QuantizerConfig
    quantizes_input: bool


def plan_sums(
    model: nn.Module,
    plans: dict[str, LayerPlan],
    blocks: Collection[nn.Module],
    in_float: Collection[str],
    sums: QuantizerConfig,
) -> list[SumPlan]:
    """Find the sums of a float model, and remove from ``plans`` the quantizers that they replace.

    Args:
        model: The float model.
        plans: The plans of all layers by name.
        blocks: The residual blocks whose input is quantized once, for all that read it.
        in_float: Names of the layers whose inputs stay in float.
        sums: Quantizer of the operands.
    """
    found = []
    for name, module in model.named_modules():
        outputs = summed_outputs(module)
        if not outputs and not _is_fpn(module):
            continue
        prefix = f'{name}.' if name else ''
        within = [plan for n, plan in plans.items() if n.startswith(prefix)]
        if not within or any(plan.name in in_float for plan in within):
            continue
        adds_input = bool(outputs) and 'identity_quantizer' not in outputs
        plan = SumPlan(name, module, sums, adds_input and module not in blocks)
        if plan.quantizes_input and within[0].activation == sums:
            plans[within[0].name] = replace(within[0], activation=None)
        found.append(plan)
    return found


def quantize_sums(plan: SumPlan) -> SumReport:
    """Add the quantizers of a plan to a converted block or FPN, in place, and report them."""
    module, kind = plan.module, type(plan.module).__name__
    before = quantizers_of(module)
    if _is_fpn(module):
        from mmqnet.layers.fpn import quantize_top_down  # imports MMDetection

        quantize_top_down(module, plan.quantizer)
    else:
        if plan.quantizes_input:
            quantize_block_input(module, plan.quantizer)
        quantize_summed_outputs(module, plan.quantizer)
    added = tuple(name for name in quantizers_of(module) if name not in before)
    return SumReport(plan.name, kind, added, describe_quantizer(plan.quantizer))


def _is_fpn(module: nn.Module) -> bool:
    """Whether it is MMDetection's FPN itself: its descendants add in other ways."""
    kind = type(module)
    return (kind.__module__, kind.__name__) == ('mmdet.models.necks.fpn', 'FPN')
