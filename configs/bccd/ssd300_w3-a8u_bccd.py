_base_ = ['./_base_/ssd300_bccd_qat.py', '../_base_/quantization/w3-a8u.py']

model = dict(quantization=_base_.quantization)
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.bccd_hooks)
