# The float model, which the training starts from, teaches too
_base_ = './ssd_r18_w1-a2u_digits.py'

default_hooks = dict(distillation=dict(type='mmqnet.DistillationHook', teacher=_base_.load_from))
