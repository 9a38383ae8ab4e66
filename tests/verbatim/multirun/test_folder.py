from verbatim.multirun.folder import Folder


def test_what_a_killed_process_was_about_to_write_is_removed(tmp_path):
    first = Folder(tmp_path, {"command": ["one"]})
    first.write("results.json", {})
    first.close()
    for name in (".results.json.123", "jobs/.0.123"):
        (first.path / name).write_text("half")

    Folder(tmp_path, {"command": ["one"]}).close()

    assert sorted(path.name for path in first.path.rglob("*")) == [".lock", "jobs", "results.json", "sweep.json"]


def test_a_sweep_of_the_same_command_with_other_code_is_named(tmp_path):
    first = Folder(tmp_path, {"command": ["seed=0,1"], "code": "a", "lock": "b"})
    first.close()
    other = Folder(tmp_path, {"command": ["seed=0,2"], "code": "c", "lock": "b"})
    other.close()

    second = Folder(tmp_path, {"command": ["seed=0,1"], "code": "c", "lock": "b"})

    assert second.other == (first.path, "code")
    assert (first.other, other.other) == (None, None)
    second.close()
