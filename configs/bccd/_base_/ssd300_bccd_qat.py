# What all quantized SSD300 on BCCD share
_base_ = './ssd300_bccd_3e.py'

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], exclude=['backbone.features.33']),  # fc7
)
optim_wrapper = dict(constructor='mmqnet.QuantOptimWrapperConstructor')
# over those of the recipe
bccd_hooks = dict(
    # VGG16 has no batch normalization
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=100, match_outputs=True),
    gap=dict(type='mmqnet.SoftHardGapHook', num_samples=20),
)
