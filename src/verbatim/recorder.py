"""A run: the one seam between a training script and the machinery.

    with verbatim.run(config) as run:              claims a folder, starts the record, sets determinism, loads torch
        run.uses(data.fingerprint, data.files)     completes the recipe, before the first step
        run.keeps(model=model, optimizer=optimizer)    goes on from the last checkpoint of an unfinished run of this recipe
        run.trace(step, batch, loss)               one row per step
        run.checkpoint()                           when one is due; and before the run ends that was asked to
        run.save("model.safetensors", state)
        run.finish(state, accuracy=0.97)           seals the record

`config` has `seed`, `determinism.level`, `determinism.threads`, `paths.runs` and `trace.parameters_every`; the rest is its own. What it
says of `machine` (`workers`, `resume`, `checkpoints`) reaches no bit and is no part of the recipe.
Leaving the block without `finish` seals the record as `failed` or `interrupted`, with the reason; Ctrl-C and SIGTERM are seen to.
Of several ranks, the first alone writes.
"""

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import xxhash
from omegaconf import DictConfig, OmegaConf

from verbatim import (
    checkpoint,
    code,
    curves,
    determinism,
    digest,
    environment,
    epochs,
    folders,
    generators,
    portable,
    record,
    resume,
    settings,
    trace,
    trackers,
)
from verbatim.ending import Ending
from verbatim.errors import Interrupted, VerbatimError, mendable
from verbatim.folders import ROOT
from verbatim.multirun import jobs
from verbatim.progress import Progress
from verbatim.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor

RESERVE = ".reserve"
RESERVE_BYTES = 64 * 1024  # freed before sealing, so that a full disk still takes the seal


class Run:
    """See the module. `folder` is the run's own; everything it writes lies there."""

    def __init__(self, config: DictConfig, overrides: Sequence[str] = (), root: Path = ROOT) -> None:
        determinism.refuse_random_hashes()
        if not isinstance(config.seed, int) or config.seed < 0:
            raise VerbatimError("seed", expected="a whole number", found=config.seed, then="add seed=0")
        trackers.check(config)
        self._config, self._root, self.ranks = config, root, Ranks()
        self._settings = determinism.Determinism(
            level=config.determinism.level,
            threads=config.determinism.threads,
            unlisted=OmegaConf.select(config, "determinism.unlisted", default="refuse"),
            workers=self._machine("workers") or determinism.cores(),
        )
        self._overrides = list(overrides)
        self._step = -1
        self._saved: dict[str, str] = {}  # xxh3_128 of what `save` wrote
        self._kept: dict[str, Any] = {}
        self._trace: trace.Writer | None = None
        self._model: trace.ModelDigest | None = None
        self._checkpoints: checkpoint.Writer | None = None
        self._lock: IO[str] | None = None
        self._epochs = epochs.Epochs()
        self._ending, self._stop = Ending(), False
        self._every: int = config.trace.parameters_every
        self.progress = Progress(silent=not self.ranks.first)

    def _machine(self, name: str, default: Any = None) -> Any:
        return OmegaConf.select(self._config, f"machine.{name}", default=default)

    # ---------------------------------------------------------------------------------------------------- begin, end

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.folder = self._runs = folders.runs_folder(self._config.paths.runs, self._root)
        if self.ranks.first:
            resume.refuse_missing(str(self._machine("resume", resume.AUTO)), self._runs)
            self.folder = folders.claim(self._runs)
            self._lock = resume.hold(self.folder)
        plain = OmegaConf.to_container(self._config, resolve=True)
        self.record = record.Record(
            run=self.folder.name,
            started=_now(),
            command=list(sys.orig_argv),
            config=plain,  # type: ignore[arg-type]
            recipe_config=settings.recipe_config(self._config),
            overrides=self._overrides,
            level=self._settings.level,
            seed=self._config.seed,
        )
        self._ending.watch()
        self.ranks.watch()
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _begin(self) -> None:
        self._reserve()
        self._write(flush=False)  # at once: whatever happens from here on leaves a trace of itself
        determinism.set_variables(self._settings)
        self.record.code = asdict(code.capture(self._root, self.record.run if self.ranks.first else ""))
        self.record.environment = environment.describe(self._root)
        self.record.lock = self.record.environment.pop("lock")
        self._go_on()
        if self.ranks.first:
            jobs.tell(run=self.folder)
            (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self._config, resolve=True))
            self._epochs = epochs.Epochs(self.folder)
        self._warn()
        # What was there, a checkpoint needs: it gives way to what is on the disk alone.
        self._write(flush=bool(self.record.resumed))
        determinism.set_switches(self._settings, self._config.seed, self._note_unlisted)

    def _reserve(self) -> None:
        if self.ranks.first:
            with (self.folder / RESERVE).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

    def _write(self, *, flush: bool = True) -> None:
        """Flushed once the recipe is complete: a run without it can't be gone on with."""
        if self.ranks.first:
            record.write(self.folder, self.record, flush=flush)

    def _go_on(self) -> None:
        """Where a run of this recipe ended early, it is this run: its folder, its name, its code."""
        if not self.ranks.first or self.record.code["reason"]:
            return
        named = resume.wanted(str(self._machine("resume", resume.AUTO)))
        if not (found := resume.find(self._runs, self.record, named, self.progress.warn)):
            return
        resume.leave(self.folder, self._root, self.record.code["ref"], self.progress.warn)
        self.folder, old, self._lock = found
        for left in self.folder.glob(".*.*"):  # files that a killed process was about to write
            left.unlink()
        self.record = resume.continued(old, self.record, _now(), self.folder)
        self._reserve()

    def _warn(self) -> None:
        if self.record.code["reason"]:
            self.progress.warn(
                f"the code is not captured ({self.record.code['reason']}): this run can't be made again from its record"
            )
        if found := self.record.lock["differences"]:
            self.progress.warn(
                f"the environment is not the locked one ({found[0]}, {len(found)} in all): nox -s env makes it"
            )

        if found := determinism.exported(self._settings.level, self._settings.threads):
            self.progress.warn(
                f"{', '.join(found)} may change bits, and no recipe says so: unset what this run does not need"
            )

    def _note_unlisted(self, name: str) -> None:
        if name in self.record.unlisted:  # before the run went on
            return
        self.record.unlisted.append(name)
        self.progress.warn(f"{name} is not covered by level portable: the record claims exact")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.record.state != "started":
            return
        self._ending.ignore()
        try:
            with contextlib.suppress(OSError):  # of a terminal that is gone: it breaks no seal
                self.progress.stop()
            first = "before it went on" if self.record.resumed else "before the first step"
            at = f" at step {self._step}" if self._step >= 0 else f" {first}"
            if isinstance(error, KeyboardInterrupt | Interrupted):
                self._seal("interrupted", (str(error) if isinstance(error, Interrupted) else "Ctrl-C") + at)
            else:
                what = f"{type(error).__name__}: {error}" if error else "the script ended without run.finish()"
                if mend := mendable(error):
                    what = str(mend)
                says, line, more = what.partition("\n")
                self._seal("failed", says + at + line + more)
            with contextlib.suppress(OSError):
                self.progress.say(f"{self.show(self.folder)}: {self.record.state}{at}")
                if self.ranks.first and checkpoint.found(self.folder):
                    self.progress.say(
                        "the same command goes on from its last checkpoint; machine.resume=never starts anew"
                    )
        finally:
            self._ending.restore()
            self.ranks.leave()
        if isinstance(error, OSError) and (full := mendable(error)):
            raise full from error

    def _seal(self, state: str, reason: str = "") -> None:
        self.record.state, self.record.reason = state, reason
        if not self.ranks.first:
            return
        (self.folder / RESERVE).unlink(missing_ok=True)
        if self._trace:
            self._trace.close()
            self.record.trace = {
                "digest": self._trace.digest,
                "rows": self._trace.rows,
                "parameters_every": self._every,
            }
        self.record.finished = _now()
        self.record.wall_s = round(sum(p["wall_s"] for p in self.record.resumed) + time.monotonic() - self._started, 3)
        for path in sorted(self.folder.iterdir()):
            if path.name != record.FILE and path.is_file() and not path.name.startswith("."):
                self.record.files[path.name] = digest.of_file(path)
        try:
            record.write(self.folder, self.record)
        except OSError:
            if not (self.folder / record.FILE).exists():  # a full disk left no room even to begin: it is no run
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        if state == "sealed":
            checkpoint.remove(self.folder)
        (self.folder / resume.LOCK).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ while it trains

    def uses(self, fingerprint: str, files: Mapping[str, str], *, name: str = "", device: str = "cpu") -> None:
        """State the data (and the device), which completes the recipe and the environment. Before the first step. Ranks find each
        other here, and must agree."""
        resume.refuse_other_data(self.record, fingerprint)
        if self._settings.level == "portable":
            portable.refuse_device(device)
        self.record.data = {"name": name, "fingerprint": fingerprint, "files": dict(files)}
        self.record.environment |= environment.describe_torch(device, self._settings.level)
        self.record.environment |= {"ranks": self.ranks.world, "workers": self._settings.workers}
        resume.refuse_other_bits(self.record)
        self.ranks.join(device)
        found = self.record.environment
        bits = {"numerics probe": found["probe"], "GPU": str(found["gpu"])} if self._settings.level != "seeded" else {}
        self.ranks.agree(self.record.recipe_parts | bits)
        self._write()

    def watches(self, parameters: "Mapping[str, Tensor]", buffers: "Mapping[str, Tensor]") -> None:
        """State the tensors whose gradients and values the trace covers, after the last `.to(device)`."""
        self._model = trace.ModelDigest(parameters, buffers)

    def keeps(self, **parts: Any) -> bool:
        """State what a checkpoint holds, besides every generator's state: each has `state_dict` and `load_state_dict`. Where the run
        goes on, they are loaded from its last whole checkpoint, and True is returned."""
        self._kept = parts
        went_on = self._load()
        self._start_trace()
        share = float(self._machine("checkpoints", 0.03)) if resume.wanted("") != resume.NEVER else 0.0
        if self.ranks.first and share:
            self._checkpoints = checkpoint.Writer(self.folder, share)
        self._ending.safe = bool(share)
        return went_on

    def _start_trace(self) -> None:
        """Where there is none yet. One that lies there is of a run that left no whole checkpoint, and starts again."""
        if self.ranks.first and not self._trace:
            (self.folder / trace.FILE).unlink(missing_ok=True)
            self._epochs.go_on([])
            self._trace = trace.Writer(self.folder / trace.FILE, parameters_every=self._every)

    def _load(self) -> bool:
        went_on, recipe = bool(self.record.resumed), self.record.recipe
        chosen = checkpoint.newest_whole(self.folder, recipe, self.progress.warn) if went_on else None
        data = self.ranks.broadcast_bytes(chosen[0] if chosen else b"")
        if not data:
            return False
        state = chosen[1] if chosen else checkpoint.decode(data)
        for name, part in self._kept.items():
            part.load_state_dict(state["kept"][name])
        generators.restore(state["generators"])
        self._saved, self._step = state["saved"], state["step"]
        self.record.unlisted = list(dict.fromkeys([*state["unlisted"], *self.record.unlisted]))
        if self._settings.unlisted == "warn" and self.record.resumed and self.record.resumed[-1]["ranks"] > 1:
            self._note_unlisted("what other ranks than the first used before the run went on")
        if self.ranks.first:
            self._trace = trace.Writer.go_on(self.folder / trace.FILE, **state["trace"])
            checkpoint.restore_saved(self.folder, state["step"], self._saved)
            self._epochs.go_on(state["rows"])
            part = self.record.resumed[-1]
            part["went_on_after_step"] = self._step
            self._write()
            self.progress.say(
                f"{self.show(self.folder)}: goes on after step {self._step} ({part['ended']}); machine.resume=never starts anew"
            )
        return True

    def together(self, *mine: float) -> list[float]:
        """Numbers of each rank, in the order of the ranks. Whether one was asked to end goes along: all end after the same step."""
        if self.ranks.world == 1:
            return list(mine)
        import torch

        said = torch.tensor([*mine, self._ending.asked], dtype=torch.float64)
        rows = self.ranks.gather(said).view(self.ranks.world, -1)
        if asked := int(rows[:, -1].max()):
            self._stop, self._ending.asked = True, self._ending.asked or asked
        return [float(x) for x in rows[:, :-1].reshape(-1)]

    def checkpoint(self, *, epoch: bool = False) -> None:
        """Where training can go on from: after a step, or (`epoch`) between two epochs. Most calls return at once: a checkpoint is due
        when those before took less than `machine.checkpoints` of the time, and within an epoch every ten seconds."""
        stop = self._stop if self.ranks.world > 1 else bool(self._ending.asked)
        if self._checkpoints and (stop or self._checkpoints.due(epoch=epoch)):
            self._checkpoints.write(self._step, self._state(), self._saved, flush=stop)
        if stop:
            raise self._ending.error

    def _state(self) -> dict[str, Any]:
        assert self._trace  # noqa: S101 — the first rank's, since `keeps`
        return {
            "recipe": self.record.recipe, "step": self._step, "rows": self._epochs.rows, "saved": self._saved,
            "unlisted": self.record.unlisted, "trace": {"rows": self._trace.rows, "digest": self._trace.digest},
            "generators": generators.states(), "kept": {name: part.state_dict() for name, part in self._kept.items()},
        }  # fmt: skip

    def trace(self, step: int, batch: Any, loss: "float | Tensor") -> None:
        """Write the row of one step, after the optimizer's update. `batch`: the sample indices, int64 (B,).

        A loss that is not finite ends the run: what follows it is noise.
        """
        if not self._model:
            raise VerbatimError("run.trace", expected="run.watches(parameters, buffers) before it", found="no model")
        if self._ending.asked and not self._ending.safe:  # it was raised, and got lost
            raise self._ending.error
        self._start_trace()
        self._step, loss = step, float(loss if isinstance(loss, float) else loss.detach())
        all_ = self._every > 0 and step % self._every == 0
        state = self._model.state() if all_ else trace.NOT_TAKEN
        if all_:
            determinism.refuse_changes(self._settings)
        if all_ and self.ranks.world > 1:
            self.ranks.agree({f"parameters after step {step}": state.hex()})
        if self._trace:
            self._trace.append(step, loss, trace.of_indices(batch), self._model.gradient(all_=all_), state)
        if not math.isfinite(loss):
            raise VerbatimError(
                f"the loss of step {step}", expected="a finite number", found=loss,
                then="lower optimizer.lr, or set trainer.clip_norm=1.0",
            )  # fmt: skip

    def epoch(self, **values: float) -> None:
        """Add a row to `epochs.csv`, one column per value; the columns are those of the first row."""
        self._epochs.add(values)

    def save(self, name: str, state: "Mapping[str, Tensor]") -> Path:
        """Write tensors as safetensors, in one step: a reader finds the old file or the new one, whole."""
        path = self.folder / name
        if self.ranks.first:
            from safetensors.torch import save

            data = save({key: tensor.contiguous() for key, tensor in state.items()})
            record.write_atomically(path, data)
            self._saved[name] = xxhash.xxh3_128_hexdigest(data)
        return path

    def load(self, name: str) -> "dict[str, Tensor]":
        """What `save` wrote, on every rank."""
        from safetensors.torch import load

        return load(self.ranks.broadcast_bytes((self.folder / name).read_bytes() if self.ranks.first else b""))

    def finish(self, state: "Mapping[str, Tensor]", **metrics: float | str) -> str:
        """Seal the record: `state` is the model that the run gives, `metrics` what it is worth. Returns the outcome's digest."""
        for name, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise VerbatimError(name, expected="a finite number", found=value, then="lower optimizer.lr")
        determinism.refuse_changes(self._settings)
        if self._settings.unlisted == "warn":
            said = self.ranks.gather_text(json.dumps(self.record.unlisted))
            self.record.unlisted = list(dict.fromkeys(name for text in said for name in json.loads(text)))
        if self._settings.level == "portable" and (late := portable.came_by_another_way()):
            raise VerbatimError("determinism=portable", expected="operators that torch or Python loads, which are guarded at once", found=f"{late[0]}, which came by another way", then="load it by torch.ops.load_library, or choose determinism=exact")  # fmt: skip
        self.progress.stop()
        if self.ranks.first:
            curves.write(self.folder / "curves.svg", self._epochs.rows, title=self.folder.name)
        self.record.metrics, self.record.weights = metrics, digest.of_tensors(state)
        self._ending.ignore()  # a signal would come too late to end anything, and leave a record that is not sealed
        try:
            self._seal("sealed")
        except BaseException:
            self.record.state = "started"  # a full disk, say: it is sealed as failed
            raise
        self._ending.restore()
        self.ranks.leave()
        if self.ranks.first and (
            why := trackers.publish(self._config, self._root, self.folder, self.record, self._epochs.rows)
        ):
            self.progress.warn(why)
        return self.record.outcome

    def show(self, path: Path) -> str:
        """A path as people would type it from the project's folder."""
        return folders.show(path, self._root)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
