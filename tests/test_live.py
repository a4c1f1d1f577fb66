"The live explorer without a browser: widgets set and clicked from code, with a stand-in for the worker and with the real one."
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from layerscale_nb.core import LayerscaleError
from layerscale_nb.live.retrain import live_explorer
from layerscale_nb.live.panel import choice, make_panel, pump, wait
from layerscale_nb.core import DoesNotFit
from layerscale_nb.live.trial import Trial, check_trial, look_at, read_kept, trial_call
from layerscale_nb.live.trainer import Trainer, train_or_halve
from layerscale_nb.live.worker import Worker
from layerscale_nb.nets.yolo import Yolo
from layerscale_nb.nets.layer import cost

TINY = dict(d=0.1, w=0.1, epochs=3, n_train=16, n_val=6, device='cpu')
ROW = dict(epoch=1, loss=5., map50=0.1, map50_95=0.05, lr=0.003, train_s=3.)


class Stub:
    "A worker that only says what a test lets it say."
    def __init__(self): self.inbox, self.number, self.jobs, self.wake = deque(), 0, [], None
    def send(self, job): self.number += 1; self.jobs.append(job); return self.number
    def stop(self): self.jobs.append(None)
    def says(self, kind, **m): self.inbox.append(dict(m, kind=kind, number=self.number))
    def trains(self, p, step=32, row=ROW):
        self.says('start', run='abcd0123', trial=vars(choice(p)), device='this CPU', epochs=20)
        self.says('progress', epoch=1, epochs=20, step=step, steps=640, loss=5., map50=0.1, seconds=3., eta_s=57., row=row)
        pump(p)


@pytest.fixture
def p(tmp_path): return make_panel(Trial(), ('car', 'cyclist'), 256, 64, (96, 320), tmp_path, Stub())


@pytest.fixture(scope='module')
def worker(tmp_path_factory):
    "One child process for most tests: it starts, imports and measures once."
    w = Worker('layerscale_nb.live.trainer:Trainer', tmp_path_factory.mktemp('worker')/'log.txt')
    yield w
    w.close()


@pytest.fixture
def real(tmp_path, worker):
    "Explorers on 16 images that really train."
    def make(own=None, **kw):
        t = check_trial(Trial(**TINY | kw))
        return make_panel(t, *look_at(t), tmp_path, own or worker)
    yield make
    worker.stop(); worker.inbox.clear()


def text(p): return p.ui.status.value


def card(p, name): return p.ui.numbers.value.split(f'>{name}</span>')[1].split('<b style="font-size:16px">')[1].split('</b>')[0]


def test_a_slider_answers_at_once_and_exactly(p):
    start = time.perf_counter()
    for v in (0.3, 0.5, 0.25, 0.5): p.ui.width.value = v
    assert (time.perf_counter() - start)/4 < 0.1
    c = cost(Yolo(d=0.33, w=0.5, nc=2), (96, 320)).total
    assert card(p, 'macs') == f'{c.macs/1e9:.2f} G' and card(p, 'width') == '0.500' and card(p, 'step') == 'timing …'
    p.worker.says('speed', cost=vars(c), batch=8, ms=120.); pump(p)
    assert card(p, 'step') == '120 ms' and card(p, 'training') == '77 s'
    p.ui.epochs.value = 10
    assert card(p, 'training') == '38 s'
    assert not any(j and j['train'] for j in p.worker.jobs)


def test_sliders_hold_distinct_networks_only(p):
    from layerscale_nb.nets.yolo import identity
    for s, k in ((p.ui.depth, 'd'), (p.ui.width, 'w')):
        nets = [identity(Yolo(nc=2, **{k: v})) for _, v in s.options]
        assert len({str(n) for n in nets}) == len(nets) > 7


def test_the_printed_call_makes_the_same_panel(tmp_path):
    p = live_explorer(out=tmp_path, d=0.35, imgsz='160x64', seed=3, batch=4).panel
    p.ui.width.value = 0.2
    call = re.search('<code>(.*)</code>', p.ui.call.value)[1]
    q = eval(call, dict(live_explorer=live_explorer)).panel
    assert choice(q) == choice(p) and q.out == p.out and q.ui.call.value == p.ui.call.value
    for x in (p, q): x.worker.close()


def test_live_replaces_the_run_and_drops_what_it_still_says(p):
    p.ui.train.click(); p.worker.trains(p)
    p.ui.depth.value = 1.0
    assert len([j for j in p.worker.jobs if j['train']]) == 1, 'without live a slider only predicts'
    old = p.number; p.ui.live.value = True; p.ui.depth.value = 0.5
    assert p.worker.jobs[-1]['trial']['d'] == 0.5 and p.number > old and p.row is None
    p.worker.inbox.append(dict(kind='error', number=old, text='late')); pump(p)
    assert 'late' not in text(p) and p.training


def test_buttons_say_why_not(p):
    p.ui.stop.click(); assert 'Nothing is training' in text(p)
    p.ui.keep.click(); assert 'nothing to keep' in text(p)
    p.ui.train.click(); p.ui.train.click(); assert 'already training' in text(p)
    assert p.ui.train.disabled and not p.ui.stop.disabled and p.ui.keep.disabled
    p.worker.trains(p)
    assert not p.ui.keep.disabled


def test_an_error_of_the_run_stands_on_the_panel(p):
    p.ui.train.click(); p.worker.trains(p)
    p.worker.says('error', text='the loss became nan in epoch 2, step 3. Lower lr.'); pump(p)
    assert 'the loss became nan' in text(p) and not p.training and not p.ui.train.disabled


def test_kept_rows_survive_and_are_replaced_not_doubled(p):
    p.ui.train.click(); p.worker.trains(p); p.ui.keep.click()
    p.worker.says('progress', epoch=2, epochs=20, step=64, steps=640, loss=4., map50=0.2, seconds=6., eta_s=54., row=ROW | dict(epoch=2, map50=0.2)); pump(p)
    p.ui.keep.click()
    again = make_panel(Trial(), p.names, 256, 64, (96, 320), p.out, Stub())
    assert [r['map50'] for r in again.kept] == [0.2] and '0.200' in again.ui.table.value
    other = make_panel(Trial(data='elsewhere'), p.names, 256, 64, (96, 320), p.out, Stub())
    assert other.kept == [], 'rows of other data are not compared'
    row = read_kept(p.out)[0]
    assert row['command'] == trial_call(Trial()) and {'versions', 'device', 'seed', 'date'} <= set(row)


def test_a_full_disk_loses_no_kept_row(p, monkeypatch):
    p.ui.train.click(); p.worker.trains(p); p.ui.keep.click()
    monkeypatch.setattr(os, 'replace', lambda *a: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    p.ui.keep.click()
    assert 'No space left' in text(p) and len(read_kept(p.out)) == 1


def test_a_broken_kept_file_is_a_sentence(tmp_path):
    (tmp_path/'kept.csv').write_text('run,map50\n"x')
    with pytest.raises(LayerscaleError, match='kept.csv'): live_explorer(out=tmp_path)


@pytest.mark.parametrize('kw, words', [(dict(epochs=0), 'epochs is 0'), (dict(w=-1), r'w \(width\) is -1'), (dict(imgsz='320x100'), 'multiple of the stride'), (dict(data='no/where'), 'no such folder'),
                                       (dict(widht=1), "unknown key 'widht'"), (dict(batch=2.5), 'batch is 2.5'), (dict(seed='x'), "seed is 'x'")])
def test_settings_that_make_no_sense(kw, words, tmp_path):
    with pytest.raises(LayerscaleError, match=words): live_explorer(out=tmp_path, **kw)


def test_train_keep_and_come_back(real, tmp_path):
    "The real worker: a whole run, its folder, its row, and the same run again gives the same numbers."
    p = real()
    p.ui.train.click()
    assert wait(p, 90) and 'Finished' in text(p), text(p)
    assert p.ui.bar.value == 1 and len(p.maps) >= 1 and p.points and p.ui.images[0].value[:2] == b'\xff\xd8'
    p.ui.keep.click()
    folder = tmp_path/p.facts['run']
    assert sorted(x.name for x in folder.iterdir()) == ['best.pt', 'epochs.csv', 'trial.json']
    epochs = pd.read_csv(folder/'epochs.csv')
    assert list(epochs.epoch) == [1, 2, 3] and epochs.map50.iloc[-1] == read_kept(tmp_path)[0]['map50']
    p.ui.train.click(); wait(p, 60)
    again = pd.read_csv(folder/'epochs.csv')
    assert list(again.loss) == list(epochs.loss) and list(again.map50[1:].dropna()) == list(epochs.map50[1:].dropna()) and again.map50.notna().any()


def test_stopped_before_the_second_run_began(p):
    "The buttons answer although no 'start' came, and the first run's speed is not taken for the second's."
    u = p.ui
    u.train.click(); p.worker.trains(p); p.worker.says('done'); pump(p)
    points = len(p.points)
    u.train.click(); u.stop.click(); p.worker.says('stopped'); pump(p)
    assert not p.training and not u.train.disabled and u.stop.disabled and 'before its first validation' in text(p) and len(p.points) == points


def test_a_message_that_cannot_be_read_leaves_the_buttons_true(p):
    p.points = [None]*4  # measured already, so the end of a run asks for nothing more
    p.ui.train.click(); p.worker.says('done'); p.worker.says('progress', step='?')
    with pytest.raises(Exception): pump(p)
    assert not p.ui.train.disabled and p.ui.stop.disabled


def test_a_job_is_not_lost_on_a_child_that_is_leaving(tmp_path, monkeypatch):
    "The child ends, without an error, after the job was sent and before it was read: another child does it."
    (tmp_path/'leaving.py').write_text("""
import os
from pathlib import Path
def work():
    def f(job):
        if not (flag := Path(__file__).with_suffix('.flag')).exists(): flag.touch(); os._exit(0)
        yield dict(kind='start', job=job)
    return f
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    w = Worker('leaving:work', tmp_path/'log')
    w.send(dict(a=1)); end = time.monotonic() + 30
    while not any(m['kind'] == 'done' for m in w.inbox) and time.monotonic() < end: time.sleep(.05)
    assert [(m['kind'], m['number']) for m in w.inbox] == [('start', 1), ('done', 1)] and w.inbox[0]['job'] == dict(a=1)
    w.close()


def test_an_idle_child_leaves_at_once_and_the_next_job_has_its_own(tmp_path, monkeypatch):
    (tmp_path/'slow_to_leave.py').write_text("import atexit, time\natexit.register(time.sleep, 5.)\ndef work():\n    def f(job): yield dict(kind='start')\n    return f\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    w = Worker('slow_to_leave:work', tmp_path/'log', idle_s=.3)
    for number in (1, 2):
        w.send({}); end = time.monotonic() + 30
        while not any(m['kind'] == 'done' and m['number'] == number for m in w.inbox) and time.monotonic() < end: time.sleep(.02)
        assert w.answered == number
        end = time.monotonic() + 15  # it is deaf from .3 s on, and takes 5 s to leave: the second job is sent to a new one or waits for it
        if number == 2:
            while w.alive and time.monotonic() < end: time.sleep(.05)
            assert not w.alive
        else: time.sleep(1.)
    w.close()


def test_kept_rows_keep_what_a_reader_adds(tmp_path):
    from layerscale_nb.live.trial import keep_row
    row = dict(run='00000001', map50=.1, macs=5, data='2011', n_train=4, n_val=2)
    keep_row(tmp_path, row)
    t = pd.read_csv(tmp_path/'kept.csv', dtype=str); t['mine'] = 'good'; t.to_csv(tmp_path/'kept.csv', index=False)
    rows = keep_row(tmp_path, row | dict(run='00000002'))
    assert [r['data'] for r in read_kept(tmp_path)] == ['2011', '2011'] and [r.get('mine') for r in rows] == ['good', ''] and 'mine' in pd.read_csv(tmp_path/'kept.csv')


def test_stop_and_live_act_within_a_step(real):
    p = real(epochs=100)
    p.ui.train.click(); assert wait(p, 60, lambda p: len(p.curve) > 2)
    p.ui.live.value = True; start = time.monotonic(); p.ui.width.value = 0.125
    assert wait(p, 30, lambda p: p.run and p.run.w == 0.125 and p.curve)
    print(f'first step of the new network after {time.monotonic() - start:.2f} s')
    p.ui.stop.click(); start = time.monotonic()
    assert wait(p, 30) and 'Stopped' in text(p)
    assert time.monotonic() - start < 10  # half a second on a quiet machine, see tests/bench/live.py
    p.ui.keep.click()
    assert len(read_kept(p.out)) == (p.row is not None)


def test_two_explorers_do_not_train_in_one_folder(real, tmp_path):
    other = Worker('layerscale_nb.live.trainer:Trainer', tmp_path/'other.txt')
    p, q = real(epochs=100), real(other, epochs=100, seed=1)
    p.ui.train.click(); assert wait(p, 60, lambda p: p.curve)
    q.ui.train.click(); assert wait(q, 60) and 'another explorer is already training' in text(q)
    assert p.training
    other.close()


def test_a_killed_child_is_a_sentence_and_train_starts_another(real):
    p = real(epochs=100)
    p.ui.train.click(); assert wait(p, 60, lambda p: p.maps)
    os.kill(p.worker.child.pid, signal.SIGKILL)
    assert wait(p, 30) and 'was killed' in text(p)
    folder = p.out/p.facts['run']; before = pd.read_csv(folder/'epochs.csv')
    assert len(before) >= 1
    p.ui.train.click(); assert wait(p, 60, lambda p: p.curve)
    assert pd.read_csv(folder/'epochs.csv').train_s[0] == before.train_s[0], 'the killed run goes on from its last state'


def test_no_child_outlives_a_killed_kernel(tmp_path):
    code = f'''import time
from layerscale_nb.live.retrain import live_explorer
from layerscale_nb.live.panel import wait
p = live_explorer(out={str(tmp_path)!r}, **{TINY | dict(epochs=100)!r}).panel
p.ui.train.click(); wait(p, 60, lambda p: p.curve)
print(p.worker.child.pid, flush=True); time.sleep(60)'''
    kernel = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    child = int(kernel.stdout.readline())
    os.killpg(kernel.pid, signal.SIGINT); time.sleep(0.5)   # an interrupt of the group ends this parent, as it has no kernel's handler
    kernel.kill(); kernel.wait()
    end = time.time() + 5
    while Path(f'/proc/{child}').exists() and Path(f'/proc/{child}/stat').read_text().split(')')[-1].split()[0] != 'Z':
        assert time.time() < end, 'the child outlived its kernel'
        time.sleep(0.05)


def test_an_interrupt_of_the_group_does_not_end_the_child(tmp_path):
    (tmp_path/'beat.py').write_text('import time\ndef make():\n    def work(job):\n        while True:\n            yield dict(kind="beat"); time.sleep(0.01)\n    return work\n')
    sys.path.insert(0, str(tmp_path))
    try:
        w = Worker('beat:make', tmp_path/'log.txt'); w.send({})
        end = time.time() + 20
        while not w.inbox and time.time() < end: time.sleep(0.01)
        os.kill(w.child.pid, signal.SIGINT); time.sleep(0.2); w.inbox.clear(); time.sleep(0.2)
        assert w.inbox and w.alive
    finally: w.close(); sys.path.remove(str(tmp_path))
    assert not w.alive


class Parts:
    "A `Setting`-like stand-in for what `train_or_halve` looks at."
    size = (96, 320)
    class device: type = 'cpu'


@pytest.mark.parametrize('error', [DoesNotFit('out of memory at batch 8 and 320x96. Use a smaller batch or image size; finished epochs are kept.'), DoesNotFit('yolov8 needs about 9 GB of memory to train, 4 GB are free.')], ids=['while it trains', 'foreseen'])
@pytest.mark.parametrize('fits_at, kinds', [(4, ['note', 'done']), (2, ['note', 'error'])])
def test_out_of_memory_halves_the_batch_once(monkeypatch, fits_at, kinds, error):
    import layerscale_nb.live.trainer as trainer
    def fake(st, t, out):
        if t.batch > fits_at: raise error
        yield dict(kind='done', batch=t.batch)
    monkeypatch.setattr(trainer, 'train_trial', fake)
    heard = []
    try:
        for m in train_or_halve(Parts, Trial(), 'out'): heard.append(m)
    except LayerscaleError as e: heard.append(dict(kind='error', text=str(e)))
    assert [m['kind'] for m in heard] == kinds
    assert 'batch 8: started again with batch 4' in heard[0]['text']
    assert kinds[-1] == 'done' or 'out of memory at batch 4' in heard[-1]['text']


def test_memory_too_small_for_the_set(monkeypatch):
    import layerscale_nb.detect.augment as augment
    monkeypatch.setattr(augment, 'free_bytes', lambda: 1e6)
    job = dict(trial=asdict(Trial(n_train=8, n_val=4)), out='out', train=False)
    with pytest.raises(LayerscaleError, match='need .* of memory'): next(Trainer()(job))


def kitti(folder, n=6):
    "A KITTI folder of drawn scenes."
    from PIL import Image
    from layerscale_nb.detect.datasets import roadscenes
    ds = roadscenes(n, 1)
    for kind in ('image_2', 'label_2'): (folder/'training'/kind).mkdir(parents=True)
    for i, x in enumerate(ds.train):
        Image.fromarray(x.image).save(folder/'training'/'image_2'/f'{i:06d}.png')
        (folder/'training'/'label_2'/f'{i:06d}.txt').write_text(''.join(f'Car 0 0 0 {b[0]} {b[1]} {b[2]} {b[3]} 1 1 1 0 0 10 0\n' for b in x.boxes))
    return folder


def test_data_removed_meanwhile(tmp_path):
    "What is in memory goes on; another resolution has to read again, and says what is missing."
    import shutil
    data, work = kitti(tmp_path/'kitti'), Trainer()
    work.probes = []
    t = Trial(**{k: v for k, v in TINY.items() if not k.startswith('n_')} | dict(data=str(data)))
    job = lambda **kw: dict(trial=vars(t) | kw, out=str(tmp_path/'out'), train=False)
    assert [m['kind'] for m in work(job()) if m] == ['ready']
    shutil.rmtree(data/'training')
    assert [m['kind'] for m in work(job()) if m] == ['ready']
    with pytest.raises(LayerscaleError, match='none of .* images could be read'): list(work(job(imgsz=(64, 160))))


def test_a_kitti_folder_is_looked_at_without_decoding(kitti_root, monkeypatch):
    import layerscale_nb.detect.images, layerscale_nb.detect.store
    for m in (layerscale_nb.detect.images, layerscale_nb.detect.store): monkeypatch.setattr(m, 'read_image', lambda p: pytest.fail(f'{p} was decoded'))
    names, n_train, n_val, size = look_at(Trial(data=str(kitti_root), n_val=32))
    assert 'cyclist' in names and n_train > 300 and n_val == 32 and size == (96, 320)


def test_a_loss_that_breaks_is_a_sentence(monkeypatch, tmp_path):
    import layerscale_nb.detect.train as train
    import torch
    work = Trainer(); work.probes = []
    monkeypatch.setattr(train, 'train_step', lambda s, b: torch.tensor(float('nan')))
    with pytest.raises(LayerscaleError, match='the loss became nan'): list(work(dict(trial=vars(Trial(**TINY)), out=str(tmp_path), train=True)))


def test_kernel_stays_light():
    "The panel draws and predicts without torch: the kernel has its memory and its start-up time for itself."
    code = 'import sys; from layerscale_nb.live.retrain import live_explorer; from layerscale_nb.live.worker import Worker; Worker.send = lambda self, job: 1; live_explorer(); print("torch" in sys.modules, "ultralytics" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split() == ['False', 'False']
