# LSQ: 3-bit weights (-4..3), 3-bit activations
_base_ = './lsq_w3-a8.py'
quantization = dict(activation=dict(levels='uint3'), quantize_identity=False)
