# 3-bit weights (±4), 3-bit activations
_base_ = './w3-a8.py'
quantization = dict(activation=dict(levels='uint3'))
