# Binary weights with a scale for each output channel, at the nearest level, activations in float;
# gradients of the weights at 1: see docs/low_bit.md
_base_ = './w2-a32u.py'
quantization = dict(weight=dict(levels='binary', surrogate_temperature=1))
