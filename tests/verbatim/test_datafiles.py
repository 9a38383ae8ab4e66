"""Archives that carry their data: what goes in, what is refused, and a run made again where the data is not."""

import gzip
import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest
from PIL import Image

from planting import make_project
from verbatim import archive, datafiles, digest, record
from verbatim.errors import VerbatimError
from verbatim.verify import opened, verify


def make_images(folder):
    """Two classes of ten; one image of the first is the same, byte for byte, as another."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (8, 8), (n, n * 2, 5 if label == "cat" else 200)).save(folder / label / f"{n} é.png")
    shutil.copyfile(folder / "cat" / "1 é.png", folder / "cat" / "0 é.png")
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A project, a run on a folder of images, and its archive with them."""
    made = make_project(tmp_path_factory.mktemp("lab") / "project")
    images = make_images(made.root.parent / "images")
    run = made.train("data=folder", "data.size=8", f"paths.folder={images}", "trainer.batch_size=4")
    to = made.root.parent / "run.crate.zip"
    done = made.run("verbatim", "pack", str(run), "--with", "data", "--to", str(to))
    assert done.returncode == 0, done.stderr
    return made, run, images, to


@pytest.fixture
def away(lab):
    """The images are not on this machine while a test lasts."""
    hidden = lab[2].rename(lab[2].with_name("hidden"))
    yield
    hidden.rename(lab[2])


def again(project, *arguments):
    return project.run("verbatim", "reproduce", *map(str, arguments))


def test_a_run_is_made_again_with_the_data_of_its_archive(lab, away):
    project, run, _, packed = lab

    done = again(project, packed)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "data         20 files from the archive, as recorded: not all of them are on this machine" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"identical: {run.name} was reproduced bit for bit")
    assert "data      name: " not in done.stdout, "the data set is named after its folder, which has its name again"
    lost = again(project, run)
    assert lost.returncode == 2, "without the archive there is no data"


def test_the_machines_own_data_is_used_where_it_is_the_recorded_one(lab):
    done = again(lab[0], lab[3])

    assert done.returncode == 0, done.stdout + done.stderr
    assert "from the archive" not in done.stdout


def test_changed_data_of_this_machine_gives_way_to_the_archives_unless_it_is_asked_for(lab, tmp_path):
    project, _, images, packed = lab
    kept = shutil.copytree(images, tmp_path / "kept")
    Image.new("RGB", (8, 8), (77, 0, 0)).save(images / "dog" / "3 é.png")
    try:
        done, asked = again(project, packed), again(project, packed, f"paths.folder={images}")
    finally:
        shutil.rmtree(images)
        kept.rename(images)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "from the archive" in done.stdout
    assert (asked.returncode, "found other data: dog/3 é.png: " in asked.stderr) == (2, True)


def test_the_archive_names_its_data_with_digests_and_holds_equal_files_once(lab):
    _, run, _, packed = lab
    files = record.read(run).data["files"]

    with opened(packed) as folder:
        listed = json.loads((folder / "data.json").read_text())
        page = (folder / "ro-crate-preview.html").read_text()
        graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
        kept = sorted(folder.glob("data-*.bin"))
        assert {path.name: digest.of_file(path)[7:] for path in kept} == {p.name: p.name[5:-4] for p in kept}

    assert len(files) == 20
    assert {name: entry["digest"] for name, entry in listed.items()} == files
    assert listed["cat/0 é.png"] | {"digest": ""} == {"digest": "", "place": "folder", "path": "cat/0 é.png"}
    assert len(kept) == len(set(files.values())) == 19
    assert "Data: cat/0 é.png, cat/1 é.png" in page
    (entity,) = [e for e in graph if e.get("name") == "dog/3 é.png"]
    assert (entity["encodingFormat"], entity["description"]) == ("image/png", "Data: dog/3 é.png")
    assert "data: 20 of 20 files, as recorded" in verify(packed)


def test_data_of_a_cache_goes_back_into_its_folder_of_the_cache(project, tmp_path):
    cache, sums = tmp_path / "cache", []
    (cache / "mnist").mkdir(parents=True)
    for key, name, count in (("train", "train", 40), ("test", "t10k", 10)):
        for kind, shape in (("images", (count, 8, 8)), ("labels", (count,))):
            size = count * (64 if kind == "images" else 1)
            content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            content = gzip.compress(content + bytes(n % 10 for n in range(size)), mtime=0)
            (cache / "mnist" / f"{name}-{kind}-idx{len(shape)}-ubyte.gz").write_bytes(content)
            sums.append(f"data.sha256.{key}_{kind}={hashlib.sha256(content).hexdigest()}")
    run = project.train(
        "data=mnist", "data.url=http://127.0.0.1:9", f"paths.data={cache}", "trainer.batch_size=4", *sums
    )
    to = tmp_path / "run.zip"
    lost = project.run("verbatim", "pack", str(run), "--with", "data", "--to", str(to))
    done = project.run("verbatim", "pack", str(run), "--with", "data", "--to", str(to), f"paths.data={cache}")

    assert (lost.returncode, done.returncode) == (2, 0), lost.stderr + done.stderr
    assert "error: data file t10k-images-idx3-ubyte.gz: expected sha256:" in lost.stderr
    assert "data: 4 of 4 files, as recorded" in verify(to)
    shutil.rmtree(cache)
    made = again(project, to)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "data         4 files from the archive" in made.stdout


def test_data_that_the_lock_brings_is_left_out_and_said_to(project, tmp_path):
    run = project.train()

    done = project.run("verbatim", "pack", str(run), "--with", "data", "--to", str(tmp_path / "x.zip"))

    assert done.returncode == 0, done.stderr
    assert "note         digits.csv.gz: left out, a distribution of the lock brings it" in done.stdout
    assert verify(tmp_path / "x.zip")


# ------------------------------------------------------------------------------------------------------------ refused


def refused(lab, tmp_path, *options, with_="data"):
    to = tmp_path / "x.zip"
    done = lab[0].run("verbatim", "pack", str(lab[1]), "--with", with_, "--to", str(to), *options)
    assert (done.returncode, to.exists()) == (2, False)
    return done.stderr


def test_beyond_the_limit_the_file_is_named(lab, tmp_path):
    said = refused(lab, tmp_path, "--limit", "0")

    assert said.startswith(f"error: {lab[2]}/cat/0 é.png: expected at most 0 MiB of data in an archive, found 0.0 MiB")


def test_data_that_is_gone_is_named(lab, tmp_path, away):
    said = refused(lab, tmp_path)

    assert said.startswith("error: data file cat/0 é.png: expected sha256:")
    assert "next: say where it lies: nox -s pack -- <run> --with data paths.<name>=<folder>" in said


def test_data_that_was_changed_since_is_named(lab, tmp_path):
    other = shutil.copytree(lab[2], tmp_path / "other")
    Image.new("RGB", (8, 8), (77, 0, 0)).save(other / "dog" / "3 é.png")

    said = refused(lab, tmp_path, f"paths.folder={other}")

    assert said.startswith("error: data file dog/3 é.png: expected sha256:")
    assert f" at {other / 'dog' / '3 é.png'}" in said


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a//b", "a/./b", "model.pkl", "keys/id_rsa", ".env"])
def test_names_that_lead_elsewhere_secrets_and_pickles_stay_here(lab, planted, tmp_path, name):
    def plant(run, _):
        run.code, run.lock = record.read(lab[1]).code, record.read(lab[1]).lock
        run.data["files"] = {name: "sha256:" + "0" * 64}

    said = refused((lab[0], planted("b", plant)), tmp_path)

    assert name in said
    assert "Traceback" not in said


def rebuilt(packed, tmp_path, change):
    """The archive made anew, in its canonical form, from contents that went through `change(folder, listed)`."""
    with opened(packed) as folder:
        listed = json.loads((folder / "data.json").read_text())
        change(folder, listed)
        (folder / "data.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
        (folder / archive.SUMS).unlink()
        archive.write(tmp_path / "rebuilt.zip", sorted(folder.iterdir()))
    with pytest.raises(VerbatimError) as error:
        verify(tmp_path / "rebuilt.zip")
    return str(error.value)


NAME = "dog/3 é.png"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": f"../../{NAME}"}, "expected a path that stays in its place"),
        ({"path": f"/etc/{NAME}"}, "expected a path that stays in its place"),
        ({"path": f"a//{NAME}"}, "expected a path that stays in its place"),
        ({"path": "other.png"}, "expected a path that stays in its place"),
        ({"path": 7}, "expected a path that stays in its place"),
        ({"place": "../x"}, "expected a path that stays in its place"),
        ({"place": None}, "expected a path that stays in its place"),
        ({"digest": "sha256:" + "0" * 64}, "expected a data file of the record"),
        ({"digest": None}, "expected a data file of the record"),
        ({"more": 1}, "expected digest, place and path"),
    ],
)
def test_an_entry_that_is_wrong_is_refused_by_name(lab, tmp_path, wrong, said):
    text = rebuilt(lab[3], tmp_path, lambda _, listed: listed[NAME].update(wrong))

    assert f"data.json, {NAME}: {said}" in text


def test_data_that_is_changed_missing_or_more_is_refused_by_name(lab, tmp_path):
    def packed(listed):
        return f"data-{listed[NAME]['digest'][7:]}.bin"

    def flip(folder, listed):
        path = folder / packed(listed)
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    assert f"({NAME}): expected sha256:" in rebuilt(lab[3], tmp_path, flip)
    assert "no such file" in rebuilt(lab[3], tmp_path, lambda folder, listed: (folder / packed(listed)).unlink())
    assert "found one that it does not name" in rebuilt(lab[3], tmp_path, lambda _, listed: listed.pop(NAME))
    assert "expected a data file of the record" in rebuilt(
        lab[3], tmp_path, lambda _, listed: listed.update({"x.png": listed.pop(NAME)})
    )


def test_two_files_at_one_path_are_refused(lab, tmp_path):
    with opened(lab[3]) as folder:
        files = datafiles.read(folder, record.read(folder))
        file = files[NAME]
        clash = {NAME: file, "again": file}

        with pytest.raises(VerbatimError, match=r"data\.json, again: expected to put it at"):
            datafiles.lay_out(clash, folder, tmp_path / "out", {})


@pytest.mark.parametrize("place", ["/data/..", "..", "/", "", None, "a/../..", 7])
def test_what_a_place_was_called_leads_nowhere_else(lab, tmp_path, place):
    with opened(lab[3]) as folder:
        files = datafiles.read(folder, record.read(folder))

        (made,) = datafiles.lay_out(files, folder, tmp_path / "out", {"folder": place}).values()

    assert (tmp_path / "out" / "folder") in Path(made).resolve().parents
