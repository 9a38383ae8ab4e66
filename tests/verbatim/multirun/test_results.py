from verbatim.multirun import results


def test_the_last_epoch_is_that_of_all(tmp_path):
    (tmp_path / "epochs.csv").write_text("epoch,loss\n0,3.0\n1,2.0\n2,1.0\n")

    assert results.epochs(tmp_path, last=1) == results.epochs(tmp_path)[-1:] == [{"epoch": 2.0, "loss": 1.0}]
    (tmp_path / "epochs.csv").write_text("epoch,loss\n")
    assert results.epochs(tmp_path, last=1) == []
