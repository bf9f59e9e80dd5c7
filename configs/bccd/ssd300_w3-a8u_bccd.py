_base_ = ['./_base_/ssd300_bccd_qat.py', '../_base_/quantization/w3-a8u.py']

model = dict(quantization=_base_.quantization)
# as the figures of README.md were measured, like the temperatures of bccd_hooks
model['quantization']['weight']['surrogate_temperature'] = None
model['quantization']['activation']['surrogate_temperature'] = 6
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.bccd_hooks)
