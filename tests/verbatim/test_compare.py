"""Differences are planted one at a time; each must be named, exactly and alone, and none where there is none."""

import json
import math
import shutil
import struct
import time
from hashlib import sha256

import pytest

from conftest import ROOT, python
from planting import plain_rows, write_trace
from verbatim import causes, compare, record, trace
from verbatim.comparison import compare as compare_runs
from verbatim.errors import VerbatimError


def named(found):
    return [(d.part, d.where) for d in found.differences]


def leaves(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def changed(value):
    """Another value of the same kind, as near as can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    if isinstance(value, str):
        return value + "x"
    return [1] if value is None else [*value, 1]


def put(tree, path, value):
    *above, last = path.split(".")
    for name in above:
        tree = tree[name]
    tree[last] = value


# ---------------------------------------------------------------------------------------------- planted in the record


def test_every_setting_that_is_changed_is_named_alone(base, planted):
    config = record.read(base).recipe_config
    settings = dict(leaves(config))
    assert len(settings) > 25

    for number, (path, value) in enumerate(settings.items()):
        other = planted(f"b{number}", lambda run, _, p=path, v=value: put(run.recipe_config, p, changed(v)))

        found = compare_runs(base, other, ROOT)

        assert named(found) == [("config", path)]
        assert found.verdict == (
            f"first cause: config, {path}: {causes.show(value)} → {causes.show(changed(value))}; "
            "without effect: the outcome is the same, bit for bit"
        )


def test_every_distribution_of_another_version_is_named_alone(base, planted):
    distributions = record.read(base).environment["distributions"]
    assert len(distributions) > 40

    for number, name in enumerate(distributions):
        other = planted(f"b{number}", lambda run, _, n=name: put(run.environment["distributions"], n, "0.0.1"))

        assert named(compare_runs(base, other, ROOT)) == [("lock", name)]


ENVIRONMENTS = {
    "image": ("image", {"digest": "sha256:" + "1" * 64}, [("image", "image")]),
    "image, of two": ("image.digest", "sha256:" + "2" * 64, [("image", "image.digest")]),
    "Python": ("python.version", "3.11.2", [("python", "version")]),
    "Python's build": ("python.build", "main Jan 1", [("python", "build")]),
    "device": ("device", "cuda", [("hardware", "device")]),
    "GPU": ("gpu", {"name": "H100"}, [("hardware", "gpu")]),
    "vector width": ("cpu_capability", "AVX2x", [("hardware", "cpu_capability")]),
    "threads": ("threads", 3, [("hardware", "threads")]),
    "a variable": ("variables.OMP_NUM_THREADS", "7", [("hardware", "variables.OMP_NUM_THREADS")]),
    "a variable more": ("variables.MKL_CBWR", "AVX2", [("hardware", "variables.MKL_CBWR")]),
    "CPU": ("cpu.model", "Z80", [("hardware", "cpu.model")]),
    "kernel": ("os.kernel", "1.0", [("hardware", "os.kernel")]),
    "libc": ("os.libc", "musl", [("hardware", "os.libc")]),
    "probe": ("probe", "sha256:" + "3" * 64, [("probe", "numerics probe")]),
}


@pytest.mark.parametrize("cause", ENVIRONMENTS)
def test_what_is_other_around_a_run_is_named_alone(planted, cause):
    path, value, expected = ENVIRONMENTS[cause]
    image = {"digest": "sha256:" + "1" * 64} if cause == "image, of two" else None
    a = planted("a", lambda run, _: run.environment.update(image=image))
    b = planted("b", lambda run, _: (run.environment.update(image=image), put(run.environment, path, value)))

    found = compare_runs(a, b, ROOT)

    assert named(found) == expected


def test_only_the_cpu_features_that_one_side_lacks_are_told(planted):
    a = planted("a", lambda run, _: put(run.environment, "cpu.flags", "fpu sse avx2"))
    b = planted("b", lambda run, _: put(run.environment, "cpu.flags", "fpu avx512f sse"))

    found = compare_runs(a, b, ROOT)

    assert [str(d) for d in found.differences] == ["cpu.flags: −avx2 +avx512f"]


RECIPES = {
    "lock": (lambda run: run.lock.update(digest="sha256:" + "4" * 64), [("lock", "requirements/cpu.txt")]),
    "code": (lambda run: run.code.update(tree="5" * 40), [("code", "git tree")]),
    "code not captured": (lambda run: run.code.update(tree="", reason="git is not installed"), [("code", "git tree")]),
    "level": (lambda run: setattr(run, "level", "seeded"), [("config", "determinism.level")]),
    "data file": (
        lambda run: run.data.update(files={"digits.csv.gz": "sha256:" + "6" * 64}, fingerprint="sha256:" + "7" * 64),
        [("data", "digits.csv.gz"), ("data", "fingerprint")],
    ),
    "split": (lambda run: run.data.update(fingerprint="sha256:" + "8" * 64), [("data", "fingerprint")]),
    "a file more": (lambda run: run.data["files"].update(more="sha256:" + "9" * 64), [("data", "more")]),
    "metric": (lambda run: run.metrics.update(test_loss=0.0), [("metric", "test_loss")]),
    "weights": (lambda run: setattr(run, "weights", "sha256:" + "a" * 64), [("tensor", "weights")]),
    "state": (lambda run: run.__dict__.update(state="failed", reason="boom"), [("end", "state")]),
}  # fmt: skip


@pytest.mark.parametrize("cause", RECIPES)
def test_what_is_other_in_recipe_and_outcome_is_named_alone(base, planted, cause):
    change, expected = RECIPES[cause]
    if cause == "lock" and record.read(base).lock["file"] != "cpu.txt":
        expected = [("lock", "requirements/cuda.txt")]

    found = compare_runs(base, planted("b", lambda run, _: change(run)), ROOT)

    assert named(found) == expected


def test_a_hundred_identical_pairs_raise_no_alarm(base, planted):
    for number in range(100):

        def elsewhere(run, _, n=number):
            run.run, run.started, run.finished, run.wall_s = f"run{n}", "2030-01-01T00:00:00Z", "", float(n)
            run.environment |= {"host": f"host{n}", "process": {"pid": n, "started_ticks": n}}
            run.environment["python"]["executable"] = f"/home/{n}/bin/python"
            run.config["paths"] = {"runs": f"/home/{n}"}
            run.overrides = []

        found = compare_runs(base, planted(f"b{number}", elsewhere), ROOT)

        assert (found.differences, found.notes) == ([], [])
        assert found.verdict == "identical: the same recipe, environment and outcome"


def test_the_first_cause_comes_first_and_every_other_after(planted, base):
    def change(run, folder):
        rows = plain_rows(12)
        rows[3][3] = b"?" * 16
        write_trace(folder, run, rows)
        run.environment["probe"] = "sha256:" + "0" * 64
        run.recipe_config["seed"] = 1
        run.environment["image"] = {"digest": "sha256:" + "1" * 64}
        run.code["tree"] = "5" * 40
        run.environment["distributions"]["numpy"] = "1.0"
        run.environment["python"]["version"] = "3.11.0"
        run.data["fingerprint"] = "sha256:" + "7" * 64
        run.environment["threads"] = 9
        run.metrics["test_loss"] = 0.0

    a = planted("a", lambda run, folder: write_trace(folder, run, plain_rows(12)))
    found = compare_runs(a, planted("b", change), ROOT)

    order = list(dict.fromkeys(d.part for d in found.differences))
    assert order == ["image", "python", "lock", "code", "config", "data", "hardware", "probe", "step", "metric"]


def test_1_and_1_0_and_true_are_three_values(planted):
    a, b, c = (planted(str(v), lambda run, _, v=v: put(run.recipe_config, "seed", v)) for v in (1, 1.0, True))

    assert [named(compare_runs(x, y, ROOT)) for x, y in ((a, b), (b, c), (a, c))] == [[("config", "seed")]] * 3


def test_null_and_nothing_are_two_values(planted):
    a = planted("a", lambda run, _: put(run.recipe_config, "extra", None))
    b = planted("b")

    (difference,) = compare_runs(a, b, ROOT).differences

    assert str(difference) == "extra: null → nothing"
    assert (difference.a, difference.b) == (None, causes.Nothing.HERE)


def test_a_key_with_a_dot_is_not_a_path(planted):
    a = planted("a", lambda run, _: put(run.recipe_config, "model", {"a": {"b": 1}}))
    b = planted("b", lambda run, _: put(run.recipe_config, "model", {"a.b": 1}))

    assert named(compare_runs(a, b, ROOT)) == [("config", "model.a"), ("config", 'model."a.b"')]


# ---------------------------------------------------------------------------------------------------------- the trace


@pytest.fixture
def traced(planted):
    """`traced("a", rows)`: a run with this trace."""
    return lambda name, rows, every=10: planted(name, lambda run, folder: write_trace(folder, run, rows, every))


COLUMNS = {"loss": 1, "batch": 2, "gradient": 3, "parameters": 4}


@pytest.mark.parametrize("what", COLUMNS)
@pytest.mark.parametrize("at", [0, 1, 10, 496, 990, 999])
def test_the_first_step_and_what_of_it_is_named(traced, what, at):
    if what == "parameters" and at % 10:
        pytest.skip("not taken at this step")
    rows = plain_rows(1000)
    rows[at][COLUMNS[what]] = 0.25 if what == "loss" else b"?" * 16
    for row in rows[at + 1 :]:  # what comes after is all different, as in life
        row[1] += 1

    found = compare_runs(traced("a", plain_rows(1000)), traced("b", rows), ROOT)

    assert named(found) == [("step", f"step {at}")]
    assert (found.parting.compared, found.parting.what) == (at, (what,))
    assert found.verdict.startswith(f"first cause: step, step {at}: {what}")


def test_when_the_parameters_were_last_the_same_is_told(traced):
    rows = plain_rows(30)
    rows[17][1] = math.nextafter(rows[17][1], 1)

    found = compare_runs(traced("a", plain_rows(30)), traced("b", rows), ROOT)

    assert str(found.differences[0]) == (
        "step 17: loss; loss 0.05555555555555555 → 0.05555555555555556; the parameters were the same after step 10"
    )


def test_a_skipped_batch_is_named_by_its_step(traced):
    rows = plain_rows(30)
    del rows[7]
    for step, row in enumerate(rows):
        row[0] = step

    found = compare_runs(traced("a", plain_rows(30)), traced("b", rows), ROOT)

    assert (found.differences[0].where, found.parting.what[0]) == ("step 7", "batch")


def test_the_same_nan_is_the_same_and_another_nan_is_not(traced):
    nan = plain_rows(3)
    nan[2][1] = math.nan
    other = plain_rows(3)
    other[2][1] = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]

    assert not compare_runs(traced("a", nan), traced("b", nan), ROOT).differences
    assert named(compare_runs(traced("c", nan), traced("d", other), ROOT)) == [("step", "step 2")]


def test_minus_zero_is_not_zero(traced):
    zero, minus = plain_rows(3), plain_rows(3)
    zero[1][1], minus[1][1] = 0.0, -0.0

    assert named(compare_runs(traced("a", zero), traced("b", minus), ROOT)) == [("step", "step 1")]


def test_traces_of_different_length_are_compared_as_far_as_both_go(traced):
    found = compare_runs(traced("a", plain_rows(30)), traced("b", plain_rows(20)), ROOT)

    assert [str(d) for d in found.differences] == ["trace: the same for 20 steps, then one ends: 30 and 20 steps"]


def test_of_different_length_and_parted_before_the_step_is_named(traced):
    rows = plain_rows(20)
    rows[13][2] = b"?" * 16

    assert named(compare_runs(traced("a", plain_rows(30)), traced("b", rows), ROOT)) == [("step", "step 13")]


@pytest.mark.parametrize("at", [None, 12, 15, 29])
def test_a_trace_that_begins_later_is_compared_from_there(traced, at):
    """A run that was resumed into a trace of its own."""
    rows = plain_rows(20, first=10)
    if at:
        rows[at - 10][3] = b"?" * 16

    found = compare_runs(traced("a", plain_rows(30)), traced("b", rows), ROOT)

    if at:
        assert (found.differences[0].where, found.parting.what) == (f"step {at}", ("gradient",))
    else:
        assert found.parting.compared == 20


@pytest.mark.parametrize("at", [None, 14, 27])
def test_traces_with_digests_at_other_intervals_are_compared_by_what_both_have(traced, at):
    rows = plain_rows(30, every=7)
    for row in rows:
        if row[0] % 10 == 0 != row[0] % 7 == 0:
            row[3] = b"of other tensors"  # a digest of the small gradients alone
    if at:
        rows[at][1] = 0.25

    found = compare_runs(traced("a", plain_rows(30)), traced("b", rows, every=7), ROOT)

    expected = [("step", f"step {at}")] if at else [("end", "outcome")]
    assert named(found) == expected
    assert found.parting.compared == (at or 30)


def test_a_crashed_run_is_compared_as_far_as_it_went(planted):
    def crash(run, folder):
        write_trace(folder, run, plain_rows(12))
        run.state, run.metrics, run.weights, run.files, run.trace, run.finished = "started", {}, "", {}, {}, ""
        for name in ("probe", "threads", "torch", "device", "gpu", "cpu_capability"):
            del run.environment[name]
        run.data = {}
        with (folder / "trace.bin").open("ab") as file:
            file.write(b"torn")

    a = planted("a", lambda run, folder: write_trace(folder, run, plain_rows(20)))
    found = compare_runs(a, planted("b", crash), ROOT)

    assert [str(d) for d in found.differences] == [
        "trace: the same for 12 steps, then one ends: 20 and 12 steps",
        "state: sealed → started",
    ]


def test_a_run_that_crashed_at_its_very_start_is_compared_as_far_as_it_went(planted, base):
    def crash(run, folder):
        (folder / "trace.bin").unlink()
        run.__dict__.update(state="failed", reason="no disk", metrics={}, weights="", files={}, trace={})
        run.__dict__.update(code={}, lock={}, data={}, environment={})

    found = compare_runs(base, planted("b", crash), ROOT)

    assert [str(d) for d in found.differences] == ["state: sealed → failed (no disk)"]
    assert len(found.notes) == 1


def test_without_the_trace_files_the_digests_answer(traced, tmp_path):
    rows = plain_rows(30)
    rows[7][1] = 0.25
    a, b = traced("a", plain_rows(30)), traced("b", rows)
    bare = tmp_path / "bare" / "record.json"
    bare.parent.mkdir()
    shutil.copyfile(b / "record.json", bare)

    found = compare_runs(a, bare, ROOT)

    assert named(found) == [("step", "trace")]
    assert found.notes == [f"{bare.parent}: no trace.bin, so the first differing step can't be named"]
    assert compare_runs(b, bare, ROOT).differences == []


# ------------------------------------------------------------------------------------------------------- bad input


def test_a_changed_byte_in_a_trace_is_named_by_its_row(traced, base):
    folder = traced("a", plain_rows(30))
    content = bytearray((folder / "trace.bin").read_bytes())
    content[trace.HEADER_BYTES + 17 * trace.ROW_BYTES + 9] ^= 1
    (folder / "trace.bin").write_bytes(content)

    with pytest.raises(VerbatimError) as error:
        compare_runs(base, folder, ROOT)

    assert (
        str(error.value)
        == f"{folder / 'trace.bin'}, row 17: expected a row that continues the chain, found a changed row"
    )


def test_a_trace_of_another_run_is_refused(traced, base):
    folder, other = traced("a", plain_rows(30)), traced("b", plain_rows(29))
    shutil.copyfile(other / "trace.bin", folder / "trace.bin")

    with pytest.raises(
        VerbatimError, match=r"a/trace\.bin: expected sha256:\w+, found sha256:\w+: the file was changed"
    ):
        compare_runs(base, folder, ROOT)


def test_runs_of_different_programs_are_refused(base, planted):
    other = planted("b", lambda run, _: run.__dict__.update(command=["python", "-m", "other.train"]))

    with pytest.raises(VerbatimError) as error:
        compare_runs(base, other, ROOT)

    assert (
        str(error.value) == "compare: expected two runs of one experiment, found -m experiment.train and -m other.train"
    )


def test_runs_that_share_no_setting_are_refused(base, planted):
    other = planted("b", lambda run, _: run.__dict__.update(recipe_config={"alpha": 1}))

    with pytest.raises(
        VerbatimError, match="expected two runs of one experiment, found configurations that share no key"
    ):
        compare_runs(base, other, ROOT)


@pytest.mark.parametrize("damage", ["truncated", "edited", "newer", "not a record", "not JSON"])
def test_a_damaged_record_ends_with_2_and_one_line(planted, base, damage):
    folder = planted("b")
    path = folder / "record.json"
    text = path.read_text()
    wrong = {
        "truncated": text[:-200],
        "edited": text.replace('"seed": 0', '"seed": 5'),
        "newer": text.replace("/run/v1", "/run/v2"),
        "not a record": "{}",
        "not JSON": "\x00",
    }
    path.write_text(wrong[damage])

    done = python("-m", "verbatim", "compare", str(base), str(folder))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {folder if damage != 'edited' else ''}")
    assert "Traceback" not in done.stderr


def test_any_value_of_a_record_that_is_another_kind_of_value_is_refused_or_read(planted, base):
    """Whatever the damage, it ends in an answer or in a VerbatimError."""
    folder = planted("b")
    whole = json.loads((folder / "record.json").read_text())

    def spots(value):
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield value, key
            yield from spots(value[key])

    answered = refused = 0
    skip = ("distributions", "flags")
    for holder, key in list(spots(whole)):
        if key in skip:
            continue
        for wrong in (None, 7, "x", [], {}, math.nan):
            kept, holder[key] = holder[key], wrong
            (folder / "record.json").write_text(json.dumps(whole))
            holder[key] = kept
            try:
                compare_runs(base, folder, ROOT)
                answered += 1
            except VerbatimError:
                refused += 1
    assert answered > 100
    assert refused > 100


# ------------------------------------------------------------------------------------------------------- the command


def test_exit_codes_are_those_of_diff(base, planted):
    seeded = planted("b", lambda run, _: put(run.recipe_config, "seed", 1))

    codes = [
        python("-m", "verbatim", "compare", str(base), str(other), *more).returncode
        for other, more in (
            (base, ()),
            (seeded, ()),
            (seeded, ("--outcome",)),
            (base / "nothing", ()),
            (base, ("--what",)),
        )
    ]

    assert codes == [0, 1, 0, 2, 2]


def test_the_answer_as_json(base, planted):
    other = planted("b", lambda run, _: run.recipe_config["model"].update(dropout=0.5, more=None))
    name = record.read(base).run

    done = python("-m", "verbatim", "compare", "--json", str(base), str(other))
    answer = json.loads(done.stdout)

    assert answer["first"] == {"part": "config", "where": "model.dropout", "says": "", "a": 0.0, "b": 0.5}
    assert answer["differences"][1] == {"part": "config", "where": "model.more", "says": "", "b": None}
    assert (answer["a"], answer["b"], answer["identical"], answer["steps_compared"]) == (name, name, False, 12)


def test_the_answer_as_text(base, planted):
    found = compare_runs(base, planted("b", lambda run, _: put(run.recipe_config, "seed", 1)), ROOT)
    run = found.a

    lines = compare.report(found, ROOT).splitlines()

    assert lines[0].startswith("first cause: config, seed: 0 → 1")
    assert lines[2].startswith(f"A  {run.run}  sealed       recipe {run.recipe[7:19]}  outcome {run.outcome[7:19]}")
    assert lines[4:] == ["config    seed: 0 → 1", "step      the same, 12 of 12"]


def test_a_run_that_was_resumed_is_identical_and_said_to_be_resumed(base, planted):
    def change(run, _):
        run.resumed.append({"ended": "killed", "cpu": run.environment["cpu"]["model"]})
        run.environment |= {"ranks": 2, "workers": 7}

    other = planted("b", change)

    done = python("-m", "verbatim", "compare", str(base), str(other))
    answer = json.loads(python("-m", "verbatim", "compare", "--json", str(base), str(other)).stdout)

    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0]) == (0, "identical: the same recipe, environment and outcome")
    assert [line.endswith("  resumed 1×") for line in lines[2:4]] == [False, True]
    assert (answer["resumed"], answer["claims"]) == ([0, 1], ["exact", "exact"])


def test_a_lower_claim_is_told_beside_the_run(base, planted):
    def portable(run, *unlisted):
        run.level, run.unlisted = "portable", list(unlisted)

    a = planted("a", lambda run, _: portable(run))
    b = planted("b", lambda run, _: portable(run, "aten::tan", "aten::hypot"))

    found = compare_runs(a, b, ROOT)

    lines = compare.report(found, ROOT).splitlines()
    assert [line.partition("  claims ")[2] for line in lines[2:4]] == ["", "exact, not portable (aten::tan and 1 more)"]
    assert compare.as_dict(found)["claims"] == ["portable", "exact"]


def test_more_than_ten_differences_of_a_part_are_counted_unless_all_are_asked_for(base, planted):
    def change(run, _):
        for number, name in enumerate(list(run.environment["distributions"])[:25]):
            run.environment["distributions"][name] = f"0.0.{number}"
        put(run.recipe_config, "seed", 1)

    other = planted("b", change)
    short, whole, answer = (
        python("-m", "verbatim", "compare", str(base), str(other), *more).stdout
        for more in ((), ("--all",), ("--json",))
    )

    lines = short.splitlines()
    assert lines[0].endswith("(and 24 more); without effect: the outcome is the same, bit for bit")
    assert lines[4].startswith("lock      ")
    assert lines[14:16] == ["          and 15 more: --all", "config    seed: 0 → 1"]
    assert len(whole.splitlines()) == len(lines) + 14
    assert "more: --all" not in whole
    assert len(json.loads(answer)["differences"]) == 26


def test_comparing_needs_no_torch_and_no_hydra(base):
    code = "import sys; from verbatim import compare; from pathlib import Path; "
    code += f"compare.main([{str(base)!r}, {str(base)!r}], Path('.')); "
    code += "print([m for m in ('torch', 'hydra', 'omegaconf', 'rich', 'numpy', 'sklearn') if m in sys.modules])"

    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_a_million_steps_are_compared_in_a_blink_and_200_mib(planted):
    """One trace made, the other with another end: 2 × 96 MB."""
    rows, last = 1_000_000, 5_000
    same = [0.5, b"b" * 16, b"g" * 16, bytes(16)]

    def million(run, folder, apart):
        header = trace.HEADER.pack(trace.MAGIC, trace.ROW_BYTES, 0)
        chain = sha256(header).digest()
        with (folder / "trace.bin").open("wb") as file:
            file.write(header + chain)
            for step in range(rows):
                if apart and step == rows - last:
                    same[1] = b"c" * 16
                body = trace.BODY.pack(step, *same)
                chain = sha256(chain + body).digest()
                file.write(body + chain)
        from verbatim import digest

        run.trace = {"digest": f"sha256:{chain.hex()}", "rows": rows, "parameters_every": 0}
        run.files["trace.bin"] = digest.of_file(folder / "trace.bin")

    a = planted("a", lambda run, folder: million(run, folder, False))
    b = planted("b", lambda run, folder: million(run, folder, True))
    code = "import sys; from verbatim import compare; from pathlib import Path; compare.main(sys.argv[1:], Path('.')); "
    # Its own peak: ru_maxrss would begin with that of the process that started it.
    code += "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    seconds = []
    for _ in range(3):  # the best of three, start of the interpreter included: others use this machine as well
        began = time.monotonic()
        done = python("-c", code, str(a), str(b))
        seconds.append(time.monotonic() - began)

    lines = done.stdout.splitlines()
    assert lines[0].startswith("first cause: step, step 995000: batch")
    print(f"compared in {min(seconds):.2f} s")
    assert min(seconds) < 5  # 0.2 s here; reading every row in Python takes longer
    assert int(lines[-1]) * 1024 < 200 * 2**20
