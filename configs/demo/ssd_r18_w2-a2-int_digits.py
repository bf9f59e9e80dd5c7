_base_ = ['./_base_/ssd_r18_digits_qat.py', '../_base_/quantization/w2-a2-int.py']

model = dict(quantization=_base_.quantization)
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.digits_hooks)
default_hooks.update(_base_.batch_norm_hooks)
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[0].total_steps = max_epochs
