_base_ = ['./ssd_r18_digits.py', '../_base_/quantization/w3-a8.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], **_base_.quantization),
)
default_hooks = dict(**_base_.quantization_hooks)
load_from = 'work_dirs/ssd_r18_digits/epoch_16.pth'
