from verbatim.multirun.folder import Folder


def test_what_a_killed_process_was_about_to_write_is_removed(tmp_path):
    first = Folder(tmp_path, ["one"])
    first.write("results.json", {})
    first.close()
    for name in (".results.json.123", "jobs/.0.123"):
        (first.path / name).write_text("half")

    Folder(tmp_path, ["one"]).close()

    assert sorted(path.name for path in first.path.rglob("*")) == [".lock", "jobs", "results.json"]
