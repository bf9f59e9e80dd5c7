# 2-bit weights (-2..1), a scale for each output channel, 2-bit activations, at the nearest level
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(levels=[-2, -1, 0, 1], granularity='channel'), activation=dict(levels='uint2')
)
