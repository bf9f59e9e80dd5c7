# What all quantized ResNet-50 share
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../../_base_/training/in1k.py']

model = dict(type='mmqnet.QuantizedModel', architecture=_base_.model.type)
train_dataloader = dict(dataset=dict(pipeline=_base_.training.train_pipeline))
train_cfg = dict(max_epochs=_base_.training.max_epochs)
param_scheduler = dict(milestones=[30, 45])
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'
)
