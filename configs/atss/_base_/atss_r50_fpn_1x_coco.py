# What all quantized models of ATSS with ResNet-50 share
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../../_base_/training/coco_1x.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    backbone=dict(frozen_stages=-1),  # a frozen layer could not adapt to its levels
)
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/atss/'
    'atss_r50_fpn_1x_coco/atss_r50_fpn_1x_coco_20200209-985f7bd0.pth'
)
