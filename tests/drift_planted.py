"""Drifts to plant in `drift_world`'s project: what each spoils, and the kinds that must say so. And edits that are no drift, with why."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import drift_world as world
from verbatim import environment
from verbatim.drift import image, question

Spoil = Callable[[Path], object]
LOCKS = {"tools": "packaging", "audit": "pip-audit", "cpu": "mdurl", "cuda": "mdurl"}  # and a pin in each


@dataclass(frozen=True)
class Planted:
    name: str
    kinds: set[str]  # one of these must see it; `files` asks for --deep
    spoil: Spoil
    deep: bool = False
    labels: dict[str, dict[str, str | None]] = field(
        default_factory=dict
    )  # variant → labels of its image, other than they were


def edit(name: str, old: str, new: str) -> Spoil:
    """Replace a regular expression's first match; what matches nothing would plant nothing."""

    def spoil(root: Path) -> None:
        before = (root / name).read_text()
        after = re.sub(old, new, before, count=1, flags=re.MULTILINE)
        assert before != after, f"{old} is not in {name}"
        (root / name).write_text(after)

    return spoil


def append(name: str, text: str) -> Spoil:
    return lambda root: (root / name).write_text((root / name).read_text() + text)


def put(name: str, data: bytes) -> Spoil:
    return lambda root: (root / name).write_bytes(data)


def gone(name: str) -> Spoil:
    return lambda root: (root / name).unlink()


def both(*spoils: Spoil) -> Spoil:
    return lambda root: [spoil(root) for spoil in spoils]


def locks() -> Iterator[Planted]:
    """Every class of line of a lock, in each of the four."""
    hashed = "--hash=sha256:" + "ab" * 32
    for name, package in LOCKS.items():
        file, pin = f"requirements/{name}.txt", rf"^({package})==(\S+)"
        lines: dict[str, Spoil] = {
            "another version": edit(file, pin, r"\1==0.0.1"),
            "another name": edit(file, pin, r"other==\2"),
            "a digit of a hash": edit(file, r"sha256:(.)(?=\w{63} \\$)", lambda m: f"sha256:{'01'[m[1] == '0']}"),  # type: ignore[arg-type]
            "a hash taken out": edit(file, r"^    --hash=sha256:\w+ \\\n", ""),
            "a hash more": edit(file, r"^(    --hash=sha256:\w+ \\\n)", rf"    {hashed} \\\n\1"),
            "a short hash": edit(file, r"(--hash=sha256:\w{63})\w", r"\1"),
            "another kind of hash": edit(file, r"--hash=sha256", "--hash=sha512"),
            "no hash at all": edit(file, r"^(\S+==\S+) \\\n(?:    --hash.*\n)+", r"\1\n"),
            "a backslash taken out": edit(file, r" \\$", ""),
            "a backslash too many": edit(file, r"^(    --hash=sha256:\w{64})$", r"\1 \\"),
            "a space after a backslash": edit(file, r"\\$", r"\\ "),
            "a pin taken out": edit(file, rf"^{package}==.*\n(?:    .*\n)+", ""),
            "a pin more": append(file, f"zz==1.0 \\\n    {hashed}\n    # via {package}\n"),
            "a pin twice": edit(file, rf"^({package}==.*\n(?:    .*\n)+)", r"\1\1"),
            "a range": edit(file, pin, r"\1>=\2"),
            "a compatible release": edit(file, pin, r"\1~=\2"),
            "a wildcard": edit(file, pin, r"\1==1.*"),
            "no version": edit(file, pin, r"\1"),
            "what is no version": edit(file, pin, r"\1==latest"),
            "a marker": edit(file, pin, r'\1==\2 ; python_version < "4"'),
            "an extra": edit(file, pin, r"\1[all]==\2"),
            "an address": edit(file, pin, r"\1 @ https://example.invalid/x.whl"),
            "an index": append(file, "--index-url https://example.invalid/simple\n"),
            "an editable": append(file, "-e .\n"),
            "another file": append(file, "-r other.txt\n"),
            "a conflict": edit(file, pin, r"<<<<<<< HEAD\n\1==1.0 \\\n=======\n\1==\2"),
            "the end of a conflict": append(file, ">>>>>>> theirs\n"),
            "what is no UTF-8": put(file, b"packaging==\xff\n"),
            "nothing in it": put(file, b""),
            "half of it": lambda root, file=file: os.truncate(root / file, (root / file).stat().st_size // 2),
            "not there": gone(file),
            "a folder in its place": lambda root, file=file: ((root / file).unlink(), (root / file).mkdir()),
            "the digest of its pins": edit(file, r"^# pins sha256:.{4}", "# pins sha256:0000"),
            "no digest of its pins": edit(file, r"^# pins .*\n", ""),
            "two digests of its pins": edit(file, r"^(# pins .*\n)", rf"# pins sha256:{'0' * 64}\n\1"),
            "no reason for a pin": edit(file, rf"(^{package}==.*\n(?:    --.*\n)+)(?:    #.*\n)+", r"\1"),
            "a reason that is not pinned": edit(file, rf"(^{package}==.*\n(?:    --.*\n)+)(?:    #.*\n)+", r"\1    # via nobody\n"),
            "a reason of itself": edit(file, rf"(^{package}==.*\n(?:    --.*\n)+)(?:    #.*\n)+", rf"\1    # via {package}\n"),
        }  # fmt: skip
        for what, spoil in lines.items():
            yield Planted(f"{name}.txt: {what}", {"lock"}, spoil)
        yield Planted(f"{name}.txt: a reason that its inputs do not give", {"inputs"}, edit(file, rf"(^{package}==.*\n(?:    --.*\n)+)(?:    #.*\n)+", r"\1    # via -r requirements/nothing.in\n"))  # fmt: skip
        yield Planted(
            f"{name}.txt: the digest of its inputs",
            {"inputs"},
            edit(file, r"^# inputs sha256:.{4}", "# inputs sha256:0000"),
        )
        yield Planted(f"{name}.txt: no digest of its inputs", {"inputs"}, edit(file, r"^# inputs .*\n", ""))
        yield Planted(f"{name}.txt: another Python", {"python"}, edit(file, r"with Python 3\.11", "with Python 3.12"))
        yield Planted(f"{name}.txt: no Python", {"python"}, edit(file, r" with Python 3\.11", ""))
    for what, (old, new) in {
        "version": (r"^mdurl==\S+", "mdurl==0.0.1"),
        "hash": (r"(?<=mdurl)(.*\n    --hash=sha256:)....", r"\1dead"),
    }.items():
        edits = [edit(f"requirements/{name}.txt", old, new) for name in ("cpu", "cuda")]
        yield Planted(f"a {what} of both variants, edited alike", {"lock"}, both(*edits))


def inputs() -> Iterator[Planted]:
    """Every class of line of an input, in each of the five."""
    for name, package in {
        "project": "pluggy",
        "cpu": "torch",
        "cuda": "torch",
        "tools": "nox",
        "audit": "pip-audit",
    }.items():
        file, line = f"requirements/{name}.in", rf"^({package})([=<>~][^#\n]*)"
        lines: dict[str, Spoil] = {
            "another range that holds": edit(file, line, r"\1>0"),
            "a range that does not hold": edit(file, line, r"\1>=99"),
            "a version that was never": edit(file, line, r"\1==1!0"),
            "no range": edit(file, line, r"\1"),
            "an extra": edit(file, line, r"\1[more]\2"),
            "a marker that holds": edit(file, line, r"\1\2; python_version >= '3.8'"),
            "a marker that does not hold": edit(file, line, r"\1\2; sys_platform == 'win32'"),
            "a requirement taken out": edit(file, rf"^{package}.*\n", ""),
            "a requirement more, pinned by chance": append(file, "mdurl\n" if name in ("project", "cpu", "cuda") else f"{package}>=0.1\n"),
            "a requirement more, not pinned": append(file, "zzz>=1\n"),
            "a requirement of a file more": both(put("requirements/more.in", b"zzz\n"), append(file, "-r more.in\n")),
            "limits that do not hold": both(put("requirements/limits.in", f"{package}<0.1\n".encode()), append(file, "-c limits.in\n")),
            "limits that hold": both(put("requirements/limits.in", f"{package}>=0.1\n".encode()), append(file, "-c limits.in\n")),
            "a file that is not there": append(file, "-r nowhere.in\n"),
            "what is no requirement": append(file, "a requirement\n"),
            "an unfinished range": edit(file, line, r"\1>="),
            "a marker of nothing": edit(file, line, r"\1\2; nothing == '1'"),
            "an address": append(file, "zzz @ https://example.invalid/zzz.whl\n"),
            "an index": append(file, "--extra-index-url https://example.invalid/simple\n"),
            "an editable": append(file, "-e ..\n"),
            "a conflict": append(file, "<<<<<<< HEAD\nx\n=======\ny\n>>>>>>> theirs\n"),
            "what is no UTF-8": put(file, b"caf\xe9\n"),
            "nothing in it": put(file, b""),
            "not there": gone(file),
        }  # fmt: skip
        for what, spoil in lines.items():
            yield Planted(f"{name}.in: {what}", {"inputs"}, spoil)
    for name in ("cpu", "cuda"):
        yield Planted(
            f"{name}.in: project.in left out", {"inputs"}, edit(f"requirements/{name}.in", r"^-r project\.in\n", "")
        )
    for what, (old, new) in {"hash": ("sha256:84", "sha256:85"), "version": (r"also torch==2\.13", "also torch==2.14"), "name": ("also torch", "also pluggy"),
                             "word": ("# also", "# as well"), "line": (r"^# also.*\n", ""), "kind": ("--hash=sha256", "--hash=sha1")}.items():  # fmt: skip
        yield Planted(f"cpu.in: the {what} of a hash stated by hand", {"inputs"}, edit("requirements/cpu.in", old, new))


def variants() -> Iterator[Planted]:
    """Apart, and each sealed as if it had been compiled so: only the comparison can tell."""
    spoils = {
        "a version": (r"^pluggy==\S+", "pluggy==1.5.1"),
        "a hash": (r"(?<=pluggy)(.*\n    --hash=sha256:)....", r"\1dead"),
        "a pin taken out": (r"^mdurl==.*\n(?:    .*\n)+", ""),
        "a pin more": (r"^(pluggy==)", rf"more==1.0 \\\n    --hash=sha256:{'ab' * 32}\n    # via pluggy\n\1"),
        "another torch": (r"^torch(===?)2\.13\.0", r"torch\g<1>2.12.0"),
        "no torch": (r"^torch==.*\n(?:    .*\n)+", ""),
    }
    for name in ("cpu", "cuda"):
        for what, (old, new) in spoils.items():
            sealed = seal(name) if "torch" not in what else (lambda root: None)
            yield Planted(
                f"{name}.txt alone: {what}", {"variants"}, both(edit(f"requirements/{name}.txt", old, new), sealed)
            )
    gpu = rf"nvidia-x==1.0 \\\n    --hash=sha256:{'ab' * 32}\n    # via torch\n\1"
    yield Planted(
        "a CUDA package in cpu.txt", {"variants"}, both(edit("requirements/cpu.txt", r"^(pluggy==)", gpu), seal("cpu"))
    )


def seal(name: str) -> Spoil:
    return lambda root: world.reseal(root / "requirements", name)


def installed() -> Iterator[Planted]:
    for package in (*world.PROJECT, "torch"):
        yield Planted(
            f"{package} not installed", {"installed"}, lambda root, p=package: dist(root, p).rename(root / "away")
        )
        yield Planted(
            f"another {package}",
            {"installed"},
            lambda root, p=package: dist(root, p).rename(
                dist(root, p).with_name(f"{p.replace('-', '_')}-0.1.dist-info")
            ),
        )
        yield Planted(
            f"{package} twice",
            {"installed"},
            lambda root, p=package: dist(root, p).with_name(f"{p.replace('-', '_')}-0.1.dist-info").mkdir(),
        )
        yield Planted(
            f"METADATA of {package}: its version",
            {"installed"},
            lambda root, p=package: within(root, p, "METADATA", r"^Version: .*", "Version: 0.1"),
        )
        yield Planted(
            f"METADATA of {package}: its name",
            {"installed"},
            lambda root, p=package: within(root, p, "METADATA", r"^Name: .*", "Name: else"),
        )
        yield Planted(
            f"METADATA of {package}: requires what is not there",
            {"installed"},
            lambda root, p=package: within(root, p, "METADATA", r"^(Version: .*)", r"\1\nRequires-Dist: zzz"),
        )
        yield Planted(
            f"METADATA of {package}: requires another version",
            {"installed"},
            lambda root, p=package: within(root, p, "METADATA", r"^(Version: .*)", r"\1\nRequires-Dist: mdurl>=99"),
        )
        yield Planted(
            f"RECORD of {package}: a hash",
            {"installed"},
            lambda root, p=package: within(root, p, "RECORD", r"sha256=.....", "sha256=AAAAA"),
        )
        yield Planted(
            f"{package} without RECORD", {"installed"}, lambda root, p=package: (dist(root, p) / "RECORD").unlink()
        )
        yield Planted(
            f"{package} from an address",
            {"installed"},
            lambda root, p=package: (dist(root, p) / "direct_url.json").write_text("{}"),
        )
        for what, spoil in FILES.items():
            yield Planted(
                f"a file of {package} {what}", {"files"}, lambda root, p=package, s=spoil: s(source(root, p)), deep=True
            )
    yield Planted("a distribution more", {"installed"}, lambda root: world.add(site(root), "extra", "1.0", {}, []))
    yield Planted("a .pth more", {"installed"}, lambda root: (site(root) / "evil.pth").write_text("import os\n"))
    yield Planted(
        "another folder of code", {"installed"}, lambda root: (site(root) / "verbatim.pth").write_text("/elsewhere\n")
    )
    yield Planted("no stamp", {"installed"}, gone(".venv/verbatim.json"))
    yield Planted("half a stamp", {"installed"}, put(".venv/verbatim.json", b'{"variant": "c'))
    yield Planted(
        "a stamp of another lock",
        {"installed"},
        edit(".venv/verbatim.json", r'"lock": "sha256:.{4}', '"lock": "sha256:0000'),
    )
    yield Planted(
        "a stamp of other files",
        {"installed"},
        edit(".venv/verbatim.json", r'"records": "sha256:.{4}', '"records": "sha256:0000'),
    )
    yield Planted("a module more", {"files"}, lambda root: (site(root) / "sitecustomize.py").write_text(""), deep=True)
    yield Planted(
        "a module more, in a package",
        {"files"},
        lambda root: (site(root) / "pluggy" / "more.so").write_bytes(b""),
        deep=True,
    )
    yield Planted(
        "a stamp of another Python", {"python"}, edit(".venv/verbatim.json", r'"python": "3\.11', '"python": "3.11.0.')
    )
    yield Planted("no interpreter", {"python"}, gone(".venv/bin/python"))
    yield Planted(
        "an interpreter that is none",
        {"python"},
        lambda root: ((root / ".venv/bin/python").unlink(), (root / ".venv/bin/python").symlink_to("/bin/true")),
    )
    yield Planted(
        "the system's packages as well", {"python"}, edit(".venv/pyvenv.cfg", "packages = false", "packages = true")
    )


FILES: dict[str, Callable[[Path], object]] = {
    "with a byte changed": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "with a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "in place of a folder": lambda path: (path.unlink(), path.mkdir()),
}


def site(root: Path) -> Path:
    return environment.site_packages(root / ".venv")


def dist(root: Path, package: str) -> Path:
    return next(folder for name, _, folder in environment.dist_infos(site(root)) if name == package)


def source(root: Path, package: str) -> Path:
    """The first file with something in it that a distribution lists."""
    rows = (dist(root, package) / "RECORD").read_text().splitlines()
    return next(
        path for row in rows if (path := site(root) / row.rsplit(",", 2)[0]).suffix == ".py" and path.stat().st_size
    )


def within(root: Path, package: str, file: str, old: str, new: str) -> None:
    edit(str((dist(root, package) / file).relative_to(root)), old, new)(root)


def images() -> Iterator[Planted]:
    for variant in ("cpu", "cuda"):
        others = {
            "an older lock": {question.LABEL + "lock": "sha256:" + "0" * 64}, "no lock stated": {question.LABEL + "lock": ""},
            "an unknown variant": {question.LABEL + "variant": "rocm"}, "no variant": {question.LABEL + "variant": None},
            "another Python": {question.LABEL + "python": "3.12"}, "no Python": {question.LABEL + "python": None},
            "an older base": {image.OCI + "digest": "sha256:" + "0" * 64}, "no base stated": {image.OCI + "digest": None},
        }  # fmt: skip
        for what, labels in others.items():
            yield Planted(f"the {variant} image: {what}", {"image"}, lambda root: None, labels={variant: labels})
        recompiled = both(edit(f"requirements/{variant}.txt", r"^iniconfig==\S+", "iniconfig==2.0.9"), seal(variant))
        yield Planted(f"the {variant} image: the lock was compiled anew", {"image"}, recompiled)
    yield Planted(
        "the images: the base has another digest now",
        {"image"},
        edit(".devcontainer/Dockerfile", "sha256:b0", "sha256:b1"),
    )


def twins() -> Iterator[Planted]:
    for file in ("README.md", ".vscode/tasks.json"):
        for session in ("train", "lock"):
            yield Planted(f"{file}: {session} not named", {"twins"}, edit(file, f"-s {session}", "-s drift"))
            yield Planted(
                f"{file}: {session} by a name that is none", {"twins"}, edit(file, f"-s {session}", f"-s {session}s")
            )
    yield Planted(
        "tasks.json: a session as arguments, by a name that is none",
        {"twins"},
        edit(".vscode/tasks.json", '"-s", "drift"', '"-s", "drifts"'),
    )
    yield Planted("a session more", {"twins"}, append("noxfile.py", "\n\n@nox.session\ndef more(session):\n    pass\n"))
    yield Planted("a session by another name", {"twins"}, edit("noxfile.py", "name='lock'", "name='compile'"))
    docker, ci = ".devcontainer/Dockerfile", ".github/workflows/ci.yml"
    for what, spoil in {
        "a base by tag": edit(docker, "@sha256:.*", ""),
        "a stage's base by tag": append(docker, "FROM debian:bookworm AS other\n"),
        "another digest": edit(docker, "sha256:b0", "sha256:b1"),
        "another digest in a JSON file": edit(".devcontainer/more.json", "sha256:b0", "sha256:b1"),
        "another digest in a workflow": append(ci, f"  - container: {world.BASE[0]}@sha256:{'0' * 64}\n"),
        "another hook": edit(".pre-commit-config.yaml", "rev: 2025.1.1", "rev: v2025.1.2"),
        "another version in a workflow": edit(ci, "nox==2025.1.1", "nox==2024.1.1"),
        "another version in the Dockerfile": append(docker, "RUN pip install pluggy==0.1\n"),
    }.items():
        yield Planted(f"twins: {what}", {"twins"}, spoil)
    for name in world.DEVCONTAINER.MATRIX if world.DEVCONTAINER else ():
        file = f".devcontainer/{name}"
        yield Planted(f"{file}: edited by hand", {"twins"}, edit(file, '"dev"', '"train"'))
        yield Planted(f"{file}: not there", {"twins"}, gone(file))
    for field_, old, new in (
        ("requires-python", r"==3\.11", "==3.12"),
        ("target-version", "py311", "py310"),
        ("python_version", r'version = "3\.11"', 'version = "3.12"'),
    ):
        yield Planted(f"pyproject.toml: {field_}", {"python"}, edit("pyproject.toml", old, new))
        yield Planted(f"pyproject.toml: no {field_}", {"python"}, edit("pyproject.toml", f"^{field_}.*\n", ""))
    yield Planted("pyproject.toml: no TOML", {"python"}, append("pyproject.toml", "= =\n"))


ALL = [*locks(), *inputs(), *variants(), *installed(), *images(), *twins()]


def _swap(name: str, old: str) -> Spoil:
    """Two blocks of lines in the other order."""
    return edit(name, old, r"\2\1")


HARMLESS: dict[str, tuple[str, Spoil]] = {
    "a lock's pins in another order": ("they install the same", _swap("requirements/cpu.txt", r"(^packaging==.*\n(?:    .*\n)+)(^pluggy==.*\n(?:    .*\n)+)")),
    "a pin's hashes in another order": ("they allow the same files", _swap("requirements/cpu.txt", r"(^    --hash=.*\\\n)(^    --hash=.*\\\n)")),
    "a hash twice": ("it allows no other file", edit("requirements/cpu.txt", r"(^    --hash=.*\\\n)", r"\1\1")),
    "a comment in a lock": ("pip skips it", edit("requirements/cpu.txt", r"^(pluggy==)", r"# mine\n\1")),
    "a comment under a pin": ("pip skips it", edit("requirements/cpu.txt", r"^    # via -r requirements/cpu.in\n", r"    # via -r requirements/cpu.in\n    # mine\n")),
    "blank lines in a lock": ("pip skips them", edit("requirements/cpu.txt", r"^(pluggy==)", r"\n \n\1")),
    "no blank line at a lock's end": ("nothing is cut", lambda root: (root / "requirements/cpu.txt").write_bytes((root / "requirements/cpu.txt").read_bytes().rstrip())),
    "a lock with Windows's line ends": ("git makes them so on Windows", lambda root: crlf(root / "requirements/cpu.txt")),
    "a lock with a byte order mark": ("editors put it there, pip skips it", lambda root: bom(root / "requirements/cpu.txt")),
    "hashes indented by a tab": ("pip skips space", edit("requirements/cpu.txt", r"^    --hash", "\t--hash")),
    "a name in capitals": ("names are compared without case", edit("requirements/cpu.txt", "^pluggy==", "Pluggy==")),
    "a name with a dot for a dash": ("names are compared without them", edit("requirements/cpu.txt", "^markdown-it-py==", "markdown.it_py==")),
    "=== for ==": ("the hashes allow the same file", edit("requirements/cpu.txt", "^pluggy==", "pluggy===")),
    "one reason more for a pin": ("a comment, and the pin is still led to", edit("requirements/cpu.txt", "# via markdown-it-py", "# via\n    #   markdown-it-py\n    #   pluggy")),
    "another command in the header": ("a comment for people", edit("requirements/cpu.txt", "^#    nox -s lock", "#    make")),
    "an input's lines in another order": ("it asks for the same", _swap("requirements/project.in", r"(^packaging.*\n)(^markdown.*\n)")),
    "a comment in an input": ("pip skips it", append("requirements/project.in", "# mine\n")),
    "a comment behind a requirement": ("pip skips it", edit("requirements/project.in", "^packaging>=24", "packaging>=24  # mine")),
    "spaces in a requirement": ("pip skips them", edit("requirements/project.in", "^packaging>=24", "  packaging  >=  24")),
    "a requirement in brackets": ("the same, in an older way", edit("requirements/project.in", "^packaging>=24", "packaging (>=24)")),
    "a requirement in capitals": ("names are compared without case", edit("requirements/project.in", "^markdown-it-py", "Markdown_It.Py")),
    "a range's parts in another order": ("both must hold", edit("requirements/project.in", r"pluggy>=1\.5, <2", "pluggy<2,>=1.5")),
    "a requirement twice": ("it asks for nothing more", append("requirements/project.in", "packaging>=24\n")),
    "a requirement over two lines": ("a backslash goes on", edit("requirements/project.in", "^packaging>=24", "packaging \\\\\n  >=24")),
    "an input with Windows's line ends": ("git makes them so on Windows", lambda root: crlf(root / "requirements/project.in")),
    "an input with a byte order mark": ("editors put it there", lambda root: bom(root / "requirements/project.in")),
    "-r written out": ("the same option", edit("requirements/cpu.in", "^-r project.in", "--requirement=project.in")),
    "another file in requirements": ("no lock comes from it", put("requirements/notes.in", b"what? ever\n")),
    "pip installed": ("`venv` brings it", lambda root: world.add(site(root), "pip", "26.0", {"pip/__init__.py": ""}, [])),
    "byte code": ("Python makes it from the source", lambda root: ((site(root) / "pluggy/__pycache__").mkdir(exist_ok=True), (site(root) / "pluggy/__pycache__/x.cpython-311.pyc").write_bytes(b"x"))),
    "a file's time": ("its bytes are the same", lambda root: os.utime(source(root, "pluggy"), (0, 0))),
    "an empty folder": ("nothing can be imported from it", lambda root: (site(root) / "pluggy" / "empty").mkdir()),
    "prose in README.md": ("it names no session", append("README.md", "\nMore about nox and its sessions, and `nox` alone.\n")),
    "a function in noxfile.py": ("it is no session", append("noxfile.py", "\n\ndef more():\n    pass\n")),
    "a comment in tasks.json": ("JSON with comments", append(".vscode/tasks.json", "// mine\n")),
    "a version of what no lock holds": ("there is nothing to compare it with", append(".github/workflows/ci.yml", "  - run: pip install zzz==1\n")),
    "a stage from a stage": ("it has that one's base", append(".devcontainer/Dockerfile", "FROM dev AS more\n")),
}  # fmt: skip


def crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def bom(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
