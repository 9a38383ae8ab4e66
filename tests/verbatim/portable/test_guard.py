import json

import pytest
import torch

from conftest import python
from verbatim import record
from verbatim.portable.operators import WRITE

START = """
from verbatim import determinism
settings = determinism.Determinism(level="portable", threads=1, unlisted="{unlisted}")
determinism.set_variables(settings)
seen = []
determinism.set_switches(settings, 0, seen.append)
import torch
"""
INSTEAD = "choose determinism=exact, or add determinism.unlisted=warn: the record then claims exact"


def own(tmp_path, code, unlisted="refuse"):
    """A file of the user's, run where it lies; its lines are numbered from that after `START`."""
    (tmp_path / "own.py").write_text(START.format(unlisted=unlisted) + code)
    return python("own.py", cwd=tmp_path, PYTHONWARNINGS="ignore")


REFUSED = {  # code → the operator, and why
    "torch.atan(x)": "aten::atan (MKL's starts from an approximate instruction, whose result AMD and Intel define differently)",
    "x.sinh_()": "aten::sinh_ (it calls a function of the C library that glibc has changed)",
    "torch.sinh(x, out=torch.empty(3))": "aten::sinh.out (it calls",
    "torch.fft.fft(x)": "aten::_fft_r2c",
    "torch.linalg.qr(torch.eye(3))": "aten::linalg_qr",
    "torch.addbmm(torch.ones(3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5))": "aten::addbmm",
    "torch.nn.LSTM(3, 4)(x[None])": "aten::mkldnn_rnn_layer (oneDNN's recurrent layers differ between CPUs: call yours under",
    "torch.fbgemm_pack_gemm_matrix_fp16(torch.ones(4, 4))": "aten::fbgemm_pack_gemm_matrix_fp16",
    "list(torch.utils.data.DataLoader(Rows(), num_workers=1, multiprocessing_context='spawn'))": "multiprocessing_context=spawn",
    "torch._dynamo.optimize('inductor')(lambda x: x + 1)(x)": "torch.compile, whose code is made for this CPU",
    "torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval().requires_grad_(False)(torch.ones(1, 3, 8))": "",
    "torch.nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)(*[torch.ones(1, 3, 8)] * 3)": "",
    "torch.distributions.Normal(0.0, 1.0).log_prob(x)": "",
    "torch.eye(3).to_sparse()": "aten::_to_sparse",
    "torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)": "aten::quantize_per_tensor",
    "torch.nested.nested_tensor([x])": "aten::_nested_tensor_from_tensor_list",
    "functional.embedding(torch.tensor([1]), w, sparse=True).sum().backward()": "aten::_sparse_coo_tensor_with_dims_and_tensors",
    "list(torch.utils.data.DataLoader(x, 2, collate_fn=lambda rows: torch.stack(rows).tan()))": "aten::tan (MKL's",
    "list(torch.utils.data.DataLoader(Rows(), num_workers=1))": "aten::tan (MKL's",
    "torch.compile(torch.sin)": "torch.compile, whose code is made for this CPU",
    "torch.compile(lambda x: x)": "torch.compile, whose code is made for this CPU",
    "torch.nn.Linear(2, 2).compile()": "torch.compile, whose code is made for this CPU",
    "x @ (0.5 * x)": "",
}  # fmt: skip
BEFORE = """
from torch.nn import functional
class Rows(torch.utils.data.Dataset):
    def __len__(self): return 2
    def __getitem__(self, i): return torch.ones(2).tan()
x, w, said = torch.ones(3), torch.ones(5, 2, requires_grad=True), []
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each line of code is answered; each has a line of its own in the file, by itself."""
    code = BEFORE + "".join(
        f"try:\n    {text}\n    said.append('')\nexcept Exception as error: said.append(str(error))\n"
        for text in REFUSED
    )
    done = own(tmp_path_factory.mktemp("own"), code + "import json; print(json.dumps(said))")
    assert done.returncode == 0, done.stderr
    return dict(zip(REFUSED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("code", REFUSED)
def test_an_unlisted_operator_is_refused_by_name_and_place(answers, code):
    line = (START + BEFORE).count("\n") + 2 + 4 * list(REFUSED).index(code)
    if "Rows()" in code:
        line = (START + BEFORE[: BEFORE.index("def __getitem__")]).count("\n") + 1
    found = REFUSED[code]

    if not found:
        assert answers[code] == ""
    elif found.startswith("multiprocessing_context"):
        assert (
            f"expected data loader's workers that are forked, found {found}: they would compute by other kernels"
            in answers[code]
        )
    elif found.startswith("torch.compile"):
        assert f"determinism=portable: expected operators that torch runs one by one, found {found}" in answers[code]
        assert "next: choose determinism=exact" in answers[code]
    else:
        says = (
            f"determinism=portable, own.py:{line}: expected an operator that docs/determinism.md lists, found {found}"
        )
        assert says in answers[code]
        assert INSTEAD in answers[code]


def test_listed_operators_pass(tmp_path):
    code = """
layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 3))
attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
optimizer = torch.optim.AdamW([*layers.parameters(), *attention.parameters()])
for step in range(2):
    x = torch.randn(2, 5, 8)
    loss = torch.nn.functional.cross_entropy(layers(x + attention(x, x, x)[0])[:, 0], torch.tensor([0, 2]))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
print(seen, loss.isfinite().item())
"""
    done = own(tmp_path, code)

    assert (done.stdout, done.stderr) == ("[] True\n", "")


OPERATORS = {
    "atan": "torch.atan(x)", "into": "torch.atan(x, out=torch.empty(5, dtype=torch.float64))", "in place": "x.clone().atan_()",
    "addbmm": "torch.addbmm(torch.ones(3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5))", "qr": "torch.linalg.qr(torch.eye(3) * 2)[1].abs()",
    "with a number": "torch.special.xlog1py(x, 0.5)", "numbers": "torch.heaviside(x, torch.tensor(0.5, dtype=torch.float64))",
    "fft": "torch.fft.rfft(x).real.contiguous()", "sparse": "(torch.eye(5).double().to_sparse() @ x[:, None]).flatten()",
    "multinomial": "(torch.multinomial(torch.ones(5), 5).sort()[0])", "cdist": "torch.cdist(x[:, None], x[:, None])",
    "list": "torch.stack(torch._foreach_tan([x, x]))",
}  # fmt: skip


def test_warned_of_they_give_what_they_give_in_torch(tmp_path):
    code = "x = torch.linspace(-2, 2, 5, dtype=torch.float64)\n"
    code += "".join(f"print({text}.tolist())\n" for text in OPERATORS.values())
    done = own(tmp_path, code + "print(len(seen), len(set(seen)), 'aten::atan' in seen, 'aten::atan_' in seen)", "warn")
    assert done.returncode == 0, done.stderr
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)

    *lines, last = done.stdout.splitlines()
    for (name, text), line in zip(OPERATORS.items(), lines, strict=True):
        expected = eval(text, {"torch": torch, "x": x}).double()  # noqa: S307
        torch.testing.assert_close(torch.tensor(eval(line), dtype=torch.float64), expected, msg=name)  # noqa: S307
    noted, different, *both = last.split()
    assert noted == different
    assert both == ["True", "True"]


# ----------------------------------------------------------------------------------------------------------- in a run

RUN = """
import sys
from omegaconf import OmegaConf
import verbatim
from verbatim import app

@app.task
def main(config):
    with verbatim.run(config) as run:
        import torch
        model = torch.nn.Linear(2, 1)
        run.uses("sha256:" + "0" * 64, {}, device=config.device)
        run.watches(dict(model.named_parameters()), {})
        for step in range(3):
            model(torch.ones(4, 2)).sum().backward()
            BODY
            run.trace(step, torch.arange(4), 0.5)
        run.finish(model.state_dict(), score=1.0)

main(OmegaConf.create({"seed": 0, "determinism": {"level": "portable", "threads": 1, "unlisted": sys.argv[2]}, "device": sys.argv[3],
                       "trace": {"parameters_every": 2}, "paths": {"runs": sys.argv[1]}}))
"""


def run(runs, body, unlisted="refuse", device="cpu", **variables):
    """A user's own training script, as a file; its record."""
    runs.parent.joinpath("own.py").write_text(RUN.replace("BODY", body))
    done = python("own.py", str(runs), unlisted, device, cwd=runs.parent, **variables)
    folders = list(runs.iterdir()) if runs.is_dir() else []
    return done, record.read(folders[0]) if folders else None


AT = RUN[: RUN.index("BODY")].count("\n") + 1


def test_a_run_of_listed_operators_claims_portable(runs):
    done, made = run(runs, "model.weight.grad.clamp_(-1, 1)")

    assert (done.returncode, done.stderr) == (0, "")
    assert (made.state, made.level, made.claim, made.unlisted) == ("sealed", "portable", "portable", [])
    variables = made.environment["variables"]
    assert variables["MKL_CBWR"] == "COMPATIBLE"
    assert variables["OPENBLAS_CORETYPE"] == "Haswell"


def test_a_run_stops_at_an_unlisted_operator(runs):
    done, made = run(runs, "if step == 1: torch.tan(model.weight.grad)")

    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: determinism=portable, own.py:{AT}: expected an operator that docs/determinism.md lists, found aten::tan ("
    )
    assert "Traceback" not in done.stderr
    assert (made.state, made.outcome) == ("failed", "")
    assert "aten::tan" in made.reason
    assert made.reason.partition("\n")[0].endswith("at step 0")


def test_a_run_that_is_told_to_warn_claims_exact(runs):
    done, made = run(runs, "torch.tan(model.weight.grad).sinh_()", "warn")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("aten::tan is not covered by level portable: the record claims exact") == 1
    assert done.stdout.count("aten::sinh_ is not covered") == 1
    assert (made.state, made.level, made.claim) == ("sealed", "portable", "exact")
    assert made.unlisted == ["aten::tan", "aten::sinh_"]


LATER = {
    "an extension": "lib = torch.library.Library('later', 'DEF'); lib.define('f(Tensor x) -> Tensor'); lib.impl('f', torch.clone, 'CPU')",
    "a kernel in place of the answer": (
        "lib = torch.library.Library('later', 'DEF'); lib.define('f(Tensor x) -> Tensor'); lib.impl('f', torch.abs, 'CPU'); "
        "lib.impl('f', torch.clone, 'CPU', allow_override=True)"
    ),
    **{
        f"an extension under {key}": f"lib = torch.library.Library('later', 'DEF'); lib.define('f(Tensor x) -> Tensor'); lib.impl('f', lambda x: x + 0, '{key}')"
        for key in ("CompositeImplicitAutograd", "Autograd", "AutogradCPU", "BackendSelect")
    },
    "a custom operator with a kernel of its own": (
        "lib = torch.library.custom_op('later::f', torch.clone, mutates_args=(), schema='(Tensor x) -> Tensor'); lib.register_kernel('cpu')(torch.clone)"
    ),
    "a custom operator": "torch.library.custom_op('later::f', torch.clone, mutates_args=(), schema='(Tensor x) -> Tensor')",
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("how", LATER)
def test_of_operators_that_come_later_only_use_is_refused(runs, how, used):
    """Torch's own modules bring some as well, as torch.func does."""
    bring = f"keep = {LATER[how]}" if how == "a custom operator" else f"{LATER[how]}; keep = lib"
    use = "; torch.ops.later.f(torch.ones(2))" if used else "; torch.func.grad(torch.sum)(torch.ones(2))"
    done, made = run(runs, f"if step == 0: {bring}{use}")

    assert done.returncode == (2 if used else 0), done.stderr
    assert made.state == ("failed" if used else "sealed")
    assert ("found later::f" in done.stderr) == used


def test_an_operator_that_comes_later_is_noted_where_that_was_asked_for(runs):
    bring = f"{LATER['an extension']}; keep = lib"
    done, made = run(runs, f"if step == 0: {bring}; torch.ops.later.f(torch.ones(2))", "warn")

    assert (done.returncode, made.unlisted, made.claim) == (0, ["later::f"], "exact"), done.stderr


REPLACED = "lib = torch.library.Library('aten', 'IMPL'); lib.impl('tanh', lambda x: x, '{}', allow_override=True)"
UNSEEN = "lib = torch._C._dispatch_library('{}', '{}', '{}', '{}', 1); "  # as from a library that ctypes loads: past the one method
ENDS = {
    REPLACED.format("CPU"): "aten::tanh, whose kernel was replaced",
    REPLACED.format("AutogradCPU"): "aten::tanh, whose kernel was replaced",
    UNSEEN.format("IMPL", "aten", "CPU", "/there/other.cpp")
    + "lib.impl('tanh', 'CPU', lambda x: x, False)": "aten::tanh of /there/other.cpp:1, which came by another way",
    UNSEEN.format("DEF", "later", "", "x")
    + "lib.define('f(Tensor x) -> Tensor'); lib.impl('f', 'CPU', torch.clone, False)": "later::f, which came by another way",
}


@pytest.mark.parametrize("bring", ENDS)
def test_a_kernel_in_place_of_a_listed_one_or_by_a_way_that_is_not_watched_ends_the_run(runs, bring):
    done, made = run(runs, f"if step == 0: {bring}; keep = lib")

    assert done.returncode == 2
    assert f"found {ENDS[bring]}" in done.stderr
    assert made.state == "failed"


def test_what_a_loaders_worker_uses_is_refused_also_where_a_warning_was_asked_for(tmp_path):
    done = own(tmp_path, BEFORE + "list(torch.utils.data.DataLoader(Rows(), num_workers=1))", "warn")

    assert done.returncode == 1
    assert "found aten::tan (MKL's" in done.stderr
    assert "or choose determinism=exact, or use it in the process that trains" in done.stderr


def test_a_second_run_of_one_process_has_its_own_way_with_what_is_unlisted(tmp_path):
    code = """
warn = determinism.Determinism(level="portable", threads=1, unlisted="warn")
determinism.set_switches(warn, 0, seen.append)
print(float(torch.tan(torch.tensor(1.0))), seen)
determinism.set_switches(settings, 0, seen.append)
torch.tan(torch.ones(1))
"""
    done = own(tmp_path, code)

    assert done.stdout == "1.5574077367782593 ['aten::tan']\n", done.stderr
    assert "found aten::tan (MKL's" in done.stderr


VALUES = """
import math, torch
from torch.nn import functional
torch.manual_seed(0)
x, y = torch.rand(2, 12, 3, 4) * 0.8 + 0.1, torch.rand(2, 12, 3, 4) * 0.8 + 0.1
w, r, i, tolerance, p = torch.tensor([0.25]), 2, torch.tensor([5, 0, 7]), 1e-8, x[0, :, :, 0]
rows, columns = torch.tensor([1, 0, 1, 2, 1]), torch.tensor([1, 0, 1, 2, 3, 2])
names = vars(functional) | vars(torch) | dict(math=math, torch=torch, functional=functional, x=x, y=y, w=w, r=r, i=i, tolerance=tolerance, p=p)
names |= dict(rows=rows, columns=columns)
"""


def test_what_a_refusal_says_to_write_instead_is_portable_and_the_same(portably):
    names = {}
    exec(VALUES, names)  # noqa: S102 — our own words
    instead = f"{VALUES}\nimport json\nprint(json.dumps([eval(word, globals() | names).tolist() for _, word in {list(WRITE.values())!r}]))"
    done = portably(instead)
    assert done.returncode == 0, done.stderr

    for (plain, _), found in zip(WRITE.values(), json.loads(done.stdout), strict=True):
        if plain not in ("x.exponential_()", "multinomial(p, 1)"):  # these are drawn
            expected = torch.as_tensor(eval(plain, names["names"]))  # noqa: S307
            torch.testing.assert_close(torch.tensor(found), expected, msg=plain)


def test_a_refusal_says_what_to_write_instead(tmp_path):
    code = "".join(
        f"try: eval({plain!r}, dict(names))\nexcept Exception as error: said.append(str(error))\n" for plain, _ in WRITE.values()
    )  # fmt: skip
    done = own(tmp_path, f"{VALUES}\nsaid = []\n{code}\nimport json; print(json.dumps(said))")
    assert done.returncode == 0, done.stderr

    for (_, instead), answer in zip(WRITE.values(), json.loads(done.stdout), strict=True):
        assert f"next: write {instead}; or choose determinism=exact" in answer


def test_another_device_is_refused_before_anything_of_it_is_asked(runs):
    done, made = run(runs, "pass", device="cuda:0")

    assert done.returncode == 2
    assert "expected device cpu, found cuda:0: no two kinds of GPU are known to compute the same bits" in done.stderr
    assert made.state == "failed"


def test_a_variable_that_says_otherwise_ends_the_run_by_its_name(runs):
    done, made = run(runs, "pass", MKL_CBWR="AVX2")

    assert done.returncode == 2
    assert "found MKL_CBWR=AVX2\n  next: unset MKL_CBWR" in done.stderr
    assert made.state == "failed"
