"""The input projections of ``nn.MultiheadAttention`` as layers of their own."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class AttentionProjection(nn.Module):
    """Linear layer from query, key or value to the heads, whose weights the attention holds.

    It has no parameters of its own, so that checkpoints keep ``in_proj_weight``, or
    ``q_proj_weight`` and its like.

    Args:
        attention: The attention.
        index: 0 for the query, 1 for the key, 2 for the value.

    Attributes:
        attention (nn.MultiheadAttention): The attention, of which this is a part.
        key (str): Name of the attention's parameter that holds the weights.
        rows (slice): Their rows in it.
    """

    attention: nn.MultiheadAttention

    def __init__(self, attention: nn.MultiheadAttention, index: int) -> None:
        super().__init__()
        self.__dict__['attention'] = attention  # not a part of this module, but the other way round
        width = attention.embed_dim
        rows = slice(index * width, (index + 1) * width)
        is_joint = attention.in_proj_weight is not None
        self.key = 'in_proj_weight' if is_joint else f'{"qkv"[index]}_proj_weight'
        self.rows = rows if is_joint else slice(0, width)
        self._bias_rows = rows

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter of the attention that holds the weights."""
        return self.attention.get_parameter(self.key)

    @property
    def weight(self) -> Tensor:
        """Weights, (E, in)."""
        return self.parameter[self.rows]

    @property
    def bias(self) -> Tensor | None:
        """Bias, (E,), or None."""
        bias = self.attention.in_proj_bias
        return None if bias is None else bias[self._bias_rows]

    def forward(self, input: Tensor) -> Tensor:
        """Map ``input`` (..., in) to (..., E)."""
        return F.linear(input, self.weight, self.bias)


def weight_parameter(layer: nn.Module) -> nn.Parameter:
    """Return the parameter that holds the weights of a layer, its own or its attention's.

    Of a layer that is pruned (``torch.nn.utils.prune``) or parametrized, the one that is trained;
    of several (weight normalization) the largest.
    """
    if isinstance(layer, AttentionProjection):
        return layer.parameter
    if parametrize.is_parametrized(layer, 'weight'):
        originals = layer.get_submodule('parametrizations.weight').parameters(recurse=False)
        return max(originals, key=Tensor.numel)
    has_own = 'weight' in layer._parameters
    return layer.get_parameter('weight' if has_own else 'weight_orig')


def weight_rows(layer: nn.Module, name: str) -> tuple[str, int]:
    """Return the name of the parameter that holds a layer's weights, and the first of its rows.

    Args:
        layer: The layer.
        name: Its name in the model, in which the parameter is looked for.
    """
    if not isinstance(layer, AttentionProjection):
        return f'{name}.weight', 0
    return '.'.join([*name.split('.')[:-1], layer.key]), layer.rows.start
