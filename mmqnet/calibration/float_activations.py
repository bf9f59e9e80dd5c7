"""Log the activations that calibration or a checkpoint leaves in float."""

import logging
from collections.abc import Collection

from mmengine.logging import print_log
from torch import nn

from mmqnet.layers import activation_quantizers
from mmqnet.quantizers import Mode


def report_float_activations(model: nn.Module, among: Collection[str] | None = None) -> None:
    """Log one line if a model that has been calibrated passes activations in float.

    Args:
        model: A converted model.
        among: Names of the quantizers that the line is about. Default None, for all.
    """
    quantizers = activation_quantizers(model)
    idle = {
        n: q for n, q in quantizers.items() if not q.is_active and (among is None or n in among)
    }
    frozen = [n for n, q in idle.items() if int(q.mode) == Mode.FLOAT]
    signed = [n for n in idle if n not in frozen]
    parts = []
    for names, reason in (
        (frozen, "they were saved in the phase 'weights'"),
        (signed, 'their input takes negative values, for which the config gives no levels'),
    ):
        if names:
            which = 'all' if len(names) == len(quantizers) else ', '.join(names)
            parts.append(f'{len(names)} of {len(quantizers)} ({which}): {reason}')
    if parts:
        print_log(
            f'Activations that stay in float: {"; ".join(parts)}',
            logger='current',
            level=logging.WARNING,
        )
