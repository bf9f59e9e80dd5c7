# Training of four families that the paper has not tried: upstream's 1x at a rate of 1e-3, a tenth
# of RetinaNet's, FCOS' and ATSS' and a twentieth of Faster R-CNN's
training = dict(
    optim_wrapper=dict(
        optimizer=dict(lr=1e-3),
        clip_grad=dict(max_norm=20),
        constructor='mmqnet.QuantOptimWrapperConstructor',
        paramwise_cfg=dict(quantized=dict(lr=1e-3), other=dict(lr=1e-3)),
    ),
)
