# LSQ: 4-bit weights (-8..7), 4-bit activations
_base_ = './lsq_w3-a8.py'
quantization = dict(weight=dict(levels=list(range(-8, 8))), activation=dict(levels='uint4'))
