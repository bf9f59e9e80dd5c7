# 3-bit weights (±4), 8-bit activations: weights learn first, then activations, then both
_base_ = './w3-a32.py'
quantization = dict(activation=dict(levels='uint8', thresholds='kmeans'))
quantization_hooks = dict(
    phases=dict(
        type='mmqnet.PhaseHook',
        schedule=[
            dict(begin=0, phase='weights'),
            dict(begin=1 / 3, phase='activations'),
            dict(begin=2 / 3, phase='both'),
        ],
    )
)
