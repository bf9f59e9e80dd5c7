# What all quantized SSDs of the demo share: two epochs from the float checkpoint
_base_ = ['../ssd_r18_digits.py', './batch_norm.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone']),
)
load_from = 'work_dirs/ssd_r18_digits/epoch_5.pth'

max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(constructor='mmqnet.QuantOptimWrapperConstructor', optimizer=dict(lr=1e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(eta_max=1e-3, pct_start=0.1, total_steps=max_epochs)
# over those of the recipe
digits_hooks = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=256),
    gap=dict(type='mmqnet.SoftHardGapHook', num_samples=100),
)
