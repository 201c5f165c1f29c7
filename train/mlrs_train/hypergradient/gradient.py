"""The mathematics of a meta update: how the validation loss depends on the network's weights phi.

With w the base learner's weights, g the gradient of its training loss and d = g + wd * w the update
direction per unit learning rate, the virtual step is (Shu et al., eq. 8)

    w'(phi) = w - lr(phi) * d,        lr(phi) = gamma * sigma(loss; phi).

w and d do not depend on phi, so the chain rule leaves one number to know about w' (the alignment):

    dL_val(w') / dphi = -a * dlr / dphi,        a = <grad L_val(w'), d>.

lr is differentiated through the last LSTM step only: the state it starts from is a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_core.networks.paper.reference import PaperNet, State
from mlrs_train.tasks.task import Params

Loss = Callable[[Params], Tensor]
"""A loss as a function of the base model's parameters."""


@dataclass(frozen=True)
class MetaGradient:
    """The gradient of the validation loss after a virtual step."""

    validation_loss: float
    """L_val(w'), nats."""
    alignment: float
    """<grad L_val(w'), d>."""
    gradients: tuple[Tensor, ...]
    """dL_val(w') / dphi, in the order of the network's parameters."""


def value_and_grad(loss: Loss, params: Params) -> tuple[Tensor, Params]:
    """Return the loss, detached, and its gradient."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    value = loss(leaves)
    gradients = torch.autograd.grad(value, list(leaves.values()))
    return value.detach(), dict(zip(leaves, gradients, strict=True))


def sgd_direction(params: Params, gradients: Params, weight_decay: float) -> Params:
    """Return d = g + wd * w."""
    return {name: gradients[name] + weight_decay * tensor for name, tensor in params.items()}


def sgd_step(params: Params, direction: Params, lr: float) -> Params:
    """Return w - lr * d."""
    return {name: tensor - lr * direction[name] for name, tensor in params.items()}


def learning_rate(net: PaperNet, state: State, loss: Tensor, gamma: float) -> tuple[Tensor, State]:
    """Return lr(phi), a scalar that is differentiable in phi, and the LSTM state after it."""
    sigma, moved = net(loss.detach().reshape(1), state)
    return gamma * sigma[0], moved


def meta_gradient(
    net: PaperNet,
    *,
    state: State,
    loss: Tensor,
    gamma: float,
    params: Params,
    direction: Params,
    validation_loss: Loss,
) -> MetaGradient:
    """Return the gradient of the validation loss after a virtual step from here.

    Args:
        net: the network; neither it nor anything else is changed.
        state: the LSTM state before this step.
        loss: the training loss of this step, a scalar.
        gamma: the scale of the learning rate.
        params: w.
        direction: d.
        validation_loss: L_val on a held-out batch.
    """
    lr, _ = learning_rate(net, state, loss, gamma)
    virtual = sgd_step(params, direction, lr.item())
    value, gradients = value_and_grad(validation_loss, virtual)
    alignment = float(sum((gradients[name] * d).sum(dtype=torch.float64) for name, d in direction.items()))
    return MetaGradient(
        validation_loss=float(value),
        alignment=alignment,
        gradients=torch.autograd.grad(-alignment * lr, list(net.parameters())),
    )
