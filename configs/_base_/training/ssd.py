# The paper's training of SSD: batches of 16, the float layers follow at a hundredth of the rate
training = dict(
    batch_size=16,
    optim_wrapper=dict(
        optimizer=dict(type='SGD', lr=1e-5, momentum=0.9, weight_decay=5e-4),
        clip_grad=dict(max_norm=20),
        constructor='mmqnet.QuantOptimWrapperConstructor',
        paramwise_cfg=dict(quantized=dict(lr=1e-5), other=dict(lr=1e-7)),
    ),
)
