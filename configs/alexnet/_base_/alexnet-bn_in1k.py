# What all quantized AlexNets share
_base_ = ['../alexnet-bn_8xb32_in1k.py', '../../_base_/training/in1k.py']

model = dict(type='mmqnet.QuantizedModel', architecture=_base_.model.type)
train_dataloader = dict(dataset=dict(pipeline=_base_.training.train_pipeline))
train_cfg = dict(max_epochs=_base_.training.max_epochs)
param_scheduler = dict(milestones=[25, 40])
optim_wrapper = _base_.training.optim_wrapper
load_from = 'work_dirs/alexnet-bn_8xb32_in1k/epoch_100.pth'
