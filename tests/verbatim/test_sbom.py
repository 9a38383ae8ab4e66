"""What is shipped: every pin, with who requires it; the same bytes each time; what is not known is named."""

import json
import shutil

import pytest

from conftest import ROOT, python
from verbatim import lock, sbom
from verbatim.errors import VerbatimError


@pytest.fixture(scope="module")
def made():
    return {variant: sbom.of_lock(ROOT, variant) for variant in lock.VARIANTS}


@pytest.mark.parametrize("variant", lock.VARIANTS)
def test_every_pin_is_listed_with_its_hashes_and_what_it_requires(made, variant):
    pins = {pin.name: pin for pin in lock.read(ROOT / "requirements" / f"{variant}.txt")}
    components = {c["name"]: c for c in made[variant]["components"]}
    refs = {c["bom-ref"]: name for name, c in components.items()}
    links = {link["ref"]: link["dependsOn"] for link in made[variant]["dependencies"]}

    assert components.keys() == pins.keys()
    for name, pin in pins.items():
        assert [h["content"] for h in components[name]["hashes"]] == [h.removeprefix("sha256:") for h in pin.hashes]
        required_by = {refs[one] for one, many in links.items() if one in refs and components[name]["bom-ref"] in many}
        assert required_by == {lock.normalise(via.partition("[")[0]) for via in pin.via if not via.startswith("-")}


def test_the_same_lock_gives_the_same_bytes(made, tmp_path, capsys):
    assert sbom.main(["cpu", "--into", str(tmp_path / "a")], ROOT) == 0
    assert sbom.main(["cpu", "--into", str(tmp_path / "b")], ROOT) == 0

    one, other = ((tmp_path / folder / "cpu.cdx.json").read_bytes() for folder in "ab")
    assert one == other
    assert json.loads(one) == made["cpu"]


def test_another_version_or_licence_gives_another_serial_number(made):
    def serial(components):
        return sbom.bom(ROOT, "cpu", components, {}, [], {})["serialNumber"]

    numbers = {serial([sbom.component("pypi", "a", v, licence)]) for v, licence in (("1", ""), ("2", ""), ("1", "MIT"))}
    assert len(numbers) == 3


def test_licences_are_those_of_what_is_installed_and_what_is_not_is_named(made, tmp_path, capsys):
    by_name = {c["name"]: sbom.licence_of(c) for c in made["cuda"]["components"]}
    sbom.main(["cuda", "--into", str(tmp_path), "--licences"], ROOT)
    says = capsys.readouterr().out

    assert by_name["numpy"].startswith("BSD-3-Clause")
    assert by_name["hydra-core"] == "MIT"
    for name, licence in by_name.items():
        if not licence:
            assert f"{name} " in says.partition("UNKNOWN, as")[2]
    assert all(name in says for name in by_name)


def test_a_lock_edited_by_hand_is_not_listed(tmp_path):
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    path = tmp_path / "requirements" / "cpu.txt"
    path.write_text(path.read_text().replace("numpy==", "numpy==1", 1))

    with pytest.raises(VerbatimError, match="it was edited by hand"):
        sbom.of_lock(tmp_path, "cpu")


def test_what_is_written_is_valid_by_cyclonedxs_own_library(tmp_path, capsys):
    if not (ROOT / ".nox" / "audit").exists():
        pytest.skip("CycloneDX's library is not here: nox -s sbom -- --validate brings it")
    assert sbom.main(["cpu", "cuda", "--into", str(tmp_path), "--validate"], ROOT) == 0

    path = tmp_path / "cpu.cdx.json"
    spoiled = json.loads(path.read_text())
    spoiled["components"][0]["type"] = "thing"
    path.write_text(json.dumps(spoiled))
    with pytest.raises(VerbatimError, match="expected CycloneDX 1.6"):
        sbom.validate(ROOT, path)


def test_an_image_without_an_engine_is_refused(tmp_path):
    done = python("-m", "verbatim", "sbom", "verbatim:nothing", DOCKER_HOST=f"unix://{tmp_path}/none.sock")

    assert done.returncode == 2
    assert done.stderr.startswith("error: verbatim:nothing: expected an engine, and Python in the image, found ")
