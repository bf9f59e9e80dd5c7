_base_ = ['./_base_/ssd_r18_digits_qat.py', '../_base_/quantization/w3-a8-int.py']

model = dict(quantization=_base_.quantization)
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.digits_hooks)
