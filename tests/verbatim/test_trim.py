from verbatim.trim import trim

RECORD = """torch/__init__.py,,
torch/include/a/b.h,,
torch/test/basic,,
torch/bin/torch_shm_manager,,
torch/bin/protoc,,
torch/testing/__init__.py,,
scipy/linalg/tests/test_a.py,,
tests/kept.py,,
torch-1.dist-info/RECORD,,
"""


def test_what_no_run_can_use_goes_and_the_record_still_lists_what_is_there(tmp_path):
    for line in RECORD.splitlines():
        path = tmp_path / line.removesuffix(",,")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    (tmp_path / "torch-1.dist-info/RECORD").write_text(RECORD)

    freed_bytes = trim(tmp_path)

    kept = [line.removesuffix(",,") for line in (tmp_path / "torch-1.dist-info/RECORD").read_text().splitlines()]
    assert freed_bytes == 4 * 5
    assert sorted(kept) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert kept == [
        "torch/__init__.py", "torch/bin/torch_shm_manager", "torch/testing/__init__.py", "tests/kept.py", "torch-1.dist-info/RECORD",
    ]  # fmt: skip
    assert not (tmp_path / "torch/include").exists()
    assert not (tmp_path / "scipy").exists()
