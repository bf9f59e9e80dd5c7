# As w3-a8-int, with ternary weights and 2-bit activations inside
_base_ = './w3-a8-int.py'
quantization = dict(weight=dict(levels='ternary'), activation=dict(levels='uint2'))
