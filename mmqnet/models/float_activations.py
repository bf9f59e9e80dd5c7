"""Tells which activations a checkpoint leaves in float."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmqnet.layers import activation_quantizers
from mmqnet.quantizers import Mode


def report_float_activations(model: nn.Module, incompatible_keys: Any = None) -> None:
    """Logs one line if a model that has been calibrated lets activations pass in float.

    Args:
        model: A converted model.
        incompatible_keys: Not used; it makes this a hook for ``load_state_dict``.
    """
    quantizers = {n: q for n, q in activation_quantizers(model).items() if q.is_calibrated}
    resting = [n for n, q in quantizers.items() if int(q.mode) == Mode.FLOAT]
    signed = [n for n, q in quantizers.items() if not q.is_active and n not in resting]
    parts = []
    for names, reason in (
        (resting, "they were saved in the phase 'weights'"),
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
