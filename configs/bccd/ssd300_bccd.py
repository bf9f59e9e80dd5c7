# SSD300 in float on blood cells, from VGG16's ImageNet weights
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'

data_root = 'data/BCCD/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
dataset = dict(
    type='VOCDataset',
    data_root=data_root,
    metainfo=metainfo,
    data_prefix=dict(sub_data_root='VOC2007/'),  # VOCDataset reads the year from the path
)

# COCO's metric reads the boxes of the pictures from their metadata
test_pipeline = _base_.test_pipeline
test_pipeline[-1].update(meta_keys=(*test_pipeline[-1].meta_keys, 'instances'))

model = dict(bbox_head=dict(num_classes=3))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        **dataset,
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        # two boxes of this set have no area, which makes the loss NaN
        filter_cfg=dict(filter_empty_gt=True, bbox_min_size=4),
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        **dataset,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    _base_.val_evaluator,
    dict(type='CocoMetric', metric='bbox'),  # AP at IoU 0.50:0.95, less noisy with few pictures
]
test_evaluator = val_evaluator

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=20))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='MultiStepLR', by_epoch=True, milestones=[9, 11], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
