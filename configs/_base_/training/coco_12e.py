# Training of the families that upstream trains for 300 epochs: twelve more, at a tenth of the rate
training = dict(
    train_cfg=dict(max_epochs=12, val_interval=1, dynamic_intervals=None),
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
        dict(
            type='CosineAnnealingLR',
            eta_min_ratio=0.05,
            begin=0,
            end=12,
            T_max=12,
            by_epoch=True,
            convert_to_iter_based=True,
        ),
    ],
    default_hooks=dict(checkpoint=dict(interval=1)),
)
