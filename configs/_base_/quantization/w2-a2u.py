# 2-bit weights (-2..1), 2-bit activations, at the nearest level; residual blocks add their input
# as it is: see docs/low_bit.md
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(levels=[-2, -1, 0, 1], granularity='layer'),
    activation=dict(levels='uint2'),
    quantize_identity=False,
)
# At T = 1000 weights still settle on the slopes between levels, which the hard function lacks
quantization_hooks = dict(temperature=dict(weight=dict(end=1e5)))
