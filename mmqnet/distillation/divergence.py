"""How far the outputs of a student are from those of its teacher."""

import torch.nn.functional as F
from torch import Tensor


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the student from the teacher, times T².

    Maps are compared channel by channel: the values of a channel become a distribution over its
    positions, so that places where the teacher sees something count more than the background
    (Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, eq. 2-4).
    Logits and tokens become one over their last dimension (Hinton et al., Distilling the Knowledge
    in a Neural Network, 2015). T² keeps the size of the gradients at any T.

    Args:
        student: (N, C, H, W), or (..., C); of any floating type, the result is float32.
        teacher: Of the same shape; gets no gradient.
        temperature: T, which the values are divided by. Default 1.

    Returns:
        Tensor: A scalar, not negative; 0 where each distribution is the teacher's.

    Example:
        >>> import torch
        >>> maps = torch.randn(2, 8, 4, 4)
        >>> float(divergence(maps + 1, maps)) < 1e-6, float(divergence(-maps, maps)) > 0.1
        (True, True)
    """
    if student.dim() == 4:
        student, teacher = student.flatten(2), teacher.flatten(2)
    found = F.log_softmax(student.float() / temperature, dim=-1)
    wanted = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    distances = F.kl_div(found, wanted, reduction='none', log_target=True).sum(-1)
    return distances.mean() * temperature**2
