import io
import tarfile

import pytest

from verbatim.image_digest import Content, differences, files

STARTS = {"Env": ["A=1"], "Entrypoint": ["python"], "Cmd": None, "User": "1000", "WorkingDir": "/"}


def exported(*members, time=0):
    """An export as the engine streams it: (name, data or link target or None for a folder, mode)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data, mode in members:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, time
            if data is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    value = made.getvalue()
    return [value[at : at + 700] for at in range(0, len(value), 700)]  # chunks end anywhere


def content(*members, time=0, **starts):
    listed, stamp = files(exported(*members, time=time))
    return Content(files=listed, starts=STARTS | starts, stamp=stamp)


ONE = (("etc", None, 0o755), ("etc/a", b"a", 0o644), ("etc/b", "a", 0o777))


def test_order_and_times_do_not_count():
    assert content(*ONE).digest == content(*reversed(ONE), time=9).digest
    assert differences(content(*ONE), content(*reversed(ONE), time=9)) == []


def test_what_the_engine_makes_in_every_container_does_not_count():
    own = ((".dockerenv", b"", 0o644), ("etc/hosts", b"x", 0o644), ("dev/console", b"", 0o600), ("proc", None, 0o755))

    assert content(*ONE, *own).digest == content(*ONE).digest


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ((ONE[0], ("etc/a", b"b", 0o644), ONE[2]), "/etc/a: sha256 ca978112ca1b and 3e23e8160039"),
        ((ONE[0], ("etc/a", b"a", 0o755), ONE[2]), "/etc/a: mode 0644 and 0755"),
        ((ONE[0], ONE[1], ("etc/b", "c", 0o777)), "/etc/b: link target a and c"),
        ((ONE[0], ONE[1]), "/etc/b: only in the first"),
        ((*ONE, ("etc/c", b"", 0o644)), "/etc/c: only in the second"),
    ],
)
def test_any_other_change_counts_and_is_named(changed, says):
    assert content(*changed).digest != content(*ONE).digest
    assert differences(content(*ONE), content(*changed)) == [says]


def test_how_a_container_starts_counts_and_comes_first():
    one, other = content(*ONE), content(*ONE[:2], User="root")

    assert one.digest != other.digest
    assert differences(one, other) == ["User: 1000 and root", "/etc/b: only in the first"]


def test_the_stamp_of_the_environment_is_read_on_the_way():
    assert content(("opt/venv/verbatim.json", b'{"python": "3.11.16"}', 0o644)).stamp == {"python": "3.11.16"}
