# What all quantized RetinaNets with ResNet-50 share
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../../_base_/training/coco_1x.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    backbone=dict(frozen_stages=-1),  # a frozen layer could not adapt to its levels
)
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'retinanet/retinanet_r50_fpn_1x_coco/retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth'
)
