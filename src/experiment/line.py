"""The smallest script of one's own, a line through points. Copy it and configs/line.yaml, and put your data and your model in.

.venv/bin/python -m experiment.line lr=0.2 seed=1              a run with its record; after a kill the same command goes on
.venv/bin/python -m experiment.line --multirun lr=0.1,0.2      many, as nox -s multirun makes them
"""

import hydra
from omegaconf import DictConfig

import verbatim
from verbatim import app, digest


class Position:
    """Where training stands. A checkpoint takes whatever has these two methods."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


@hydra.main(version_base="1.3", config_path=app.CONFIGS, config_name="line")
@app.task
def main(config: DictConfig) -> float:
    with verbatim.run(config) as run:
        import torch  # here: the level's variables are read when it loads

        x = torch.linspace(-1, 1, 512).unsqueeze(1)
        y = 3 * x - 1 + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        run.uses(digest.of_tensors({"x": x, "y": y}), {}, name="points")

        model, position = torch.nn.Linear(1, 1), Position()
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
        run.keeps(model=model, optimizer=optimizer, position=position)
        while position.step < config.steps:
            order = torch.randperm(384)[: config.batch]  # the last quarter is for validation
            loss = torch.nn.functional.mse_loss(model(x[order]), y[order])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            run.trace(position.step, order, loss)
            position.step += 1
            run.checkpoint()
        with torch.no_grad():
            validation_loss = float(torch.nn.functional.mse_loss(model(x[384:]), y[384:]))

        run.save("model.safetensors", model.state_dict())
        outcome = run.finish(model.state_dict(), validation_loss=validation_loss)
    run.progress.table(
        {"validation loss": f"{validation_loss:.4f}", "outcome": outcome, "record": run.show(run.folder)}
    )
    return validation_loss


if __name__ == "__main__":
    app.run(main)
