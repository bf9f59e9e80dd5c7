# What all quantized models of FCOS with ResNet-50 share
_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../../_base_/training/coco_1x.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    backbone=dict(frozen_stages=-1),  # a frozen layer could not adapt to its levels
)
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/fcos/'
    'fcos_r50_caffe_fpn_gn-head_1x_coco/fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth'
)
