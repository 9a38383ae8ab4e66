"""A run: the one seam between a training script and the machinery.

    with verbatim.run(config) as run:              claims a folder, starts the record, sets determinism, loads torch
        run.uses(data.fingerprint, data.files)     completes the recipe, before the first step
        run.trace(step, batch, loss)               one row per step
        run.save("model.safetensors", state)
        run.finish(state, accuracy=0.97)           seals the record

`config` has `seed`, `determinism.level`, `determinism.threads`, `paths.runs` and `trace.parameters_every`; the rest is its own.
Leaving the block without `finish` seals the record as `failed` or `interrupted`, with the reason; Ctrl-C and SIGTERM are seen to.
"""

import errno
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from omegaconf import DictConfig, OmegaConf

from verbatim import code, curves, determinism, digest, environment, record, trace
from verbatim.errors import Interrupted, VerbatimError, mendable
from verbatim.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
RESERVE = ".reserve"
RESERVE_BYTES = 64 * 1024  # freed before sealing, so that a full disk still takes the seal


class Run:
    """See the module. `folder` is the run's own; everything it writes lies there."""

    def __init__(self, config: DictConfig, overrides: Sequence[str] = (), root: Path = ROOT) -> None:
        self._config, self._root = config, root
        self._settings = determinism.Determinism(level=config.determinism.level, threads=config.determinism.threads)
        self._overrides = list(overrides)
        self._step = -1
        self._rows: list[dict[str, Any]] = []
        self._trace: trace.Writer | None = None
        self._model: trace.ModelDigest | None = None
        self._every: int = config.trace.parameters_every
        self.progress = Progress()

    # ---------------------------------------------------------------------------------------------------- begin, end

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.folder = claim(runs_folder(self._config.paths.runs, self._root))
        plain = OmegaConf.to_container(self._config, resolve=True)
        self.record = record.Record(
            run=self.folder.name,
            started=_now(),
            command=list(sys.orig_argv),
            config=plain,  # type: ignore[arg-type]
            recipe_config=recipe_config(self._config),
            overrides=self._overrides,
            level=self._settings.level,
            seed=self._config.seed,
        )
        self._signal = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _begin(self) -> None:
        with (self.folder / RESERVE).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        record.write(self.folder, self.record)  # at once: whatever happens from here on leaves a trace of itself
        (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self._config, resolve=True))
        determinism.set_variables(self._settings)
        self.record.code = asdict(code.capture(self._root, self.folder.name))
        self.record.environment = environment.describe(self._root)
        self.record.lock = self.record.environment.pop("lock")
        self._warn()
        record.write(self.folder, self.record)
        self._trace = trace.Writer(self.folder / "trace.bin", parameters_every=self._every)
        determinism.set_switches(self._settings, self._config.seed)

    def _warn(self) -> None:
        if self.record.code["reason"]:
            self.progress.warn(
                f"the code is not captured ({self.record.code['reason']}): this run can't be made again from its record"
            )
        if found := self.record.lock["differences"]:
            self.progress.warn(
                f"the environment is not the locked one ({found[0]}, {len(found)} in all): nox -s env makes it"
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.record.state != "started":
            return
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not break the seal
            signal.signal(number, signal.SIG_IGN)
        try:
            self.progress.stop()
            at = f" at step {self._step}" if self._step >= 0 else " before the first step"
            if isinstance(error, KeyboardInterrupt | Interrupted):
                self._seal("interrupted", ("SIGTERM" if isinstance(error, Interrupted) else "Ctrl-C") + at)
            else:
                what = f"{type(error).__name__}: {error}" if error else "the script ended without run.finish()"
                if mend := mendable(error):
                    what = str(mend)
                self._seal("failed", what + at)
            self.progress.say(f"{self.show(self.folder)}: {self.record.state}{at}")
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, self._signal)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise VerbatimError(
                error.filename or self.folder, expected="room on the disk", found="none left; what was written before is whole",
                then=f"free some space below {self.folder.parent}",
            ) from error  # fmt: skip

    def _seal(self, state: str, reason: str = "") -> None:
        (self.folder / RESERVE).unlink(missing_ok=True)
        if self._trace:
            self._trace.close()
            self.record.trace = {
                "digest": self._trace.digest,
                "rows": self._trace.rows,
                "parameters_every": self._every,
            }
        self.record.state, self.record.reason = state, reason
        self.record.finished, self.record.wall_s = _now(), round(time.monotonic() - self._started, 3)
        for path in sorted(self.folder.iterdir()):
            if path.name != record.FILE and path.is_file() and not path.name.startswith("."):
                self.record.files[path.name] = digest.of_file(path)
        record.write(self.folder, self.record)

    # ------------------------------------------------------------------------------------------------ while it trains

    def uses(self, fingerprint: str, files: Mapping[str, str], *, name: str = "", device: str = "cpu") -> None:
        """State the data (and the device), which completes the recipe and the environment. Before the first step."""
        self.record.data = {"name": name, "fingerprint": fingerprint, "files": dict(files)}
        self.record.environment |= environment.describe_torch(device)
        record.write(self.folder, self.record)

    def watches(self, parameters: "Mapping[str, Tensor]", buffers: "Mapping[str, Tensor]") -> None:
        """State the tensors whose gradients and values the trace covers, after the last `.to(device)`."""
        self._model = trace.ModelDigest(parameters, buffers)

    def trace(self, step: int, batch: Any, loss: float) -> None:
        """Write the row of one step, after the optimizer's update. `batch`: the sample indices, int64 (B,).

        A loss that is not finite ends the run: what follows it is noise.
        """
        if not self._trace or not self._model:
            raise VerbatimError("run.trace", expected="run.watches(parameters, buffers) before it", found="no model")
        self._step = step
        all_ = self._every > 0 and step % self._every == 0
        state = self._model.state() if all_ else trace.NOT_TAKEN
        self._trace.append(step, loss, trace.of_indices(batch), self._model.gradient(all_=all_), state)
        if not math.isfinite(loss):
            raise VerbatimError(
                f"the loss of step {step}", expected="a finite number", found=loss,
                then="lower optimizer.lr, or set trainer.clip_norm=1.0",
            )  # fmt: skip

    def epoch(self, **values: float) -> None:
        """Add a row to `epochs.csv`, one column per value; the columns are those of the first row."""
        path = self.folder / "epochs.csv"
        head = "" if self._rows else ",".join(values) + "\n"
        with path.open("a") as file:
            file.write(head + ",".join(repr(v) for v in values.values()) + "\n")
        self._rows.append(values)

    def save(self, name: str, state: "Mapping[str, Tensor]") -> Path:
        """Write tensors as safetensors, in one step: a reader finds the old file or the new one, whole."""
        from safetensors.torch import save

        path = self.folder / name
        record.write_atomically(path, save({key: tensor.contiguous() for key, tensor in state.items()}))
        return path

    def finish(self, state: "Mapping[str, Tensor]", **metrics: float | str) -> str:
        """Seal the record: `state` is the model that the run gives, `metrics` what it is worth. Returns the outcome's digest."""
        for name, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise VerbatimError(name, expected="a finite number", found=value, then="lower optimizer.lr")
        self.progress.stop()
        curves.write(self.folder / "curves.svg", self._rows, title=self.folder.name)
        self.record.metrics, self.record.weights = metrics, digest.of_tensors(state)
        self._seal("sealed")
        signal.signal(signal.SIGTERM, self._signal)
        return self.record.outcome

    def show(self, path: Path) -> str:
        """A path as people would type it from the project's folder."""
        return os.path.relpath(path, self._root) if path.is_relative_to(self._root) else str(path)


def claim(runs: Path) -> Path:
    """Make a new run folder, `<UTC time>-<8 hex digits>`. `mkdir` is atomic: of any number at once, no two get the same."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            folder = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise VerbatimError(
            f"paths.runs={runs}",
            expected="a folder that can be written to",
            found=error.strerror,
            then="add paths.runs=…",
        ) from None


def runs_folder(path: str, root: Path = ROOT) -> Path:
    """Relative to the project, whatever the current directory is."""
    return root / Path(path).expanduser()


def recipe_config(config: DictConfig) -> dict[str, Any]:
    """The configuration without `paths`: a value that refers to one keeps its reference, so that it is the same everywhere."""
    masked: Any = OmegaConf.to_container(config, resolve=False)
    masked["paths"] = {key: f"<paths.{key}>" for key in config.paths}
    plain: Any = OmegaConf.to_container(OmegaConf.create(masked), resolve=True)
    del plain["paths"]
    return dict(plain)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
