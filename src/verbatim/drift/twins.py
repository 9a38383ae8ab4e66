"""Drift inside the repository: what is written in two places. Read as text; nothing named here is imported, built or run.

noxfile.py's sessions            README.md, .vscode/tasks.json
the image's base and its digest  .devcontainer/, .github/workflows/
versions of locked tools         .pre-commit-config.yaml, .github/workflows/, .devcontainer/
.devcontainer/'s generated files its matrix, by `verbatim.devcontainer`, where that is there
"""

import ast
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.locks import Locked

_CALL = re.compile(r"(?:nox|noxfile\.py)\s+(?:--?[a-rt-z][\w-]*\s+)*(?:-s|--sessions?)[ =]+([\w ]+)")
_APART = re.compile(r'"\s*,\s*(?:"args"\s*:\s*\[\s*)?"')
_DIGEST = re.compile(r"(?P<name>[\w./-]+(?::[\w.-]+)?)@sha256:(?P<digest>[0-9a-f]{64})")
_PINNED = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]*)==([0-9][\w.+!]*)")
_HOOK = re.compile(r"^\s*-?\s*repo:\s*\S*?/([\w.-]+?)(?:\.git)?\s*$")
_REVISION = re.compile(r"^\s*rev:\s*['\"]?v?([\w.+!-]+)")


def of_twins(root: Path, locks: dict[str, Locked]) -> Answer:
    """The repository's own pairs. A file that is not there is said to be not checked."""
    findings, looked_at = [], []
    for what, check in PAIRS.items():
        try:
            found = list(check(root, locks))
        except (OSError, UnicodeDecodeError, SyntaxError) as error:
            found = [unchecked(what, f"unreadable: {error}")]
        findings += found
        if not any(finding.state != "drift" for finding in found):
            looked_at.append(what)
    return answer("twins", ", ".join(looked_at) or "nothing", findings)


def sessions(root: Path) -> list[str]:
    """The noxfile's sessions, in its order."""
    functions = [node for node in ast.parse(_text(root / "noxfile.py")).body if isinstance(node, ast.FunctionDef)]
    return [_named(f) or f.name for f in functions if any("nox.session" in ast.unparse(d) for d in f.decorator_list)]


def _named(function: ast.FunctionDef) -> str:
    """`@nox.session(name="…")`."""
    keywords = [k for d in function.decorator_list if isinstance(d, ast.Call) for k in d.keywords if k.arg == "name"]
    return next(
        (k.value.value for k in keywords if isinstance(k.value, ast.Constant) and isinstance(k.value.value, str)), ""
    )


def _readme(root: Path, _: dict[str, Locked]) -> Iterator[Finding]:
    return _sessions_in(root, root / "README.md")


def _tasks(root: Path, _: dict[str, Locked]) -> Iterator[Finding]:
    return _sessions_in(root, root / ".vscode" / "tasks.json")


def _sessions_in(root: Path, path: Path) -> Iterator[Finding]:
    """Both ways: every session is named in the file, and every session named there exists."""
    what = str(path.relative_to(root))
    if not path.is_file():
        yield unchecked(what, "not there")
        return
    text, known = _text(path), sessions(root)
    if path.suffix == ".json":  # words that stand apart, `"nox", "args": ["-s", "train"]`, read as a command line does
        text = _APART.sub(lambda gap: " " + "\n" * gap[0].count("\n"), text)
    named: dict[str, int] = {}
    for match in _CALL.finditer(text):
        for word in match[1].split(" -")[0].split():
            named.setdefault(word, text.count("\n", 0, match.start()) + 1)
            if path.suffix != ".json":  # in prose, only the first word is sure to be a session
                break
    for name in sorted(named.keys() - set(known)):
        yield Finding(
            what=f"{what}, line {named[name]}", expected="a session of noxfile.py", found=name, mend=f"edit {what}"
        )
    for name in known:
        if name not in named:
            yield Finding(
                what=what, expected=f"`nox -s {name}`, a session of noxfile.py", found="not named", mend=f"edit {what}"
            )


def _base(root: Path, _: dict[str, Locked]) -> Iterator[Finding]:
    """Every base image by digest, and one digest for one name, wherever it is written."""
    dockerfile = root / ".devcontainer" / "Dockerfile"
    if not dockerfile.is_file():
        yield unchecked(".devcontainer/Dockerfile", "not there")
        return
    stages: set[str] = set()
    for number, line in enumerate(_text(dockerfile).splitlines(), 1):
        if match := re.match(r"\s*(?:FROM\s+(?:--\S+\s+)*|ARG\s+BASE=)(\S+)(?:\s+AS\s+(\S+))?", line, re.IGNORECASE):
            if match[1] not in stages and not match[1].startswith("$") and not _DIGEST.search(match[1]):
                yield Finding(
                    what=f".devcontainer/Dockerfile, line {number}",
                    expected="a base with its digest (@sha256:…)",
                    found=match[1],
                    mend="add the digest",
                )
            stages.add(match[2] or "")
    seen: dict[str, tuple[str, str]] = {}
    for path in [dockerfile, *_files(root)]:
        for number, line in enumerate(_text(path).splitlines(), 1):
            for match in _DIGEST.finditer(line):
                where = f"{path.relative_to(root)}, line {number}"
                first = seen.setdefault(match["name"], (match["digest"], where))
                if first[0] != match["digest"]:
                    yield Finding(
                        what=where,
                        expected=f"{match['name']} {first[0][:12]}, as in {first[1]}",
                        found=match["digest"][:12],
                        mend="write the same digest in both",
                    )


def _tools(root: Path, locks: dict[str, Locked]) -> Iterator[Finding]:
    """Versions named outside the locks, of hooks and of installs, against the locks."""
    locked = {name: pin.version for one in locks.values() for name, pin in (one.pins or {}).items()}
    for path in _files(root):
        what, repository = str(path.relative_to(root)), ""
        for number, line in enumerate(_text(path).splitlines(), 1):
            found = _PINNED.findall(line)
            if match := _HOOK.match(line):
                repository = re.sub(r"^mirrors-|-pre-commit$|^pre-commit-", "", match[1])
            elif (match := _REVISION.match(line)) and repository:
                found.append((repository, match[1]))
            for name, version in found:
                expected = locked.get(re.sub(r"[-_.]+", "-", name).lower())
                if expected and expected != version:
                    yield Finding(
                        what=f"{what}, line {number}",
                        expected=f"{name} {expected}, as locked",
                        found=version,
                        mend=f"edit {what}",
                    )
    if not (root / ".pre-commit-config.yaml").is_file():
        yield unchecked(".pre-commit-config.yaml", "not there")


def _devcontainer(root: Path, _: dict[str, Locked]) -> Iterator[Finding]:
    """The generated files, by the module that generates them: `drifted(root)` names those that are not what the matrix gives."""
    if not importlib.util.find_spec("verbatim.devcontainer"):
        yield unchecked(".devcontainer/devcontainer.json", "nothing here generates it")
        return
    for name in importlib.import_module("verbatim.devcontainer").drifted(root):
        yield Finding(
            what=f".devcontainer/{name}",
            expected="what its matrix gives",
            found="another text",
            mend="nox -s devcontainer",
        )


def _files(root: Path) -> list[Path]:
    """Where versions and digests may be written a second time."""
    patterns = (
        ".pre-commit-config.yaml",
        ".github/workflows/*.y*ml",
        ".devcontainer/**/*.json",
        ".devcontainer/Dockerfile",
        ".ci/run",
    )
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


PAIRS: dict[str, Callable[[Path, dict[str, Locked]], Iterator[Finding]]] = {
    "sessions and README.md": _readme,
    "sessions and .vscode/tasks.json": _tasks,
    "base image and its digest": _base,
    "tools and their lock": _tools,
    "devcontainer and its matrix": _devcontainer,
}
