# 3-bit weights (-4..3), each at the nearest level, with a scale of the least squared error for each
# output channel; activations in float
_base_ = './w3-a32.py'
# The function is nearly hard from the first step on, with gradients of T = 3: see docs/low_bit.md
quantization = dict(
    weight=dict(
        levels=[-4, -3, -2, -1, 0, 1, 2, 3],
        granularity='channel',
        thresholds='uniform',
        scale_init='mse',
        surrogate_temperature=3,
    )
)
quantization_hooks = dict(
    temperature=dict(by='progress', weight=dict(_delete_=True, start=100, end=1000))
)
