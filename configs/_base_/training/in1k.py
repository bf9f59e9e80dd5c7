# The paper's training on ImageNet: 55 epochs in batches of 256, crops without a change of scale
training = dict(
    max_epochs=55,
    train_pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=256, edge='short'),
        dict(type='RandomCrop', crop_size=224),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ],
    optim_wrapper=dict(
        optimizer=dict(lr=1e-3),
        clip_grad=dict(max_norm=5),
        constructor='mmqnet.QuantOptimWrapperConstructor',
        paramwise_cfg=dict(quantized=dict(lr=1e-3), other=dict(lr=1e-3)),
    ),
)
