"What happens when a run is killed, interrupted, starved of disk, or its loss breaks."
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest

from layerscale_nb.core import LayerscaleError, write_atomic
from layerscale_nb.study.runs import open_setting, run_study, train_run
from layerscale_nb.detect.recipe import Recipe

ARGS = ['study', '--base', '1', '0.125', '512', '--n-train', '32', '--n-val', '8', '--epochs', '4', '--variants', 'baseline', 'depth_033', '--device', 'cpu']
TIMED = ('latency', 'throughput', 'train_s', 'date', 'command', 'note')


def layerscale(out, **kw):
    return subprocess.Popen([sys.executable, '-c', 'import sys; from layerscale_nb.cli import main; sys.exit(main())', *ARGS, '--out', str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kw)  # a shell's background job would ignore Ctrl-C


def epochs_done(run): return len((run/'epochs.csv').read_text().splitlines()) - 1 if (run/'epochs.csv').exists() else 0


def wait_for(ready, child, seconds=120):
    end = time.time() + seconds
    while not ready():
        assert child.poll() is None, f'the study ended early:\n{child.stdout.read()}'
        assert time.time() < end, 'the study did not get there in time'
        time.sleep(0.02)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A study that nobody disturbed."
    out = tmp_path_factory.mktemp('whole')
    child = layerscale(out)
    text = child.communicate(timeout=300)[0]
    assert child.returncode == 0, text
    return out, text


def untimed(out):
    df = pd.read_csv(out/'results.csv')
    return df[[c for c in df if not c.startswith(TIMED)]]


@pytest.mark.prove
def test_killed_three_times_gives_the_same_table(whole, tmp_path):
    points = [lambda: epochs_done(tmp_path/'baseline_seed0') >= 1,
              lambda: epochs_done(tmp_path/'baseline_seed0') >= 3,
              lambda: epochs_done(tmp_path/'depth_033_seed0') >= 2]
    for ready in points:
        child = layerscale(tmp_path)
        wait_for(ready, child)
        os.kill(child.pid, signal.SIGKILL); child.wait()
        for f in tmp_path.rglob('*.json'): json.loads(f.read_text())  # no half-written file
    child = layerscale(tmp_path); text = child.communicate(timeout=300)[0]
    assert child.returncode == 0, text
    assert 'done before' in text
    pd.testing.assert_frame_equal(untimed(tmp_path), untimed(whole[0]))
    rows = pd.read_csv(tmp_path/'depth_033_seed0'/'epochs.csv')
    assert list(rows.epoch) == [1, 2, 3, 4]
    pd.testing.assert_frame_equal(rows.drop(columns='train_s'), pd.read_csv(whole[0]/'depth_033_seed0'/'epochs.csv').drop(columns='train_s'))


def test_ctrl_c_ends_cleanly(tmp_path):
    child = layerscale(tmp_path)
    wait_for(lambda: (tmp_path/'baseline_seed0'/'row.json').exists() and epochs_done(tmp_path/'depth_033_seed0') >= 1, child)
    child.send_signal(signal.SIGINT)
    text = child.communicate(timeout=60)[0]
    assert child.returncode == 130 and 'Traceback' not in text and '1 finished run(s)' in text, text
    assert list(pd.read_csv(tmp_path/'results.csv').variant) == ['baseline']


def test_results_come_back_from_their_runs(whole, tmp_path):
    "Without results.csv, as after a kill between two writes: the same command writes it again."
    import shutil
    shutil.copytree(whole[0], tmp_path/'s'); (tmp_path/'s'/'results.csv').unlink()
    child = layerscale(tmp_path/'s'); text = child.communicate(timeout=300)[0]
    assert child.returncode == 0 and text.count('done before') == 2 and len(pd.read_csv(tmp_path/'s'/'results.csv')) == 2, text


def test_another_recipe_is_another_study(tiny, tmp_path):
    train_run(open_setting(replace(tiny, recipe=Recipe(epochs=1))), tiny.variants[1], 0, tmp_path/'depth_033_seed0').finish().row
    with pytest.raises(LayerscaleError, match='holds a study with another recipe .depth_033_seed0.'): next(run_study(open_setting(replace(tiny, recipe=Recipe(epochs=2))), tmp_path))


def test_a_study_of_the_baseline_alone_has_a_report(whole, tmp_path):
    from layerscale_nb.study.report import write_report
    df = pd.read_csv(whole[0]/'results.csv').query('variant == "baseline"')
    for rows in (df, pd.concat([df, df.assign(seed=1)]), pd.concat([pd.read_csv(whole[0]/'results.csv'), df.assign(seed=1)])):
        rows.to_csv(tmp_path/'results.csv', index=False)
        assert 'Leaderboard' in write_report(tmp_path).read_text()


def test_screen_is_quiet(whole):
    out, text = whole
    lines = [l for l in text.splitlines() if l]
    assert sum(l.startswith('[') for l in lines) == 2 and len(lines) < 12, text
    assert 'depth_033' in text and (out/'report.html').stat().st_size > 1e5
    log = (out/'log.txt').read_text()
    assert log.count('"epoch": ') == 8 and log.count('"status": "done"') == 2


def test_row_is_complete(whole):
    row = pd.read_csv(whole[0]/'results.csv').iloc[1]
    need = '''variant seed depth width realised_depth realised_width base data imgsz params macs gflops model_mb map50 map50_95 precision recall ap50_car
              ap_cyclist latency_ms latency_ms_q1 latency_ms_q3 throughput_img_s throughput_img_s_q1 train_s device versions config'''.split()
    assert not row[need].isna().any()
    assert row.gflops == pytest.approx(2*row.macs/1e9) and row.latency_ms_q1 <= row.latency_ms <= row.latency_ms_q3


def test_nan_loss_marks_the_run_and_goes_on(tiny, tmp_path, monkeypatch):
    import layerscale_nb.detect.train as train
    step, calls = train.train_step, []
    def broken(s, batch):
        loss = step(s, batch); calls.append(1)
        return loss*float('nan') if s.net.name == 'baseline' and len(calls) > 2 else loss
    monkeypatch.setattr(train, 'train_step', broken)
    rows = [e.row for e in run_study(open_setting(tiny), tmp_path) if e.kind in ('done', 'failed')]
    assert [r['status'] for r in rows] == ['failed', 'done']
    assert 'the loss became nan in epoch 1' in rows[0]['error'] and 'Lower lr' in rows[0]['error']
    assert list(pd.read_csv(tmp_path/'results.csv').status) == ['failed', 'done']


def test_out_of_memory_is_a_sentence(tiny, tmp_path, monkeypatch):
    import layerscale_nb.detect.train as train
    def full(s, batch): raise RuntimeError('CUDA out of memory. Tried to allocate 20.00 GiB')
    monkeypatch.setattr(train, 'train_step', full)
    failed = [(e.run, e.row['error']) for e in run_study(open_setting(tiny), tmp_path) if e.kind == 'failed']
    sentence = 'out of memory at batch 8 and 320x96. Use a smaller batch or image size; finished epochs are kept.'
    assert failed == [('baseline_seed0', sentence), ('depth_033_seed0', sentence)]
    assert list(pd.read_csv(tmp_path/'results.csv').status) == ['failed', 'failed']


def test_other_settings_are_not_overwritten(tiny, tmp_path):
    st = open_setting(tiny)
    train_run(st, tiny.variants[1], 0, tmp_path/'r').finish().row
    before = (tmp_path/'r'/'row.json').read_text()
    with pytest.raises(LayerscaleError, match='other settings .recipe differ.'):
        train_run(open_setting(replace(tiny, recipe=Recipe(epochs=5))), tiny.variants[1], 0, tmp_path/'r').finish().row
    assert (tmp_path/'r'/'row.json').read_text() == before


def test_damaged_state_is_a_sentence(tiny, tmp_path):
    for p in train_run(open_setting(tiny), tiny.variants[1], 0, tmp_path):
        if p.row: break
    (tmp_path/'state.pt').write_bytes(b'rubbish')
    with pytest.raises(LayerscaleError, match='state.pt: this state cannot be read'): train_run(open_setting(tiny), tiny.variants[1], 0, tmp_path).finish().row


def test_state_with_code_in_it_is_refused(tiny, tmp_path):
    import torch
    class Evil:
        def __reduce__(self): return (os.mkdir, (str(tmp_path/'pwned'),))
    for p in train_run(open_setting(tiny), tiny.variants[1], 0, tmp_path):
        if p.row: break
    torch.save(Evil(), tmp_path/'state.pt')
    with pytest.raises(LayerscaleError, match='cannot be read'): train_run(open_setting(tiny), tiny.variants[1], 0, tmp_path).finish().row
    assert not (tmp_path/'pwned').exists()


def test_full_disk_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path/'a.txt', 'old')
    def full(file): file.write(b'ne'); raise OSError(28, 'No space left on device')
    with pytest.raises(LayerscaleError, match='No space left on device. Free some space'): write_atomic(tmp_path/'a.txt', full)
    assert (tmp_path/'a.txt').read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['a.txt']


def test_a_disk_that_fills_while_torch_writes(tmp_path):
    import torch
    class Full(io.BytesIO):
        def write(self, b): raise OSError(28, 'No space left on device')
    def save(file): torch.save({'a': torch.zeros(1000)}, Full())
    with pytest.raises(LayerscaleError, match='a.pt: No space left on device. Free some space'): write_atomic(tmp_path/'a.pt', save)
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_before_training(tiny, tmp_path, monkeypatch):
    import collections, shutil
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: collections.namedtuple('u', 'total used free')(1, 1, 1000))
    sentence = 'the study needs about [0-9.]+ MB, 1 kB are free'
    with pytest.raises(LayerscaleError, match=sentence): next(run_study(open_setting(tiny), tmp_path))


def test_cuda_asked_for_and_absent():
    import torch
    from layerscale_nb.timing.measure import pick_device
    if torch.cuda.is_available(): pytest.skip('this machine has a CUDA GPU')
    with pytest.raises(LayerscaleError, match='torch sees 0 CUDA GPUs here. Use --device cpu'): pick_device('cuda')


def test_seeds_differ_and_repeat(tiny, tmp_path):
    st = open_setting(replace(tiny, recipe=Recipe(epochs=1)))
    rows = [train_run(st, tiny.variants[1], seed, tmp_path/name).finish().row for seed, name in ((0, 'a'), (0, 'b'), (1, 'c'))]
    loss = [pd.read_csv(tmp_path/n/'epochs.csv').loss[0] for n in 'abc']
    assert loss[0] == loss[1] != loss[2] and rows[0]['config'] == rows[1]['config'] != rows[2]['config']
