# Ternary weights, 2-bit activations
_base_ = './w3-a8.py'
quantization = dict(weight=dict(levels='ternary'), activation=dict(levels='uint2'))
