# 2-bit weights (-2..1), a scale for each output channel, at the nearest level; activations in float
_base_ = './w3-a32u.py'
quantization = dict(weight=dict(levels=[-2, -1, 0, 1]))
# At T = 1000 weights still settle on the slopes between levels: see docs/low_bit.md
quantization_hooks = dict(temperature=dict(weight=dict(end=1e5)))
