"""The training loop, straight down: plain torch, every step traced, the best epoch's weights kept."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import Tensor, nn

from experiment.batches import Batches
from verbatim import digest
from verbatim.errors import VerbatimError
from verbatim.recorder import Run


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
    monitor = f"validation_{config.monitor}"
    if config.monitor == "accuracy" and not model.score:
        raise VerbatimError("trainer.monitor", expected="loss: this model has no accuracy", found=config.monitor)
    per_epoch = math.ceil(n / config.batch_size)
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    rate = Rate(optimizer, total, config.schedule, config.warmup_steps)
    run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
    run.progress.start(total)
    best: dict[str, Any] = {}
    step = 0
    for epoch in range(1, math.ceil(total / per_epoch) + 1):
        loss, step = one_epoch(model, optimizer, batches, config, seed, epoch, step, rate, run)
        validation, _ = evaluate(model, batches, "validation", config.batch_size, seed)
        run.epoch(epoch=epoch, train_loss=loss, **validation, lr=optimizer.param_groups[0]["lr"])
        if not best or _better(validation[monitor], best[monitor], config.monitor):
            best = {"best_epoch": epoch, **validation}
            run.save("model.safetensors", model.state_dict())
        shown = " ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in validation.items())
        run.progress.epoch(f"epoch {epoch:3}  loss {loss:.4f}  {shown}", shown)
        if config.patience and epoch - best["best_epoch"] >= config.patience:
            break
    run.save("last.safetensors", model.state_dict())
    model.load_state_dict(load_file(run.folder / "model.safetensors", device=str(batches.device)))
    return best | {"epochs": epoch, "steps": step}


def one_epoch(
    model: Any, optimizer: torch.optim.Optimizer, batches: Batches, config: DictConfig, seed: int, epoch: int, step: int,
    rate: "Rate", run: Run,
) -> tuple[float, int]:  # fmt: skip
    """One pass over the training images, or what is left of the steps. Returns the mean loss over the images seen, and `step`.

    A step is one update of the optimizer, on one batch; `accumulate` cuts the batch into parts.
    """
    model.train()
    loss_sum, seen = 0.0, 0
    amp = torch.autocast(batches.device.type, torch.bfloat16, enabled=config.amp)
    accumulate, clip_norm = config.accumulate, config.clip_norm  # looked up once: a configuration is slow to ask
    for indices, x, y in batches.epoch("train", config.batch_size, seed=seed, epoch=epoch):
        rate.set(step)
        loss = 0.0
        for part_x, part_y in _parts(x, y, accumulate):
            with amp:
                part, _ = model.loss(part_x, part_y)
            if len(part_x) != len(x):  # each part counts by its size: together they give the mean of the batch
                part = part * (len(part_x) / len(x))
            part.backward()
            loss += part.item()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        run.trace(step, indices, loss)
        optimizer.zero_grad()
        run.progress.step(step, len(x), loss)
        loss_sum, seen, step = loss_sum + loss * len(x), seen + len(x), step + 1
        if step == rate.total:
            break
    return loss_sum / seen, step


@torch.no_grad()
def evaluate(model: Any, batches: Batches, split: str, batch_size: int, seed: int) -> tuple[dict[str, float], str]:
    """Metrics over one split, averaged over the images seen, and the digest of the predictions (float32, in the split's order).

    Draws of its own (a VAE's latents) start from the seed and leave training's generators as they were.
    """
    model.eval()
    loss_sum, correct, seen, predicted = 0.0, 0, 0, []
    with torch.random.fork_rng(devices=[batches.device] if batches.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for x, y in batches.in_order(split, batch_size):
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
        self._groups = [(group, group["lr"]) for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """From 0 to 1 over the warm-up; then constant, or down to 0 along half a cosine."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        if self._schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self._warmup) / max(1, self.total - self._warmup)))

    def set(self, step: int) -> None:
        factor = self.factor(step)
        for group, base in self._groups:
            group["lr"] = base * factor


def _parts(x: Tensor, y: Tensor, accumulate: int) -> Iterator[tuple[Tensor, Tensor]]:
    if accumulate == 1:
        return iter([(x, y)])
    return zip(x.chunk(accumulate), y.chunk(accumulate), strict=True)


def _better(value: float, best: float, monitor: str) -> bool:
    return value > best if monitor == "accuracy" else value < best
