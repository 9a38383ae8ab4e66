"""What is shipped, as CycloneDX 1.6: one file for each lock, and one for an image, the same bytes each time from the same parts.

No time and no random number goes in: the serial number is made of what is listed. https://cyclonedx.org/docs/1.6/json
"""

import argparse
import json
import os
import re
import subprocess
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from verbatim import digest, environment, licences, lock, record
from verbatim.errors import VerbatimError

FOLDER = "sbom"
MOST = 12  # licences that are counted on the screen


def of_lock(root: Path, variant: str) -> dict[str, Any]:
    """The pins of a lock, who requires whom, and the licences that what is installed states."""
    pins = lock.read_sealed(root / "requirements" / f"{variant}.txt")
    known = licences.of_distributions(environment.site_packages(environment.place(root)[0]))
    components = [component("pypi", pin.name, pin.version, known.get(pin.name, ""), pin.hashes) for pin in pins]
    refs = {pin.name: ref("pypi", pin.name, pin.version) for pin in pins}
    needs: dict[str, list[str]] = {name: [] for name in refs.values()}
    direct = []
    for pin in pins:
        for via in pin.via:
            if via.startswith("-"):
                direct.append(refs[pin.name])
            else:
                needs[refs[lock.normalise(via.partition("[")[0])]].append(refs[pin.name])
    return bom(root, variant, components, needs, direct, {"lock": lock.digest(pins), "variant": variant})


def ref(kind: str, name: str, version: str) -> str:
    """https://github.com/package-url/purl-spec"""
    return f"pkg:{kind}/{name}@{version.replace('+', '%2B').replace(':', '%3A').replace('~', '%7E')}"


def component(kind: str, name: str, version: str, licence: str, hashes: Iterable[str] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "library", "bom-ref": ref(kind, name, version), "name": name, "version": version, "purl": ref(kind, name, version)}  # fmt: skip
    if licence in licences.SPDX.values():
        made["licenses"] = [{"license": {"id": licence}}]
    elif kind == "pypi" and re.search(" AND | OR | WITH ", licence):
        made["licenses"] = [{"expression": licence}]
    elif licence:
        made["licenses"] = [{"license": {"name": licence}}]
    if hashes:  # of every file that the lock allows: one for each platform
        made["hashes"] = [{"alg": "SHA-256", "content": value.removeprefix("sha256:")} for value in sorted(hashes)]
    return made


def bom(
    root: Path,
    name: str,
    components: list[dict[str, Any]],
    needs: dict[str, list[str]],
    direct: list[str],
    says: dict[str, str],
) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    main = {
        "type": "application", "bom-ref": f"{project['name']}-{name}", "name": f"{project['name']}-{name}", "version": project["version"],
        "properties": [{"name": f"verbatim:{key}", "value": value} for key, value in sorted(says.items())],
    }  # fmt: skip
    links = [{"ref": main["bom-ref"], "dependsOn": sorted(set(direct))}]
    links += [{"ref": one, "dependsOn": sorted(set(many))} for one, many in sorted(needs.items())]
    components = sorted(components, key=lambda c: str(c["bom-ref"]))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, digest.of_value([main, components, links]))
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {"component": main}, "components": components, "dependencies": links,
    }  # fmt: skip


def licence_of(made: dict[str, Any]) -> str:
    """As a component states it; empty where it is not known."""
    stated = made.get("licenses", [{}])[0]
    return str(
        stated.get("expression") or stated.get("license", {}).get("id") or stated.get("license", {}).get("name") or ""
    )


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s sbom --", description="What is shipped, as CycloneDX, and its licences."
    )
    parser.add_argument("what", nargs="*", default=list(lock.VARIANTS), metavar="WHAT", help="cpu, cuda, or the name of an image (default: cpu cuda)")  # fmt: skip
    parser.add_argument(
        "--into", type=Path, default=root / FOLDER, metavar="FOLDER", help=f"where to write (default: {FOLDER})"
    )
    parser.add_argument("--licences", action="store_true", help="list every package with its licence")
    parser.add_argument("--validate", action="store_true", help="against CycloneDX's own schema, by its own library")
    options = parser.parse_args(arguments)
    for what in options.what:
        if what in lock.VARIANTS:
            made, name = of_lock(root, what), what
        else:
            from verbatim import sbom_image

            made, name = sbom_image.of_image(root, what), what.replace("/", "-").replace(":", "-")
        path = options.into / f"{name}.cdx.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            record.write_atomically(path, (json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise VerbatimError(
                path, expected="a folder that can be written to", found=error.strerror, then="add --into FOLDER"
            ) from None
        _show(Path(os.path.relpath(path, root)), made, options.licences)
        if options.validate:
            validate(root, path)
    return 0


def validate(root: Path, path: Path) -> None:
    """By CycloneDX's library, in the audit environment. What it says is the error; where it is not there, that is one too."""
    code = "import sys; from cyclonedx.schema import SchemaVersion; from cyclonedx.validation.json import JsonStrictValidator as V\n"
    code += "error = V(SchemaVersion.V1_6).validate_str(open(sys.argv[1], encoding='utf-8').read())\n"
    code += "sys.exit(str(error)[:600] if error else 0)"
    python = root / ".nox" / "audit" / "bin" / "python"
    if not python.exists():
        raise VerbatimError(
            python, expected="CycloneDX's library", found="none", then="nox -s sbom -- --validate, which brings it"
        )
    done = subprocess.run([str(python), "-c", code, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VerbatimError(
            path, expected="CycloneDX 1.6", found=done.stderr.strip()[-600:], then="report it, with the file"
        )
    print("  valid CycloneDX 1.6")


def _show(path: Path, made: dict[str, Any], everything: bool) -> None:
    found = {f"{c['name']} {c['version']}": licence_of(c) for c in made["components"]}
    print(f"{path}: {len(found)} packages, {made['serialNumber'].removeprefix('urn:uuid:')}")
    if everything:
        width = max(map(len, found), default=0)
        print(*(f"  {name:<{width}}  {licence or 'UNKNOWN'}" for name, licence in found.items()), sep="\n")
    else:
        print(
            *(
                f"  {count:>4}  {licence[:100]}"
                for licence, count in Counter(filter(None, found.values())).most_common()
            ),
            sep="\n",
        )
    if unknown := [name for name, licence in found.items() if not licence]:
        print(f"  {len(unknown):>4}  UNKNOWN, as it is not installed here or states none: {', '.join(unknown)}")
