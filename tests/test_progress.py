from unetkit.progress import SILENT, Progress


def test_silence_takes_every_call_and_says_nothing(capsys):
    watcher: Progress = SILENT
    watcher.start("tiles", total=2)
    watcher.advance()
    watcher.advance(2, status="loss 0.3")
    watcher.note("A sentence.")
    assert capsys.readouterr() == ("", "")
