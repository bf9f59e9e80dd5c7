# The paper's w3-a8 with evenly spaced activation thresholds, which a short training copes with
_base_ = ['./ssd_r18_digits.py', '../_base_/quantization/w3-a8u.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], **_base_.quantization),
)
default_hooks = dict(**_base_.quantization_hooks)
load_from = 'work_dirs/ssd_r18_digits/epoch_8.pth'

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(
    constructor='mmqnet.QuantOptimWrapperConstructor', optimizer=dict(lr=6e-4)
)
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=6e-4,
        pct_start=0.1,
        total_steps=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
