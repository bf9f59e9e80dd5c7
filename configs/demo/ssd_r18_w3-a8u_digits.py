# 3-bit weights (±4) and 8-bit activations, their thresholds evenly spaced
_base_ = ['./ssd_r18_digits.py', '../_base_/quantization/w3-a8u.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], **_base_.quantization),
)
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=256),
    # A soft step's slope grows with T, and so do the gradients of the layers before it; with 8 bits
    # there is no gap between soft and hard to be closed by a large T of the activations.
    temperature=dict(
        type='mmqnet.TemperatureHook',
        by='progress',
        weight=dict(start=10, end=100),
        activation=dict(start=4, end=6),
    ),
    phases=dict(
        type='mmqnet.PhaseHook',
        schedule=[
            dict(begin=0, phase='weights'),
            dict(begin=1 / 3, phase='activations'),
            dict(begin=1 / 2, phase='both'),
        ],
    ),
    gap=dict(type='mmqnet.SoftHardGapHook', num_samples=100),
)
load_from = 'work_dirs/ssd_r18_digits/epoch_5.pth'

max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(constructor='mmqnet.QuantOptimWrapperConstructor', optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=5e-4,
        pct_start=0.1,
        total_steps=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
