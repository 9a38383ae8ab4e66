"""Archives: what another lab gets, and every way in which one could be wrong."""

import io
import json
import re
import shutil
import stat
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from planting import Project, git, make_project
from verbatim import archive, crate, record
from verbatim.errors import VerbatimError
from verbatim.verify import opened, verify


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A project with one run, which is packed."""
    made = make_project(tmp_path_factory.mktemp("lab") / "project")
    run = made.train()
    to = made.root.parent / "run.crate.zip"
    done = made.run("verbatim", "pack", str(run), "--to", str(to))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"check it: nox -s verify -- {to}"
    return made, run, to


@pytest.fixture
def packed(lab, tmp_path):
    return Path(shutil.copyfile(lab[2], tmp_path / "run.crate.zip"))


def refused(path):
    with pytest.raises(VerbatimError) as error:
        verify(path)
    return str(error.value)


def test_another_lab_checks_and_repeats_a_run_with_nothing_of_this_history(lab, packed, tmp_path):
    """In a repository that has none of its objects, at another commit, with other code."""
    project, name = lab[0], lab[1].name
    tree = record.read(project.runs / name).code["tree"]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project.root, elsewhere, ignore=shutil.ignore_patterns(".git", "runs", "*.log"))
    (elsewhere / "src" / "experiment" / "models.py").write_text("")
    for words in (["init", "-q"], ["config", "user.name", "x"], ["config", "user.email", "x@example.org"],
                  ["add", "--all"], ["commit", "-q", "-m", "other"]):  # fmt: skip
        git(elsewhere, *words)
    other = Project(elsewhere)
    state = other.state()

    checked = other.run("verbatim", "verify", str(packed))
    done = other.run("verbatim", "reproduce", str(packed))

    assert checked.returncode == 0, checked.stderr
    assert f"code: git tree {tree}, all of it" in checked.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"identical: {name} was reproduced bit for bit")
    assert (other.state(), other.worktrees()) == (state, 1)


def test_an_archive_is_the_same_whenever_it_is_packed(lab, packed):
    again = packed.with_name("again.zip")
    lab[0].run("verbatim", "pack", str(lab[1]), "--to", str(again))

    with zipfile.ZipFile(packed) as a, zipfile.ZipFile(again) as b:
        for name in set(a.namelist()) - {"code.bundle", archive.SUMS, "ro-crate-metadata.json"}:
            assert a.read(name) == b.read(name), name


def test_weights_come_along_when_asked_for(lab, packed):
    to = packed.with_name("with.zip")
    done = lab[0].run("verbatim", "pack", str(lab[1]), "--to", str(to), "--with", "weights")

    assert done.returncode == 0
    with zipfile.ZipFile(packed) as without, zipfile.ZipFile(to) as with_:
        assert set(with_.namelist()) - set(without.namelist()) == {"last.safetensors", "model.safetensors"}
    assert verify(to)


def test_any_changed_byte_is_detected(packed):
    content = packed.read_bytes()
    size = len(content)
    places = {*range(200), *range(200, size, size // 150), *range(size - 200, size)}
    broken = packed.with_name("broken.zip")
    for place in sorted(places):
        broken.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "broken.zip" in refused(broken), place
    for cut in (0, 1, size // 2, size - 1):
        broken.write_bytes(content[:cut])
        refused(broken)
    broken.write_bytes(content + b"\0")
    refused(broken)
    broken.write_bytes(b"\0" + content)
    refused(broken)


def rebuilt(packed, change):
    """The archive made anew, in its canonical form, from contents that went through `change(folder)`."""
    with opened(packed) as folder:
        change(folder)
        (folder / archive.SUMS).unlink()
        path = packed.with_name("rebuilt.zip")
        archive.write(path, sorted(folder.iterdir()))
    return path


def test_contents_that_fit_each_other_must_fit_the_record_as_well(packed):
    def flip(name, at):
        def change(folder):
            content = bytearray((folder / name).read_bytes())
            content[at] ^= 1
            (folder / name).write_bytes(content)

        return change

    assert verify(rebuilt(packed, lambda folder: None))
    assert "trace.bin" in refused(rebuilt(packed, flip("trace.bin", 200)))
    assert "config.yaml" in refused(rebuilt(packed, flip("config.yaml", 3)))
    assert "lock.txt" in refused(rebuilt(packed, lambda f: (f / "lock.txt").write_text("")))
    assert "code.bundle" in refused(rebuilt(packed, flip("code.bundle", -30)))
    assert "code.bundle" in refused(rebuilt(packed, lambda f: (f / "code.bundle").write_text("")))
    assert "record.json" in refused(rebuilt(packed, lambda f: (f / "record.json").unlink()))


@pytest.mark.parametrize("tree", ["../../heads/main", "", "x:refs/heads/main", "--all"])
def test_a_tree_that_is_no_name_of_one_never_reaches_git(packed, tree):
    def change(folder):
        run = record.read(folder)
        run.code["tree"] = tree
        record.write(folder, run)

    assert "expected the name of a git tree as its code" in refused(rebuilt(packed, change))


def zipped(packed, name, *, mode=stat.S_IFREG | 0o644, data=b"x", compression=zipfile.ZIP_STORED):
    path = packed.with_name("bad.zip")
    shutil.copyfile(packed, path)
    entry = zipfile.ZipInfo(name, archive.EPOCH)
    entry.external_attr, entry.compress_type = mode << 16, compression
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(entry, data)
    return path


@pytest.mark.parametrize(
    "name", ["../x.txt", "/etc/x.txt", "a/b.txt", "..", ".ssh.txt", "a\\b.txt", "x\n.txt", "C:x.txt", "-x.txt"]
)
def test_no_name_leads_out_of_the_folder(packed, name):
    assert "a name that leads elsewhere, or is no plain file name" in refused(zipped(packed, name))


def test_links_folders_pickles_and_bombs_are_refused(packed):
    assert "a link or a folder" in refused(zipped(packed, "link.txt", mode=stat.S_IFLNK | 0o777, data=b"/etc/passwd"))
    assert "a compressed or an encrypted file" in refused(
        zipped(packed, "bomb.txt", data=bytes(10**7), compression=zipfile.ZIP_DEFLATED)
    )
    assert "a kind of file that no run has" in refused(zipped(packed, "model.pkl"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(packed, "record.json")
    assert "a second file of this name" in refused(path)
    assert "expected a line for it in SHA256SUMS, found sha256:" in refused(zipped(packed, "more.txt"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", bytes(5000)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)

    assert refused(path).startswith(f"{path}: expected a whole archive of a run, found ")


def token(*parts):
    return "".join(parts)  # in pieces, so that this file does not look like what it plants


SECRETS = {
    "configs/.env": "A=1",
    "deploy/id_ed25519": "x",
    "server.pem": "x",
    "src/gcp-credentials.json": "{}",
    "src/model.pkl": "x",
    "src/old.ckpt": "x",
    "src/settings.py": token('KEY = "AKIA', 'ABCDEFGHIJKLMNOP"'),
    "notes.md": token("-----BEGIN RSA ", "PRIVATE KEY-----"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_and_pickles_are_refused_by_name(project, name):
    (project.root / name).parent.mkdir(exist_ok=True)
    (project.root / name).write_text(SECRETS[name])
    run = project.train()

    done = project.run("verbatim", "pack", str(run), "--to", str(project.root.parent / "x.zip"))

    assert done.returncode == 2
    assert re.match(
        rf"error: {re.escape(name)}: expected code to give away, found (what looks like|a pickle)", done.stderr
    )
    assert not (project.root.parent / "x.zip").exists()
    assert "refs/verbatim/packing" not in git(project.root, "for-each-ref")


class Checked(HTMLParser):
    """Balanced tags, no script, nothing from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        assert tag != "script"
        if tag not in ("meta", "br", "path", "line", "rect", "polyline", "circle"):
            self.open.append(tag)
        self.links += [value for key, value in attributes if key in ("href", "src")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_links_to_files_of_the_archive(packed):
    with zipfile.ZipFile(packed) as opened_:
        page = opened_.read("ro-crate-preview.html").decode()
        names = opened_.namelist()
    parser = Checked()
    parser.feed(page)

    assert parser.open == []
    assert set(parser.links) <= set(names)
    assert "optimizer.lr" in page


def test_the_page_of_a_hostile_record_shows_text(base):
    run = record.read(base)
    run.metrics["<script>alert(1)</script>"] = "<img src=x onerror=alert(1)>"

    page = crate.page(run, ["<b>.txt"], "", {})

    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page


def test_the_crate_names_its_files_and_its_run(packed, base):
    """Checked with rocrate-validator 0.13 as well (profile process-run-crate-0.5), which needs the network: all that is required
    holds; of what is recommended, the program's URL, a publisher and the author's affiliation are not known and not made up."""
    with zipfile.ZipFile(packed) as opened_:
        graph = json.load(io.BytesIO(opened_.read("ro-crate-metadata.json")))["@graph"]
        names = set(opened_.namelist())
    by_id = {entity["@id"]: entity for entity in graph}

    assert len(by_id) == len(graph)
    assert {part["@id"] for part in by_id["./"]["hasPart"]} == names - {
        "SHA256SUMS", "ro-crate-metadata.json", "ro-crate-preview.html",
    }  # fmt: skip
    referred = re.findall(r'"@id": "([^"]+)"', json.dumps(graph))
    assert {r for r in referred if not r.startswith("https://w3id.org")} <= set(by_id)
    run = by_id["#run"]
    assert run["@type"] == "CreateAction"
    assert run["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert {"@id": "trace.bin"} in run["result"]
    assert {"@id": "code.bundle"} in run["object"]
    assert by_id[by_id["./"]["license"]["@id"]]["name"] == "MIT License"
    assert by_id[by_id["./"]["author"]["@id"]]["name"] == "somebody"
    assert by_id[run["instrument"]["@id"]]["name"] == "-m experiment.train"


def test_a_licence_and_an_author_that_are_not_known_are_not_made_up(project, tmp_path):
    (project.root / "LICENSE").unlink()
    git(project.root, "config", "--unset", "user.name")
    run, to = project.train(), tmp_path / "x.zip"

    done = project.run("verbatim", "pack", str(run), "--to", str(to), GIT_CONFIG_GLOBAL="/dev/null", HOME=str(tmp_path))

    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(to) as opened_:
        (root,) = [e for e in json.loads(opened_.read("ro-crate-metadata.json"))["@graph"] if e["@id"] == "./"]
        assert crate.LICENCE not in opened_.namelist()
    assert (root["license"], "author" in root) == ("None is stated", False)
