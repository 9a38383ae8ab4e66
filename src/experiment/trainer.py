"""The training loop, straight down: plain torch, every step traced, the best epoch's weights kept."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from experiment.batches import Batches
from verbatim import digest
from verbatim.errors import VerbatimError
from verbatim.recorder import Run


def fit(
    model: Any, optimizer: torch.optim.Optimizer, batches: Batches, config: DictConfig, seed: int, run: Run
) -> dict[str, Any]:
    """Train until the last epoch, `max_steps`, or `patience` epochs without a better validation; then load the best weights.

    A step is one update of the optimizer, on one batch; `accumulate` cuts the batch into parts. Returns what is known of the best
    epoch; `model.safetensors` holds its weights, `last.safetensors` the last epoch's.
    """
    n = batches.size("train")
    if config.batch_size > n:
        raise VerbatimError(
            "trainer.batch_size", expected=f"at most {n}, the training images that there are", found=config.batch_size,
            then=f"add trainer.batch_size={min(64, n)}",
        )  # fmt: skip
    per_epoch = math.ceil(n / config.batch_size)
    total = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    base = [group["lr"] for group in optimizer.param_groups]
    amp = torch.autocast(batches.device.type, torch.bfloat16) if config.amp else nullcontext()
    run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
    run.progress.start(total)
    best: dict[str, Any] = {}
    step = 0
    for epoch in range(1, math.ceil(total / per_epoch) + 1):
        model.train()
        loss_sum, seen = 0.0, 0
        for indices, x, y in batches.epoch("train", config.batch_size, seed=seed, epoch=epoch):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * factor(step, total, config.schedule, config.warmup_steps)
            loss = 0.0
            for part_x, part_y in _parts(x, y, config.accumulate):
                with amp:
                    part, _ = model.loss(part_x, part_y)
                if len(part_x) != len(x):  # each part counts by its size: together they give the mean of the batch
                    part = part * (len(part_x) / len(x))
                part.backward()
                loss += part.item()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            run.trace(step, indices, loss)
            optimizer.zero_grad()
            run.progress.step(step, len(x), loss)
            loss_sum, seen, step = loss_sum + loss * len(x), seen + len(x), step + 1
            if step == total:
                break
        row = {"epoch": epoch, "train_loss": loss_sum / seen} | evaluate(
            model, batches, "validation", config.batch_size, seed
        )[0]
        row["lr"] = optimizer.param_groups[0]["lr"]
        run.epoch(**row)
        monitored = row.get(f"validation_{config.monitor}")
        if monitored is None:
            raise VerbatimError("trainer.monitor", expected="loss: this model has no accuracy", found=config.monitor)
        if not best or _better(monitored, best[f"validation_{config.monitor}"], config.monitor):
            best = {"best_epoch": epoch, **{k: v for k, v in row.items() if k.startswith("validation")}}
            run.save("model.safetensors", model.state_dict())
        shown = f"validation {' '.join(f'{k[11:]} {v:.4f}' for k, v in row.items() if k.startswith('validation'))}"
        run.progress.epoch(f"epoch {epoch:3}  loss {row['train_loss']:.4f}  {shown}", shown)
        if config.patience and epoch - best["best_epoch"] >= config.patience:
            break
    run.save("last.safetensors", model.state_dict())
    from safetensors.torch import load_file

    model.load_state_dict(load_file(run.folder / "model.safetensors", device=str(batches.device)))
    return best | {"epochs": epoch, "steps": step}


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


def factor(step: int, total: int, schedule: str, warmup: int) -> float:
    """What the learning rate is multiplied by: a function of the step alone, so that a resumed run needs no state for it."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _parts(x: Tensor, y: Tensor, accumulate: int) -> Iterator[tuple[Tensor, Tensor]]:
    if accumulate == 1:
        return iter([(x, y)])
    return zip(x.chunk(accumulate), y.chunk(accumulate), strict=True)


def _better(value: float, best: float, monitor: str) -> bool:
    return value > best if monitor == "accuracy" else value < best
