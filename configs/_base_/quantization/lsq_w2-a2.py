# LSQ: 2-bit weights (-2..1), 2-bit activations
_base_ = './lsq_w3-a8.py'
quantization = dict(
    weight=dict(levels=[-2, -1, 0, 1]), activation=dict(levels='uint2'), quantize_identity=False
)
