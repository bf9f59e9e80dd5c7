# What all quantized SSD300 on BCCD share: four epochs from the float checkpoint
_base_ = './ssd300_bccd_finetune.py'

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], exclude=['backbone.features.33']),  # fc7
)
load_from = 'work_dirs/ssd300_finetune_bccd/epoch_6.pth'

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs)
optim_wrapper = dict(constructor='mmqnet.QuantOptimWrapperConstructor')
# over those of the recipe
bccd_hooks = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=100),
    temperature=dict(
        type='mmqnet.TemperatureHook',
        by='progress',
        weight=dict(start=10, end=100),
        activation=dict(start=10, end=60),
    ),
    gap=dict(type='mmqnet.SoftHardGapHook', num_samples=20),
)
