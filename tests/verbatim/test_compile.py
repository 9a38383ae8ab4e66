"""Compiling, for real, of small inputs: pip-tools and uv from the tools' environment, packages from the index."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, ROOT
from verbatim import compile, install, lock
from verbatim.drift import locks
from verbatim.errors import VerbatimError

INPUTS = {
    "tools.in": "iniconfig>=2\n", "audit.in": "iniconfig>=2\n", "project.in": "markdown-it-py>=3\n",
    "cpu.in": "-r project.in\n", "cuda.in": "-r project.in\n", "ray.in": "iniconfig>=2\nmarkdown-it-py\n",
}  # fmt: skip


def tools() -> str:
    """The Python that runs nox, where it has pip-tools beside it, as that of the tools' lock has."""
    found = shutil.which("pip-compile") or str(ROOT / ".nox" / "tools" / "bin" / "pip-compile")
    if not Path(found).exists():
        pytest.skip("pip-tools are not here: python3.11 noxfile.py brings them")
    return str(Path(found).with_name("python"))


def run(root, **options):
    code = "import sys; from pathlib import Path; from verbatim import compile; from verbatim.errors import VerbatimError\n"
    code += f"try: print(*compile.compile_locks(Path({str(root)!r}), **{options!r}), sep='\\n')\n"
    code += "except VerbatimError as error: sys.exit(f'error: {error}')\n"
    return subprocess.run([tools(), "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)


def state(root):
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted((root / "requirements").glob("*.txt"))
    }


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiled from nothing, once."""
    root = tmp_path_factory.mktemp("compiled")
    (root / "requirements").mkdir()
    for name, text in INPUTS.items():
        (root / "requirements" / name).write_text(text)
    done = run(root)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture
def project(compiled, tmp_path):
    return shutil.copytree(compiled[0], tmp_path / "project")


def test_locks_are_made_from_nothing_sealed_and_whole(compiled):
    root, says = compiled

    assert [finding for answer in locks.of_requirements(root / "requirements") for finding in answer.findings] == []
    assert {line.split()[0] for line in says.splitlines()[5:]} == {"iniconfig", "markdown-it-py", "mdurl"}
    assert "cpu, cuda: markdown-it-py>=3 (project.in, line 1) → mdurl" in says


def test_an_optional_lock_pins_what_the_others_do_not_and_names_what_it_lies_beside(compiled):
    folder = compiled[0] / "requirements"
    has = {pin.name: pin.version for pin in lock.read(folder / "cpu.txt")}

    assert [pin.name for pin in lock.read_sealed(folder / "ray.txt")] == ["iniconfig"]
    assert lock.beside(folder / "ray.txt") == has
    assert has.keys() == {"markdown-it-py", "mdurl"}


def test_a_second_run_changes_no_byte_and_touches_no_file(project):
    before = state(project)

    done = run(project)

    assert done.stdout.splitlines()[5:] == [""], done.stderr
    assert state(project) == before


def test_what_can_not_be_met_leaves_every_lock_as_it_was(project):
    (project / "requirements" / "project.in").write_text("markdown-it-py>=3\nmdurl>=99\n")
    before = state(project)

    done = run(project)

    assert done.returncode == 1
    assert done.stderr.startswith("error: requirements/cpu.in: expected requirements that can be met, found")
    assert "mdurl>=99" in done.stderr
    assert state(project) == before


def test_after_a_conflict_and_an_edit_the_new_lock_says_what_changed_and_why(project):
    path = project / "requirements" / "cpu.txt"
    path.write_text(
        path.read_text().replace("markdown-it-py==", "<<<<<<< HEAD\nmarkdown-it-py==", 1) + "=======\n>>>>>>> theirs\n"
    )
    (project / "requirements" / "cuda.txt").write_text("not a lock\n")
    (project / "requirements" / "project.in").write_text("mdurl>=0.1\n")

    done = run(project)

    assert "requirements/cuda.txt, line 1, column 5: not a lock; compiling it anew" in done.stdout
    gone = next(line for line in done.stdout.splitlines() if line.startswith("markdown-it-py"))
    assert gone.endswith("→ gone  cpu: was required by project.in")
    assert [pin.name for pin in lock.read(path)] == ["mdurl"]
    assert [finding for answer in locks.of_requirements(path.parent) for finding in answer.findings] == []


def test_a_package_that_no_lock_names_is_not_upgraded(project):
    done = run(project, packages=("nobody",))

    assert done.stderr.startswith(
        "error: --upgrade-package nobody: expected a package that a lock names, found none of that name"
    )


def test_an_input_that_can_not_be_read_is_refused_before_anything_is_compiled(project):
    (project / "requirements" / "cpu.in").write_text("-r project.in\nno requirement\n")

    with pytest.raises(VerbatimError, match="cpu.in, line 2, column 4"):
        compile.compile_locks(project)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sed -i s/^mdurl==.*/mdurl==0.0.1/ $file", "requirements/cpu.txt: expected the same pins from pip-tools and from uv, found mdurl 0.1.2, uv 0.0.1"),
        ("sed -i /^mdurl==/d $file", "found mdurl 0.1.2, uv –"),
        ("echo more==1 >> $file", "found more –, uv 1"),
        ("echo no network >&2; exit 1", "expected requirements that uv can meet as well, found \n    no network\n  next: VERBATIM_INSTALLER=pip"),
    ],
)  # fmt: skip
def test_locks_that_uv_would_not_give_are_refused(project, tmp_path, monkeypatch, body, says):
    uv = tmp_path / "uv"
    uv.write_text(
        f'#!/bin/sh\nfor a; do [ "$p" = --output-file ] && file=$a; p=$a; done\ncase $file in *.cpu.*) {body};; esac\n'
    )
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(install, "find_uv", lambda: str(uv))

    with pytest.raises(VerbatimError) as error:
        compile._accept(project / "requirements")

    assert says in str(error.value)


def test_a_half_made_lock_is_refused(project, monkeypatch):
    monkeypatch.setattr(install, "find_uv", lambda: "")
    compile._accept(project / "requirements")
    path = project / "requirements" / "cpu.txt"
    path.write_text(path.read_text().partition("mdurl==")[0])

    with pytest.raises(VerbatimError, match="requirements: expected locks that agree, found cpu.txt: expected pins"):
        compile._accept(path.parent)


def block(package, version):
    return f"{package}=={version} \\\n    --hash=sha256:{'ab' * 32}\n    # via x\n"


@pytest.mark.parametrize(("upgrade", "kept"), [(False, ["torch==2.0 ", "nvidia-x==1 "]), (True, [])])
def test_the_cuda_lock_starts_from_the_cpus_pins_and_its_own(tmp_path, upgrade, kept):
    (tmp_path / "cpu.txt").write_text("# head\n" + block("numpy", "2") + block("torch", "2.1+cpu") + block("zz", "3"))
    (tmp_path / "cuda.txt").write_text(block("numpy", "1") + block("torch", "2.0") + block("nvidia-x", "1"))

    compile._start_from_cpu(tmp_path, upgrade)

    text = (tmp_path / "cuda.txt").read_text()
    assert [line.removesuffix("\\") for line in text.splitlines() if "==" in line] == ["numpy==2 ", "zz==3 ", *kept]


def test_a_hash_stated_by_hand_is_added_in_order_and_only_to_the_version_it_names(tmp_path):
    (tmp_path / "cpu.in").write_text(f"a\n# also a==1 --hash=sha256:{'00' * 32}\n")
    (tmp_path / "cpu.txt").write_text(block("a", "1"))

    compile._seal(tmp_path, "cpu")
    once = (tmp_path / "cpu.txt").read_bytes()
    compile._seal(tmp_path, "cpu")

    assert (tmp_path / "cpu.txt").read_bytes() == once
    assert lock.read(tmp_path / "cpu.txt")[0].hashes == ("sha256:" + "00" * 32, "sha256:" + "ab" * 32)
    (tmp_path / "cpu.txt").write_text(block("a", "2"))
    with pytest.raises(
        VerbatimError, match="cpu.in, line 2: expected `# also a==…` to name the version that is locked, 2, found 1"
    ):
        compile._seal(tmp_path, "cpu")


def test_an_exact_requirement_is_locked_exactly_whatever_pip_compile_wrote(tmp_path):
    (tmp_path / "cuda.in").write_text("torch===2.0\n")
    made = set()
    for operator in ("==", "==="):
        (tmp_path / "cuda.txt").write_text(block("torch", "2.0").replace("==", operator) + block("torch-more", "2.0"))
        compile._seal(tmp_path, "cuda")
        made.add((tmp_path / "cuda.txt").read_text())

    assert len(made) == 1
    assert "\ntorch===2.0 " in (text := made.pop()) and "\ntorch-more==2.0 " in text
