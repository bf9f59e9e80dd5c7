# 3-bit weights (±4), activations in float
quantization = dict(weight=dict(levels='pm4', thresholds='kmeans'))
quantization_hooks = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=1000),
    temperature=dict(type='mmqnet.TemperatureHook', weight=dict(slope=10)),
    gap=dict(type='mmqnet.SoftHardGapHook', interval=1, num_samples=200),
    scales=dict(type='mmqnet.ScaleLogHook', interval=200),
    # what a run needs that may be killed at any moment
    checkpoint=dict(type='mmqnet.CheckpointHook'),
    randomness=dict(type='mmqnet.RandomnessHook'),
)
