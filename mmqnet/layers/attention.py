"""``nn.MultiheadAttention`` with quantized projections; softmax and products stay in float."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmqnet.layers.projection import AttentionProjection
from mmqnet.layers.quantized_layer import QuantizedLayer


class QuantAttentionProjection(QuantizedLayer, AttentionProjection):
    """Projection with quantized weights and input; see :class:`AttentionProjection`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``input`` (..., in) to (..., E)."""
        return F.linear(self.quantized_input(input), self.quantized_weight(), self.bias)


class QuantMultiheadAttention(nn.MultiheadAttention):
    """Attention whose projections are layers: ``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``.

    Made of a float one by :func:`expose_projections`. Its parameters keep their names. While none
    of its projections is quantized, it is the float attention.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and, if ``need_weights``, the attention; as ``nn.MultiheadAttention``.

        ``is_causal`` describes the mask, which ``attn_mask`` gives.

        Raises:
            RuntimeError: If ``is_causal`` has no mask to describe.
        """
        masks = dict(key_padding_mask=key_padding_mask, attn_mask=attn_mask)
        if not any(isinstance(layer, QuantizedLayer) for layer in self.children()):
            return super().forward(
                query, key, value, need_weights=need_weights, is_causal=is_causal,
                average_attn_weights=average_attn_weights, **masks,
            )  # fmt: skip
        if is_causal and attn_mask is None:  # as the float attention
            raise RuntimeError('`is_causal=True` needs `attn_mask`, which it describes')
        is_batch = query.dim() == 3
        inputs = (x if is_batch else x[None] for x in (query, key, value))
        if is_batch and not self.batch_first:
            inputs = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._heads(name, x) for name, x in zip('qkv', inputs, strict=True))
        out, weights = self._attend(q, k, v, need_weights, **masks)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batch:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """Return a projection of ``x`` (N, L, in) by heads, (N, H, L, E / H)."""
        return (
            self.get_submodule(f'{name}_proj')(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        )

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        need_weights: bool,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the values (N, H, L, E / H) by attention, and that, (N, H, L, S), if needed."""
        mask = self._mask(q, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout), None
        scores = q * math.sqrt(1 / self.head_dim) @ k.transpose(2, 3)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = F.dropout(weights, dropout)
        return weights @ v, weights

    def _mask(
        self, q: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """Return what is added to the scores (N, H, L, S), of a shape that broadcasts, or None."""
        total = None
        if attn_mask is not None:  # (L, S) or (N * H, L, S)
            total = _additive(attn_mask, q)
            if total.dim() == 3:
                total = total.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:  # (N, S), or (S,) without a batch
            padding = _additive(key_padding_mask, q)
            padding = padding.view(-1, 1, 1, padding.shape[-1])
            total = padding if total is None else total + padding
        return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as numbers to add: -inf where a bool one is True."""
    if mask.dtype is not torch.bool:
        return mask.to(like)
    return like.new_zeros(mask.shape).masked_fill(mask, -math.inf)


def unsupported_option(attention: nn.MultiheadAttention) -> str:
    """Return the option of an attention that keeps its projections closed; empty for none."""
    if attention.bias_k is not None:
        return 'add_bias_kv'
    return 'add_zero_attn' if attention.add_zero_attn else ''


def can_expose_projections(attention: nn.Module) -> bool:
    """Whether the projections of a module can become layers of their own."""
    return (
        type(attention) is nn.MultiheadAttention
        and not unsupported_option(attention)
        and 'forward' not in attention.__dict__
    )


def expose_projections(attention: nn.Module) -> None:
    """Make an attention a :class:`QuantMultiheadAttention`, still in float, in place.

    Args:
        attention: One for which :func:`can_expose_projections` says yes.
    """
    attention.__class__ = QuantMultiheadAttention
    assert isinstance(attention, QuantMultiheadAttention)
    out_proj: Any = attention._modules.pop('out_proj')
    out_proj.__class__ = nn.Linear  # its subclass there differs by its name only
    for index, name in enumerate('qkv'):
        attention.add_module(f'{name}_proj', AttentionProjection(attention, index))
    attention.add_module('out_proj', out_proj)  # behind them, as it runs
