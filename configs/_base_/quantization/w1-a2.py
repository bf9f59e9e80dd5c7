# Binary weights, 2-bit activations
_base_ = './w2-a2.py'
quantization = dict(weight=dict(levels='binary'))
