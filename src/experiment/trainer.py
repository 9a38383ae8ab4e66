"""The training loop, straight down: plain torch, every step traced, the best epoch's weights kept, to go on from any step."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from experiment.batches import Batches
from experiment.parallel import Parallel
from verbatim import digest, keyed
from verbatim.errors import VerbatimError
from verbatim.recorder import Run

EVALUATION = -1  # the step that draws of an evaluation are keyed by


@dataclass
class Position:
    """Where training stands, besides model and optimizer. `batch`: how many this epoch has had; `loss_sum` over `seen` images of it."""

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    ended: bool = False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def fit(
    model: Any, optimizer: torch.optim.Optimizer, batches: Batches, config: DictConfig, seed: int, run: Run
) -> dict[str, Any]:
    """Train until the last epoch, `max_steps`, or `patience` epochs without a better validation; then load the best weights.

    Returns what is known of the best epoch; `model.safetensors` holds its weights, `last.safetensors` the last epoch's.
    """
    n = batches.size("train")
    if config.batch_size > n:
        raise VerbatimError(
            "trainer.batch_size", expected=f"at most {n}, the training images that there are", found=config.batch_size,
            then=f"add trainer.batch_size={min(64, n)}",
        )  # fmt: skip
    if config.monitor == "accuracy" and not model.score:
        raise VerbatimError("trainer.monitor", expected="loss: this model has no accuracy", found=config.monitor)
    per_epoch = math.ceil(n / config.batch_size)
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    rate = Rate(optimizer, total, config.schedule, config.warmup_steps)
    parallel = Parallel(model, config, run)
    run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
    position = Position()
    run.keeps(model=model, optimizer=optimizer, position=position)
    run.progress.start(total, position.step)
    while not position.ended:
        one_epoch(parallel, optimizer, batches, config, seed, position, rate, run)
        validation = evaluate(model, batches, "validation", config.batch_size, seed)[0]
        _end_epoch(model, optimizer, config, position, validation, rate, run)
        run.checkpoint(epoch=True)
    run.save("last.safetensors", model.state_dict())
    model.load_state_dict(run.load("model.safetensors"))
    return position.best | {"epochs": position.epoch - 1, "steps": position.step}


def one_epoch(
    parallel: Parallel, optimizer: torch.optim.Optimizer, batches: Batches, config: DictConfig, seed: int,
    position: Position, rate: "Rate", run: Run,
) -> None:  # fmt: skip
    """One pass over the training images, or what is left of it or of the steps.

    A step is one update of the optimizer, on one batch: `shards` cuts it into pieces for ranks, `accumulate` those into parts.
    """
    parallel.model.train()
    device = batches.device
    amp = torch.autocast(device.type, torch.bfloat16, enabled=config.amp)
    accumulate, clip_norm = config.accumulate, config.clip_norm  # looked up once: a configuration is slow to ask
    epoch = batches.epoch(
        "train", config.batch_size, seed=seed, epoch=position.epoch, cut=parallel.cut, skip=position.batch
    )
    for indices, shards in itertools.islice(epoch, rate.total - position.step):
        step, count = position.step, len(indices)
        rate.set(step)
        losses = []
        for shard in shards:
            loss = 0.0
            for part, part_x, part_y in _parts(*shard, accumulate) if shard else ():
                with amp, keyed.by(seed, step, part):
                    part_loss = parallel.loss(part_x, part_y)
                if len(part) != count:  # each part counts by its size: together they give the mean of the batch
                    part_loss = part_loss * (len(part) / count)
                parallel.backward(part_loss)
                loss += part_loss.item()
            losses.append(loss)
            parallel.shard_done()
        loss = parallel.step_done(losses)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parallel.model.parameters(), clip_norm)
        optimizer.step()
        run.trace(step, indices, loss)
        optimizer.zero_grad()
        run.progress.step(step, count, loss)
        position.batch, position.step = position.batch + 1, step + 1
        position.loss_sum, position.seen = position.loss_sum + loss * count, position.seen + count
        run.checkpoint()


def _end_epoch(
    model: Any, optimizer: torch.optim.Optimizer, config: DictConfig, position: Position,
    validation: dict[str, float], rate: "Rate", run: Run,
) -> None:  # fmt: skip
    """Note the epoch, keep its weights where they are the best so far, and see whether it was the last."""
    monitor, epoch, loss = f"validation_{config.monitor}", position.epoch, position.loss_sum / position.seen
    run.epoch(epoch=epoch, train_loss=loss, **validation, lr=optimizer.param_groups[0]["lr"])
    if not position.best or _better(validation[monitor], position.best[monitor], config.monitor):
        position.best = {"best_epoch": epoch, **validation}
        run.save("model.safetensors", model.state_dict())
    shown = " ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in validation.items())
    run.progress.epoch(f"epoch {epoch:3}  loss {loss:.4f}  {shown}", shown)
    patient = not config.patience or epoch - position.best["best_epoch"] < config.patience
    position.ended = position.step == rate.total or not patient
    position.epoch, position.batch, position.loss_sum, position.seen = epoch + 1, 0, 0.0, 0


@torch.no_grad()
def evaluate(model: Any, batches: Batches, split: str, batch_size: int, seed: int) -> tuple[dict[str, float], str]:
    """Metrics over one split, averaged over the images seen, and the digest of the predictions (float32, in the split's order).

    Draws of its own (a VAE's latents) are keyed by the image, and those by torch's generator start from the seed.
    """
    model.eval()
    loss_sum, correct, seen, predicted = 0.0, 0, 0, []
    with torch.random.fork_rng(devices=[batches.device] if batches.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for indices, x, y in batches.in_order(split, batch_size):
            with keyed.by(seed, EVALUATION, indices):
                loss, output = model.loss(x, y)
            loss_sum, seen = loss_sum + loss.item() * len(x), seen + len(x)
            if model.score:
                correct += int((output.argmax(1) == y).sum())
            predicted.append(output.float().cpu())
    metrics = {f"{split}_loss": loss_sum / seen}
    if model.score:
        metrics[f"{split}_{model.score}"] = correct / seen
    return metrics, digest.of_tensors({"predictions": torch.cat(predicted)})


class Rate:
    """The learning rate of each step, a function of the step alone: a resumed run needs no state for it."""

    def __init__(self, optimizer: torch.optim.Optimizer, total: int, schedule: str, warmup_steps: int) -> None:
        self.total, self._schedule, self._warmup = total, schedule, warmup_steps
        self._optimizer, self._base = optimizer, [group["lr"] for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """From 0 to 1 over the warm-up; then constant, or down to 0 along half a cosine."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        if self._schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self._warmup) / max(1, self.total - self._warmup)))

    def set(self, step: int) -> None:
        factor = self.factor(step)
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor


def _parts(samples: Tensor, x: Tensor, y: Tensor, accumulate: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """As many parts, as equal as can be; fewer where there are fewer samples."""
    if accumulate == 1:
        return iter([(samples, x, y)])
    return zip(*(each.tensor_split(min(accumulate, len(samples))) for each in (samples, x, y)), strict=True)


def _better(value: float, best: float, monitor: str) -> bool:
    return value > best if monitor == "accuracy" else value < best
