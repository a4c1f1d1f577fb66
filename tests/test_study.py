"What a study does with damaged files, with several processes, and with a run that is left in between."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

from layerscale_nb.core import LayerscaleError, write_atomic
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.detect.train import fit, save_state
from layerscale_nb.study.report import read_results, write_report
from layerscale_nb.study.engine import choose_jobs
from layerscale_nb.study.runs import StudyFolder, open_setting, run_study
from layerscale_nb.study.screen import study_status
from layerscale_nb.table import locked, read_rows

TIMED = ('latency', 'throughput', 'train_s', 'date', 'command', 'note')


def untimed(folder): return pd.DataFrame(read_rows(folder/'results.csv')).filter(regex=f'^(?!{"|".join(TIMED)})').sort_values('variant', ignore_index=True)


@pytest.fixture(scope='module')
def setting(tiny): return open_setting(replace(tiny, recipe=Recipe(epochs=1)))


@pytest.fixture(scope='module')
def done(setting, tmp_path_factory):
    "A finished study of two runs."
    out = tmp_path_factory.mktemp('done')
    events = [e for e in run_study(setting, out) if e.kind != 'step']
    assert [e.kind for e in events] == ['start', 'trained']*2 + ['done']*2
    return out


DAMAGES = {'empty': b'', 'cut': b'{"variant": "base', 'null': b'null', 'not UTF-8': b'\xff\xfe\x00{', 'a list': b'[1, 2]'}


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('name', ['config.json', 'row.json'])
def test_a_damaged_file_costs_its_run_a_sentence(setting, done, tmp_path, name, damage):
    shutil.copytree(done, tmp_path/'s')
    path = tmp_path/'s'/'baseline_seed0'/name
    path.write_bytes(DAMAGES[damage])
    events = list(run_study(setting, tmp_path/'s'))
    assert [(e.kind, e.run) for e in events] == [('failed', 'baseline_seed0'), ('skip', 'depth_033_seed0')]
    said = events[0].row['error']
    assert str(path) in said and f'Delete {path.parent} to train this run again.' in said and len(said.splitlines()) == 1
    assert path.read_bytes() == DAMAGES[damage], 'what is damaged is left alone'
    assert 'depth_033' in list(pd.read_csv(tmp_path/'s'/'results.csv').variant)
    state = {r['run']: r['state'] for r in study_status(tmp_path/'s')}
    assert state['depth_033_seed0'] == 'done' and (name == 'config.json' or str(path) in state['baseline_seed0'])


@pytest.mark.parametrize('damage', ['empty', 'cut'])
def test_damaged_matches_leave_a_report(done, tmp_path, damage):
    shutil.copytree(done, tmp_path/'s')
    path = tmp_path/'s'/'depth_033_seed0'/'matches.npz'
    assert 'cannot be read' not in (whole := write_report(tmp_path/'s').read_text(encoding='utf-8')) and '<p class=key></p>' not in whole and '<p class="key"></p>' not in whole
    path.write_bytes(DAMAGES[damage])
    page = write_report(tmp_path/'s').read_text(encoding='utf-8')
    assert 'these matches cannot be read' in page and 'depth_033_seed0' in page and 'Leaderboard' in page


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_table_is_rebuilt_from_the_runs(setting, done, tmp_path, damage):
    shutil.copytree(done, tmp_path/'s')
    path = tmp_path/'s'/'results.csv'
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(LayerscaleError, match='results.csv'): read_results(tmp_path/'s')
    list(run_study(setting, tmp_path/'s'))
    pd.testing.assert_frame_equal(untimed(tmp_path/'s'), untimed(done))


def test_a_lost_checkpoint_is_said(setting, done, tmp_path):
    shutil.copytree(done, tmp_path/'s')
    (tmp_path/'s'/'baseline_seed0'/'best.pt').unlink()
    first, second = run_study(setting, tmp_path/'s')
    assert first.kind == 'skip' and first.note == f'{tmp_path/"s"/"baseline_seed0"/"best.pt"} is gone: delete {tmp_path/"s"/"baseline_seed0"} to train it again'
    assert second.note == ''


def test_a_flipped_bit_in_a_state_is_seen(setting, tmp_path):
    net = StudyFolder(setting, tmp_path).net('baseline_seed0')
    def begin(): return fit(net, setting.train, setting.val, Recipe(epochs=2), 0, setting.device, tmp_path)
    save_state(begin(), tmp_path)
    whole = (tmp_path/'state.pt').read_bytes()
    assert begin().step == 0
    for share in (0.2, 0.5, 0.8):  # in the weights, their average, the optimizer
        data = bytearray(whole)
        data[int(share*len(data))] ^= 1
        (tmp_path/'state.pt').write_bytes(data)
        with pytest.raises(LayerscaleError, match='state.pt: this state cannot be read .* Delete it to start the run again'): begin()


def test_a_damaged_state_stops_its_run_only(setting, tmp_path):
    write_atomic(tmp_path/'baseline_seed0'/'state.pt', b'rubbish')
    events = {e.run: e for e in run_study(setting, tmp_path) if e.kind in ('failed', 'done')}
    assert events['baseline_seed0'].kind == 'failed' and 'state.pt: this state cannot be read' in events['baseline_seed0'].row['error']
    assert events['depth_033_seed0'].kind == 'done'


def test_a_run_left_in_an_epoch_goes_on_from_its_step(setting, tmp_path):
    "Stopped twice, in a training step and in a validation: the same weights and rows as a run that nobody disturbed."
    net, recipe = StudyFolder(setting, tmp_path).net('depth_033_seed0'), Recipe(epochs=3, batch=8)
    def begin(folder): return fit(net, setting.train, setting.val, recipe, 0, setting.device, folder)
    whole = begin(tmp_path/'whole').finish()
    for stop in (2, 6):
        for p in (run := begin(tmp_path/'parts')):
            if p.step == stop: break
        del p
        assert begin(tmp_path/'parts').step == run.step == stop
    for p in (run := begin(tmp_path/'parts')):
        if p.step == run.epoch*4 and p.row is None and len(run.rows) < run.epoch: break  # while it validates
    last = begin(tmp_path/'parts').finish()
    rows = [[{k: v for k, v in r.items() if k != 'train_s'} for r in run.rows] for run in (last, whole)]
    assert repr(rows[0]) == repr(rows[1])  # an epoch that is not validated holds nan, which equals nothing
    for a, b in zip(last.average.state_dict().values(), whole.average.state_dict().values()): assert torch.equal(a, b)


def test_left_overs_of_killed_processes_are_swept(setting, done, tmp_path):
    shutil.copytree(done, tmp_path/'s')
    dead = [tmp_path/'s'/f'.results.csv.{2**22 + 1}.part', tmp_path/'s'/f'.frames.{2**22 + 2}.part', tmp_path/'s'/'baseline_seed0'/f'.row.json.{2**22 + 3}.part']
    mine = tmp_path/'s'/f'.x.{os.getpid()}.part'
    for p in (*dead, mine): p.write_bytes(b'half')
    list(run_study(setting, tmp_path/'s'))
    assert not any(p.exists() for p in dead) and mine.exists()


def test_side_by_side_gives_the_same_table(setting, done, tmp_path):
    "Two processes with one thread each, and one process with one thread: the same scores to the last digit."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try: list(run_study(setting, tmp_path/'one'))
    finally: torch.set_num_threads(before)
    write_atomic(tmp_path/'two'/'study.json', json.dumps(dict(runs=[], threads=1)))
    kinds = [(e.kind, e.run) for e in run_study(setting, tmp_path/'two', jobs=2) if e.kind in ('trained', 'done')]
    assert sorted(kinds) == sorted((k, f'{v}_seed0') for k in ('trained', 'done') for v in ('baseline', 'depth_033'))
    pd.testing.assert_frame_equal(untimed(tmp_path/'two'), untimed(tmp_path/'one'))
    assert not list((tmp_path/'two').glob('.*.part')) and set(read_rows(tmp_path/'two'/'results.csv')[0]) >= {'threads'}


CODE = '''
import sys, torch
from dataclasses import replace
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.study.runs import open_setting, run_study
from layerscale_nb.study.variants import Study, Variant
torch.set_num_threads(1)
s = Study(variants=(Variant('baseline'), Variant('depth_033', d=0.33), Variant('width_050', w=0.5)), base=(1.0, 0.125, 512), imgsz=(96, 320), n_train=32, n_val=8, recipe=Recipe(epochs=4), device='cpu')
for e in run_study(open_setting(s), sys.argv[1]):
    if e.kind != 'step': print(e.kind, e.run, flush=True)
'''


def test_two_commands_share_one_study(tmp_path):
    "No run is trained twice, each command ends with the whole table, and a killed one's run is taken over."
    def begin(): return subprocess.Popen([sys.executable, '-c', CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    a, b = begin(), begin()
    assert a.stdout.readline().split()[0] in ('start', 'elsewhere')
    time.sleep(1)
    a.kill()
    said = b.communicate(timeout=300)[0].split('\n')
    trained = [l.split()[1] for l in (a.communicate()[0] + '\n'.join(said)).split('\n') if l.startswith('trained')]
    assert b.returncode == 0 and sorted(trained) == ['baseline_seed0', 'depth_033_seed0', 'width_050_seed0'], said
    rows = read_rows(tmp_path/'results.csv')
    assert sorted(r['variant'] for r in rows) == ['baseline', 'depth_033', 'width_050'] and {r['status'] for r in rows} == {'done'}
    for r in rows: assert [e['epoch'] for e in read_rows(tmp_path/f"{r['variant']}_seed0"/'epochs.csv')] == [1, 2, 3, 4]


def test_status_is_read_from_the_folder(setting, done, tmp_path, capsys):
    from layerscale_nb.cli import main
    shutil.copytree(done, tmp_path/'s')
    (tmp_path/'s'/'depth_033_seed0'/'row.json').unlink()
    with locked(tmp_path/'s'/'.locks'/'depth_033_seed0'): assert main(['status', str(tmp_path/'s')]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ['baseline_seed0', 'epoch', '1', 'mAP50', '0.000', 'done'] and said[1].split()[-1] == 'training'
    assert main(['status', str(tmp_path/'none')]) == 2 and 'no study here' in capsys.readouterr().err


def test_jobs_fit_the_machine(setting, tmp_path, monkeypatch):
    from layerscale_nb.study import engine
    s = StudyFolder(setting, tmp_path)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    assert choose_jobs(s, 5) == 5 and choose_jobs(s, 20) == 8
    monkeypatch.setattr(engine, 'free_bytes', lambda: 1)
    assert choose_jobs(s, 5) == 1
    gpu = replace(s, st=replace(setting, device=torch.device('cuda')))
    for free, jobs in ((1e9, 1), (3.2e9, 2), (4.5e9, 3), (100e9, 4)):  # a run of these takes 0.6 to 0.75 GB
        monkeypatch.setattr(engine, 'free_bytes', lambda device: free)
        assert choose_jobs(gpu, 5) == jobs
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert choose_jobs(gpu, 5) == 2
    assert choose_jobs(replace(s, st=replace(setting, device=torch.device('mps'))), 5) == 1


def in_a_fork(setting, out, renames):
    "Run the study in a child that is killed after so many renames; returns whether it came to its end."
    child = os.fork()
    if not child:
        move, left = os.replace, [renames]
        def replace_and_die(a, b):
            move(a, b)
            left[0] -= 1
            if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
        os.replace = replace_and_die
        try: list(run_study(setting, out))
        except BaseException: os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status), 'the study failed'
    return not os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here: kills by other means are in test_faults.py')
@pytest.mark.parametrize('step', [pytest.param(1, marks=pytest.mark.prove), 4])
def test_killed_at_renames_a_study_ends_as_an_undisturbed_one(tiny, tmp_path, step):
    "Killed after 1, 2, 3, ... renames (or 4, 8, ...) until it ends: nothing is lost, nothing doubled, no half file stays."
    torch.set_num_threads(1)
    st, kills = open_setting(replace(tiny, recipe=Recipe(epochs=2))), 0
    list(run_study(st, tmp_path/'whole'))
    while not in_a_fork(st, tmp_path/'killed', step*(kills + 1)):
        kills += 1
        assert kills < 100
    assert kills >= (6 if step == 1 else 2), kills
    pd.testing.assert_frame_equal(untimed(tmp_path/'killed'), untimed(tmp_path/'whole'))
    assert not list((tmp_path/'killed').rglob('*.part')) and not list((tmp_path/'killed').rglob('state.pt'))
    print(f'{kills} kills')
