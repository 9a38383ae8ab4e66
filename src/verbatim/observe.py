"""Runs a training script with every operator of some steps digested: `python -P observe.py LOG FIRST LAST KEEP -m <module> …`.

Started by `verbatim.zoom` in a restored tree, whose own (perhaps older) machinery it watches; so it imports nothing of this package
but what that tree has, and is a program of its own. It changes no value: what it reads, it reads after the operator has run.

LOG gets one JSON object per operator: name, phase, module, the line of code, and digests of inputs and outputs (sha256 over dtype,
shape and bytes). KEEP (or -1) is the number of an operator whose tensors are written beside LOG, as safetensors.
"""

import contextlib
import hashlib
import json
import os
import re
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EMPTY = re.compile(r"\baten\.(?:new_)?empty(?:_\w+)?\.")
OTHERS = re.compile(r"/site-packages/|/verbatim/(?:\w+/)*\w+\.py$")  # not the experiment's own code


class Observer:
    """Switched on between two trace rows."""

    def __init__(self, log: Path, first: int, last: int, keep: int) -> None:
        self.log, self.first, self.last, self.keep = log, first, last, keep
        self.count = 0
        self.modules: list[str] = []
        self.names: dict[int, str] = {}  # by the parameter's id
        self.blank: dict[
            int, Any
        ] = {}  # by address, the storage that nothing was written to there: its bytes mean nothing
        self.updating = False
        self._mode: Any = None

    def start(self) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
        from torch.utils._python_dispatch import TorchDispatchMode

        observer = self

        class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return observer.see(func, args, kwargs or {})

        def leave(*_: Any) -> None:
            self.modules.pop()

        self._file = self.log.open("w", encoding="utf-8")
        torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, _: self.modules.append(self.name(module))
        )
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True)
        register_optimizer_step_pre_hook(lambda *_: setattr(self, "updating", True))
        register_optimizer_step_post_hook(lambda *_: setattr(self, "updating", False))
        self._mode = Mode()  # type: ignore[no-untyped-call]
        self._mode.__enter__()

    def stop(self) -> None:
        if self._mode:
            self._mode.__exit__(None, None, None)
            self._mode = None
            self._file.close()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Without the mode, not only unheard: while there is one, torch's gradient of `prod` takes another way, with other bits."""
        if self._mode:
            self._mode.__exit__(None, None, None)
        yield
        if self._mode:
            self._mode.__enter__()

    def name(self, module: Any) -> str:
        """By its parameters, whose names the run states; a module without any is known by its class."""
        for own, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in self.names:
                return self.names[id(parameter)].removesuffix(f".{own}")
        return type(module).__name__

    def see(self, func: Any, args: Any, kwargs: Any) -> Any:
        import torch
        from torch.multiprocessing.reductions import StorageWeakRef

        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        given = tensors(named)
        inputs = [self.digest(t) for t in given]
        kept = [t.detach().clone() for t in given] if self.count == self.keep else []
        of_blank = {t.untyped_storage()._cdata for t in given if self.is_blank(t)}
        result = func(*args, **kwargs)
        written = tensors([named.get(a.name) for a in func._schema.arguments if a.alias_info and a.alias_info.is_write])
        outputs = tensors([result]) or written
        if func.namespace == "c10d":  # whose schemas don't say what they write to
            wait(result)
            written = given
        full = {t.data_ptr() for t in written}
        for address in full & self.blank.keys():
            del self.blank[address]
        for tensor in outputs:
            storage = tensor.untyped_storage()
            made_blank = EMPTY.search(str(func)) or storage._cdata in of_blank  # a view of what is blank is blank
            if made_blank and tensor.numel() and tensor.data_ptr() not in full:
                self.blank[tensor.data_ptr()] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        backward = torch._C._current_graph_task_id() != -1
        place, source = ("", "") if backward else line()
        entry = {
            "operator": str(func), "phase": "update" if self.updating else "backward" if backward else "forward",
            "module": "" if backward or self.updating else self.modules[-1] if self.modules else "",
            "line": place, "source": source, "inputs": inputs, "outputs": [self.digest(t) for t in outputs],
            "arguments": {name: repr(value) for name, value in named.items() if isinstance(value, int | float | str | list | tuple) and not tensors([value])},
            "parameters": [self.names[id(t)] for t in given if id(t) in self.names],
        }  # fmt: skip
        self._file.write(json.dumps(entry) + "\n")
        if self.count == self.keep:
            from safetensors.torch import save_file

            both = [
                *((f"input {i}", t) for i, t in enumerate(kept)),
                *((f"output {i}", t) for i, t in enumerate(outputs)),
            ]
            save_file({k: t.detach().cpu().contiguous().clone() for k, t in both}, self.log.with_suffix(".safetensors"))
        self.count += 1
        return result

    def is_blank(self, tensor: Any) -> bool:
        """Freed memory is given out again, but not the address of a storage that a weak reference is held of."""
        blank = self.blank.get(tensor.data_ptr())
        return blank is not None and blank.cdata == tensor.untyped_storage()._cdata

    def digest(self, tensor: Any) -> str:
        return "unwritten" if self.is_blank(tensor) else digest(tensor)


def wait(result: Any) -> None:
    """A collective's tensors hold its result only once its work has ended. Of `send` and `recv_` no output is read, and waiting for
    one before the other was asked for would never end."""
    import torch

    if isinstance(result, tuple) and result and isinstance(result[-1], torch.ScriptObject):
        torch.distributed.Work.unbox(result[-1]).wait()


def tensors(value: Any) -> list[Any]:
    """Every tensor in nested lists, tuples and dicts, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in tensors(item)] if isinstance(value, list | tuple) else []


def digest(tensor: Any) -> str:
    import torch

    sha = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        sha.update(flat.view(torch.uint8).numpy())
    return sha.hexdigest()


def line() -> tuple[str, str]:
    """The innermost line of the tree's own code, relative to it, and its text."""
    here = os.getcwd() + os.sep
    for frame in reversed(traceback.extract_stack(limit=60)):
        if frame.filename.startswith(here) and not OTHERS.search(frame.filename):
            return f"{frame.filename.removeprefix(here)}:{frame.lineno}", frame.line or ""
    return "", ""


def watch(observer: Observer) -> None:
    """Put the observer between the rows of the trace: it starts before the first step's first operator, at step 0 before the model."""
    from verbatim.recorder import Run

    ranks = "RANK" in os.environ  # several make the run; a tree that has none sets no such variable
    enter, uses, watches, trace = Run.__enter__, Run.uses, Run.watches, Run.trace

    def entering(self: Any) -> Any:
        entered = enter(self)
        if observer.first == 0:
            observer.start()
        return entered

    def using(self: Any, *given: Any, **named: Any) -> None:
        with observer.paused():  # the numerics probe is not training
            uses(self, *given, **named)

    def watching(self: Any, parameters: Any, buffers: Any) -> None:
        observer.names.update({id(t): name for name, t in [*parameters.items(), *buffers.items()]})
        watches(self, parameters, buffers)

    def tracing(self: Any, step: int, *rest: Any, **named: Any) -> None:
        if step == observer.last:
            observer.stop()
        trace(self, step, *rest, **named)
        if step == observer.last:
            if ranks:
                self.ranks.gather_text("")  # all have seen it
                if self.ranks.rank:  # gone before the first one closes its connections, of which a rank can die
                    os._exit(130)
            raise KeyboardInterrupt  # which seals the record of what was run again
        if step == observer.first - 1:
            observer.start()

    Run.__enter__, Run.uses, Run.watches, Run.trace = entering, using, watching, tracing  # type: ignore[method-assign]


def main() -> None:
    log, first, last, keep, *words = sys.argv[1:]
    rank = os.environ.get("RANK", "0")
    place = Path(log) if rank == "0" else Path(f"{log}.rank{rank}")  # each rank its own; the first one's is read
    sys.path.insert(0, os.getcwd())
    watch(Observer(place, int(first), int(last), int(keep)))
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
