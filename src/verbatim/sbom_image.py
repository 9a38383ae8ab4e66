"""What an image holds, told by the image itself: Debian's packages and Python's distributions. Nothing of it is changed or kept."""

import contextlib
import json
from pathlib import Path
from typing import Any

from verbatim import licences, lock, sbom
from verbatim.errors import VerbatimError

# Runs in the image, by its own Python, with no network: prints what lies there, and looks at nothing else.
ASK = """
import json, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
read = lambda path: path.read_text(errors="replace") if path.is_file() else ""
dists = {d.name: read(d / "METADATA").partition("\\n\\n")[0] for d in sorted(site.glob("*.dist-info"))}
status = read(pathlib.Path("/var/lib/dpkg/status"))
names = [line[9:] for line in status.splitlines() if line.startswith("Package: ")]
papers = {name: read(pathlib.Path("/usr/share/doc") / name / "copyright") for name in names}
print(json.dumps({"dists": dists, "status": status, "copyright": papers}))
"""


def of_image(root: Path, name: str) -> dict[str, Any]:
    answer, labels = _ask(name)
    components = []
    for metadata in answer["dists"].values():
        fields = dict(line.split(": ", 1) for line in metadata.splitlines() if line.startswith(("Name: ", "Version: ")))
        components.append(sbom.component("pypi", lock.normalise(fields.get("Name", "")), fields.get("Version", ""), licences.of_metadata(metadata)))  # fmt: skip
    for block in filter(None, answer["status"].split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            licence = licences.of_copyright(answer["copyright"].get(fields["Package"], ""))
            components.append(sbom.component("deb/debian", fields["Package"], fields["Version"], licence))
    direct = [component["bom-ref"] for component in components]
    says = {
        key.removeprefix("verbatim."): value
        for key, value in labels.items()
        if key in ("verbatim.lock", "verbatim.variant", "verbatim.target")
    }
    return sbom.bom(root, name.replace("/", "-").replace(":", "-"), components, {}, direct, says)


def _ask(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        with contextlib.closing(docker.from_env()) as client:
            image = client.images.get(name)
            said = client.containers.run(image.id, ["-c", ASK], entrypoint="python3", network_mode="none", remove=True)
    except ImageNotFound:
        raise VerbatimError(
            name, expected="cpu, cuda, or an image of the local engine", found="neither", then="nox -s build"
        ) from None
    except DockerException as error:
        raise VerbatimError(
            name, expected="an engine, and Python in the image", found=str(error)[:300], then="nox -s doctor"
        ) from None
    return json.loads(said), image.labels or {}
