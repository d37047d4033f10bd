"""The training loop that all stages share: time budget, exact resume, EMA, log, contact sheets."""

from __future__ import annotations

import itertools
import json
import logging
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel

from voice2face.errors import SettingError
from voice2face.training.kept_files import fingerprint
from voice2face.training.resuming import BEGUN_WITH, STATE, state_errors
from voice2face.training.training_log import HELD_OUT, LOG, forget_lost_steps
from voice2face.whole_files import replace_file

logger = logging.getLogger("voice2face.training")

ENDING = (signal.SIGTERM, signal.SIGINT)
MOST_SKIPPED = 20  # steps in a row
TERMINATED = 128 + signal.SIGTERM  # as a shell says it


@dataclass
class LoopOptions:
    """How long to train and how often to look.

    Attributes:
        out: folder for the log, the state and the trained components.
        time_budget: seconds of training, counted over all resumes.
        max_steps: optimiser steps after which to stop, whatever the time.
        resume: continue from the state in ``out`` where there is one.
        warmup_steps: steps over which the learning rate rises.
        cooldown: last share of the run over which the learning rate falls to zero.
        ema_decay: decay of the averaged weights.
        max_gradient_norm: gradients of each group of the optimiser are scaled down to this norm.
        log_every: steps between two lines of the log.
        evaluate_every: seconds between two evaluations on held-out data.
        save_every: seconds between two saved states.
        seed: of everything random; each step draws from seed, first weights and step alone.
        begun_with: what is noted in the state of how the run was asked for.

    Raises:
        SettingError: there is no time, or no step.
    """

    out: Path
    time_budget: float = 3600.0
    max_steps: int = 10**9
    resume: bool = False
    warmup_steps: int = 100
    cooldown: float = 0.25
    ema_decay: float = 0.998
    max_gradient_norm: float = 1.0
    log_every: int = 20
    evaluate_every: float = 300.0
    save_every: float = 180.0
    seed: int = 0
    begun_with: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.time_budget <= 0 or self.max_steps < 1:
            raise SettingError("a run needs a time budget above 0 and 1 step or more")


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        elapsed: seconds of training.
        origin: checksum of the first weights; seeds batches and noise, so that a run that goes on
            from another's weights does not repeat them.
    """

    step: int = 0
    elapsed: float = 0.0
    origin: int = 0


Networks = TypeVar("Networks", bound=nn.Module)
StepFunction = Callable[[int, np.random.Generator], dict[str, Tensor]]


def ema_update(decay: float) -> Callable[[Any, Any, Any], None]:
    """Averaging rule whose decay rises from zero, so that early averages forget the start."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
        rate = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, 1.0 - rate)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return update


def set_aside(kept: Path) -> None:
    """Rename log or state of an earlier run, so that it is not taken for this one's."""
    if kept.exists():
        earlier = (kept.with_stem(f"{kept.stem}-{number}") for number in itertools.count(1))
        kept.rename(next(file for file in earlier if not file.exists()))


def training_attention(networks: nn.Module) -> AbstractContextManager[None]:
    """Plain matrix products on a CPU, where fused attention over 64 tokens is slow backwards."""
    on_cpu = next(networks.parameters()).device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()


class TrainingLoop(Generic[Networks]):
    """Runs a step function until the time is up.

    Args:
        networks: the modules that are trained; averaged and saved together.
        optimizer: over the networks' parameters.
        options: how long and how often.
    """

    def __init__(
        self, networks: Networks, optimizer: torch.optim.Optimizer, options: LoopOptions
    ) -> None:
        self.networks = networks
        self.optimizer = optimizer
        self.options = options
        self.progress = Progress(origin=int(fingerprint(networks)[:8], 16))
        self.averaged = AveragedModel(
            networks, multi_avg_fn=ema_update(options.ema_decay), use_buffers=True
        )
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self._ended_by: signal.Signals | None = None
        self._skipped = 0
        options.out.mkdir(parents=True, exist_ok=True)
        if options.resume and self._state_file.exists():
            self._load_state()
            forget_lost_steps(options.out, self.progress.step)
        else:
            for kept in (options.out / LOG, self._state_file):
                set_aside(kept)

    @property
    def _state_file(self) -> Path:
        return self.options.out / STATE

    def save_state(self) -> None:
        """Write networks, average, optimiser and progress into one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for prefix, module in (("networks", self.networks), ("averaged", self.averaged)):
            for name, value in module.state_dict().items():
                tensors[f"{prefix}/{name}"] = value.contiguous().clone()
        for index, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).contiguous().clone()
        metadata = {
            "progress": json.dumps(vars(self.progress)),
            BEGUN_WITH: json.dumps(self.options.begun_with),
        }
        replace_file(self._state_file, lambda path: save_file(tensors, path, metadata))

    def _load_state(self) -> None:
        with state_errors(self._state_file):
            with safe_open(self._state_file, "pt") as file:
                self.progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = load_file(self._state_file)
            for prefix, module in (("networks/", self.networks), ("averaged/", self.averaged)):
                of_module = {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
                module.load_state_dict(of_module)
            state: dict[int, dict[str, Tensor]] = defaultdict(dict)
            for name, value in tensors.items():
                if name.startswith("optimizer/"):
                    _, index, key = name.split("/")
                    state[int(index)][key] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": dict(state), "param_groups": groups})
        logger.info("resumed at step %d, %.0f s", self.progress.step, self.progress.elapsed)
        if self.fraction_done() >= 1.0:
            logger.warning(
                "nothing more is learnt, as the budget of this run is spent: to go on, give a "
                "--time-budget over %.0f (it is %.0f) and --max-steps over %d (it is %d)",
                self.progress.elapsed,
                self.options.time_budget,
                self.progress.step,
                self.options.max_steps,
            )

    def fraction_done(self) -> float:
        """Share of the run that is over, by time or by steps, whichever is further."""
        return max(
            self.progress.elapsed / self.options.time_budget,
            self.progress.step / self.options.max_steps,
        )

    def rate_factor(self) -> float:
        """Factor on the learning rate: linear warm-up, plateau, linear cool-down."""
        warmup = min(1.0, (self.progress.step + 1) / max(1, self.options.warmup_steps))
        left = max(0.0, 1.0 - self.fraction_done())
        return warmup * min(1.0, left / max(self.options.cooldown, 1e-9))

    def run(self, step: StepFunction, evaluate: Callable[[Networks], dict[str, float]]) -> None:
        """Train until the budget is spent or the process is asked to end.

        Asked to by SIGTERM or Ctrl-C, it finishes the step, saves its state and evaluates; a
        second time, it ends at once.

        Args:
            step: takes the step's number and its own random generator, returns scalar losses;
                ``loss`` among them is minimised.
            evaluate: takes the averaged networks, writes pictures and components as it likes,
                returns figures for the log.

        Raises:
            SettingError: no gradient is finite any more.
            KeyboardInterrupt: Ctrl-C ended it, when all is saved.
            SystemExit: SIGTERM did, so that nobody takes it for a run that is done.
        """
        previous = {each: signal.signal(each, self._ask_to_end) for each in ENDING}
        last_evaluation = last_save = self.progress.elapsed
        sums: dict[str, float] = defaultdict(float)
        counted = 0
        try:
            while self._ended_by is None and self.fraction_done() < 1.0:
                began = time.perf_counter()
                losses = self._one_step(step)
                self.progress.step += 1
                self.progress.elapsed += time.perf_counter() - began
                for name, value in losses.items():
                    sums[name] += value
                counted += 1
                if self.progress.step % self.options.log_every == 0:
                    self._log({name: value / counted for name, value in sums.items()})
                    sums, counted = defaultdict(float), 0
                if self.progress.elapsed - last_save > self.options.save_every:
                    self.save_state()
                    last_save = self.progress.elapsed
                if self.progress.elapsed - last_evaluation > self.options.evaluate_every:
                    self._evaluate(evaluate)
                    last_evaluation = self.progress.elapsed
            if self._ended_by is not None:
                logger.info("asked to end: saving and evaluating; asked again, at once")
            self.save_state()
            self._evaluate(evaluate)
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)
        if self._ended_by is signal.SIGINT:
            raise KeyboardInterrupt
        if self._ended_by is signal.SIGTERM:
            raise SystemExit(TERMINATED)

    def _ask_to_end(self, number: int, _: FrameType | None) -> None:
        self._ended_by = signal.Signals(number)
        for each in ENDING:
            signal.signal(each, signal.SIG_DFL)

    def _one_step(self, step: StepFunction) -> dict[str, float]:
        number = self.progress.step
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * self.rate_factor()
        rng = np.random.default_rng([self.options.seed, self.progress.origin, number])
        torch.manual_seed(int(rng.integers(2**63)))
        self.networks.train()
        with training_attention(self.networks):
            losses = step(number, rng)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        # each group alone: a discriminator's large gradient must not shrink the generator's
        norms = [
            nn.utils.clip_grad_norm_(group["params"], self.options.max_gradient_norm)
            for group in self.optimizer.param_groups
        ]
        if all(math.isfinite(float(norm)) for norm in norms):
            self.optimizer.step()
            self.averaged.update_parameters(self.networks)
            self._skipped = 0
        else:
            logger.warning("step %d skipped: gradient is not finite", number)
            self._skipped += 1
            if self._skipped == MOST_SKIPPED:
                raise SettingError(
                    f"{MOST_SKIPPED} steps in a row were skipped, as their gradients were not "
                    "finite: nothing is learnt any more; look at the tables, or try a smaller "
                    "learning rate"
                )
        return {name: float(value.detach()) for name, value in losses.items()}

    def _evaluate(self, evaluate: Callable[[Networks], dict[str, float]]) -> None:
        self.averaged.eval()
        with torch.inference_mode():
            figures = evaluate(cast(Networks, self.averaged.module))
        self._log({f"{HELD_OUT}{name}": value for name, value in figures.items()})

    def _log(self, figures: dict[str, float]) -> None:
        row = {"step": self.progress.step, "elapsed": round(self.progress.elapsed, 1)} | {
            name: float(f"{value:.6g}") for name, value in figures.items()
        }
        with (self.options.out / LOG).open("a") as log:
            log.write(json.dumps(row) + "\n")
        logger.info("%s", row)
