_base_ = ['./_base_/ssd300_bccd_qat.py', '../_base_/quantization/w3-a32u.py']

model = dict(quantization=_base_.quantization)
# as the figures of README.md were measured, like the temperatures of bccd_hooks
model['quantization']['weight']['surrogate_temperature'] = None
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.bccd_hooks)
