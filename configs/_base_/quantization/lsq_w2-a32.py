# LSQ: 2-bit weights (-2..1), activations in float
_base_ = './lsq_w3-a32.py'
quantization = dict(weight=dict(levels=[-2, -1, 0, 1]))
