"What people read: errors of other libraries in one line, text from data as text in HTML and in figures, any terminal."
import subprocess
import sys

import pytest

from layerscale_nb.core import LayerscaleError, human_pair, one_line


class Mute(RuntimeError):
    "An error that says nothing, as `MemoryError()` or `assert` do."


@pytest.mark.parametrize('said, last, line', [
    (MemoryError(), False, 'MemoryError'), (Mute('\n \n'), False, 'Mute'), (ValueError('  one\ntwo'), False, 'one'),
    ('one\ntwo\n\n', True, 'two'), ('', True, 'no further words'), (ValueError('x'*500), False, 'x'*120), (SystemExit(), True, 'SystemExit')])
def test_one_line_of_any_error(said, last, line):
    assert one_line(said, last) == line


def test_an_error_without_text_is_a_sentence(tmp_path, monkeypatch):
    "Each place that quotes another library's error, given one that says nothing."
    import queue

    import pandas as pd
    import torch
    import ultralytics.data.utils as ultralytics_data
    import ultralytics.nn.tasks as tasks

    from layerscale_nb import calibrate, data, ddp, lookup, members, report, runtime, train, trial, worker
    def mute(*_, **__): raise Mute()
    monkeypatch.setattr(pd, 'read_csv', lambda *_, **__: (_ for _ in ()).throw(ValueError()))
    (tmp_path/'results.csv').write_text('a'), (tmp_path/'kept.csv').write_text('a'), (tmp_path/'state.pt').write_text('a')
    with pytest.raises(LayerscaleError, match='results.csv: not readable as a table .ValueError'): report.read_results(tmp_path)
    with pytest.raises(LayerscaleError, match='kept.csv: not readable as a table .ValueError'): trial.read_kept(tmp_path)
    for owner, name in ((torch, 'load'), (ultralytics_data, 'check_det_dataset'), (tasks, 'DetectionModel'), (calibrate, 'measure_calls'), (members, 'check_member')):
        monkeypatch.setattr(owner, name, mute)
    with pytest.raises(LayerscaleError, match='this state cannot be read .Mute'): train.resume(type('S', (), dict(device='cpu')), tmp_path)
    with pytest.raises(LayerscaleError, match='could not be downloaded .Mute'): data.named_set('nowhere.yaml')
    with pytest.raises(LayerscaleError, match='Ultralytics cannot build this model .Mute'): lookup.by_ultralytics(dict(backbone=[[-1, 1, 'Conv', [8]]], head=[]), 'x.yaml', None, (1, 1, 8))
    with pytest.raises(LayerscaleError, match='cannot be measured in fp32: Mute. Try'): calibrate.calibrate('cpu')
    class Broken(torch.nn.Module):
        forward = mute
    with pytest.raises(LayerscaleError, match='fails at 8x8, batch 1, float32: Mute. Try'): runtime.time_module(Broken(), (8, 8), torch.device('cpu'))
    dead = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(3)']); dead.wait(); (tmp_path/'log0.txt').write_text('')
    with pytest.raises(LayerscaleError, match='process 0 of 1 failed .status 3.: no further words'): ddp.wait_for_all([dead], tmp_path)
    told = []
    worker.do_job(mute, {}, queue.Queue(), told.append)
    assert told == [dict(kind='error', text='Mute: no further words')]
    members.own_row('yolov4-tiny', tmp_path)
    assert '"said": "Mute: no further words"' in (tmp_path/'row.json').read_text()


def test_no_module_takes_the_first_line_by_itself(repo):
    "`str(e).splitlines()[0]` fails for an error without text; `one_line` does not."
    for p in (repo/'layerscale_nb').glob('*.py'):
        assert 'str(e).splitlines()' not in p.read_text() and 'strip().splitlines()[' not in p.read_text(), p.name
