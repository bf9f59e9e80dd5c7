# What all quantized Faster R-CNNs share
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../../_base_/training/coco_1x.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    backbone=dict(frozen_stages=-1),  # a frozen layer could not adapt to its levels
)
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
