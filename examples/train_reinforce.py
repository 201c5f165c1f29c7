"""Balance a pole by policy gradients (REINFORCE) in NumPy. The loss is the mean return, with a minus sign.

python examples/train_reinforce.py
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.digits import report

import mlrs

Floats = NDArray[np.float64]
LONGEST = 200
"""The steps of an episode in which the pole never falls: the largest return."""


class Pole:
    """A pole on a cart, with the interface of a Gymnasium environment; used where that is not installed."""

    def __init__(self) -> None:
        self._random = np.random.default_rng()
        self._state = np.zeros(4)
        self._steps = 0

    def reset(self, *, seed: int | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode, near the upright position."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._state, self._steps = self._random.uniform(-0.05, 0.05, 4), 0
        return self._state.copy(), {}

    def step(self, action: int) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Push the cart to the left (0) or to the right (1) for a fiftieth of a second."""
        _, speed, angle, turn = self._state
        force, mass, pole_mass, length, gravity = (10.0 if action else -10.0), 1.1, 0.1, 0.5, 9.8
        pull = (force + pole_mass * length * turn**2 * math.sin(angle)) / mass
        inertia = length * (4 / 3 - pole_mass * math.cos(angle) ** 2 / mass)
        turning = (gravity * math.sin(angle) - math.cos(angle) * pull) / inertia
        moving = pull - pole_mass * length * turning * math.cos(angle) / mass
        self._state = self._state + 0.02 * np.array([speed, moving, turn, turning])
        self._steps += 1
        has_fallen = abs(self._state[0]) > 2.4 or abs(self._state[2]) > math.radians(12)
        return self._state.copy(), 1.0, has_fallen, self._steps >= LONGEST, {}


def environment() -> Any:
    """Return `CartPole` of Gymnasium, or where that is not installed `Pole`, which is the same in NumPy."""
    try:
        import gymnasium
    except ModuleNotFoundError:
        return Pole()
    return gymnasium.make("CartPole-v1", max_episode_steps=LONGEST)


def episode(env: Any, weights: Floats, rng: np.random.Generator, seed: int) -> tuple[float, Floats, Floats]:
    """Play an episode.

    Returns:
        Its return; the returns to go, (steps,); and the slopes of the logarithms of what the actions'
        probabilities were, (steps, 5).
    """
    observation, _ = env.reset(seed=seed)
    rewards, slopes, is_over = [], [], False
    while not is_over:
        features = np.append(observation, 1.0)
        right = 1.0 / (1.0 + math.exp(-float(np.clip(features @ weights, -50.0, 50.0))))
        action = int(rng.random() < right)
        observation, reward, has_ended, was_cut, _ = env.step(action)
        rewards.append(float(reward))
        slopes.append((action - right) * features)
        is_over = has_ended or was_cut
    togo = np.cumsum(rewards[::-1])[::-1]
    return sum(rewards), togo, np.array(slopes)


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--schedule", choices=["advised", "constant"], default="advised")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=8, help="the episodes of an update")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", help="a daemon, HOST:PORT; default: the one of mlrs.connect()")
    arguments = parser.parse_args()
    rng, env, weights = np.random.default_rng(arguments.seed), environment(), np.zeros(5)
    policy = "constant" if arguments.schedule == "constant" else None
    with mlrs.connect(arguments.address) as advisor:
        run = advisor.run(
            "cart-pole", horizon=arguments.updates, optimizer="sgd", memory=False, policy=policy
        )
        returns = []
        for step in range(arguments.updates):
            seeds = rng.integers(2**31, size=arguments.episodes).tolist()
            played = [episode(env, weights, rng, seed) for seed in seeds]
            togo = np.concatenate([each[1] for each in played])
            slopes = np.concatenate([each[2] for each in played])
            advantage = (togo - togo.mean()) / (togo.std() + 1e-8)
            mean_return = float(np.mean([each[0] for each in played]))
            lr = run.next_lr(step, -mean_return)  # the loss: lower is better
            weights += lr * (advantage @ slopes) / arguments.episodes
            returns.append(mean_return)
            report(step=step, mean_return=mean_return, lr=lr)
        run.finish(metric=float(np.mean(returns[-20:])), higher_is_better=True)
    report(all_updates=float(np.mean(returns)), last_20_updates=float(np.mean(returns[-20:])))


if __name__ == "__main__":
    main()
