"A run trained again: equal to the last digit here, within a tolerance elsewhere, and a sentence where it cannot be."
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from layerscale_nb.cli import main
from layerscale_nb.core import read_json, write_atomic, write_json
from layerscale_nb.detect import train
from layerscale_nb.detect.augment import make_batch
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.study import repro
from layerscale_nb.study.repro import compared, repeat_run, verdict_of
from layerscale_nb.study.runs import open_setting, run_study
from layerscale_nb.study.variants import Study, Variant, networks

TINY = Study(variants=(Variant('depth_033', d=0.33),), base=(1.0, 0.125, 512), imgsz=(64, 96), n_train=16, n_val=8, recipe=Recipe(epochs=2), device='cpu')


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    "A finished study of one run."
    out = tmp_path_factory.mktemp('study')
    assert [e for e in run_study(open_setting(TINY), out)][-1].kind == 'done'
    return out


@pytest.fixture
def run(study, tmp_path):
    "A copy of its run, to be spoiled."
    shutil.copytree(study/'depth_033_seed0', tmp_path/'run')
    return tmp_path/'run'


def changed(path, **values): write_json(path, read_json(path) | values)


def files(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_a_run_repeats_to_the_last_digit(study, capsys, monkeypatch, tmp_path):
    "Nothing in its folder is touched, and the scratch folder goes."
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    before = files(study)
    assert main(['repro', str(study/'depth_033_seed0')]) == 0
    said = capsys.readouterr()
    assert said.err == '' and said.out.splitlines()[-1].startswith('equal to the last digit: ') and 'params' in said.out
    assert files(study) == before and not list(tmp_path.iterdir())


def test_the_first_epoch_alone(study, capsys):
    "As JSON: one object, with the loss of the first epoch of the whole run's plan."
    assert main(['repro', str(study/'depth_033_seed0'), '--epochs', '1', '--json']) == 0
    r = json.loads(capsys.readouterr().out)
    assert r['good'] and r['epochs'] == 1 and r['elsewhere'] == [] and r['verdict'].startswith('equal to the last digit: ')
    assert [(x['column'], x['place']) for x in r['rows']][0] == ('loss', 'epoch 1') and all(x['differ'] == 0 for x in r['rows'])


def test_a_changed_digit_is_seen(run, capsys):
    lines = (run/'epochs.csv').read_text().splitlines()
    loss = lines[1].split(',')[1]
    (run/'epochs.csv').write_text('\n'.join([lines[0], lines[1].replace(loss, repr(float(loss) + 1e-9)), *lines[2:]]) + '\n')
    assert main(['repro', str(run), '--epochs', '1']) == 1
    assert 'not equal: 1 of ' in capsys.readouterr().out


@pytest.mark.parametrize('values, differs', [
    (dict(device='Another processor, 2 cores'), 'device was Another processor and is '),
    (dict(versions='python 3.9.1, torch 2.4.0'), 'torch was 2.4.0 and is '),
    ({}, '')])
def test_elsewhere_a_tolerance_holds(run, values, differs):
    "The loss may be a tenth off, and then the verdict names what differs; a parameter more is never tolerated."
    changed(run/'row.json', **values)
    text = (run/'epochs.csv').read_text()
    loss = text.splitlines()[1].split(',')[1]
    results = []
    for factor in (1.05, 1.2):
        (run/'epochs.csv').write_text(text.replace(loss, repr(float(loss)*factor)))
        r = repeat_run(run, epochs=1)
        results.append(r['good'])
        assert differs in r['verdict']
    assert results == [bool(differs), False]
    rows = compared({('params', 'end'): 7}, {('params', 'end'): 8})
    assert not verdict_of(rows, ['torch was 2.4.0 and is 2.9.0'])[0]


def test_the_row_says_the_threads(run, monkeypatch):
    "They are set for the second training, and put back."
    before, seen = torch.get_num_threads(), []
    changed(run/'row.json', threads=before + 1)
    def noted(st, most, look):
        seen.append(torch.get_num_threads())
        return None, repro.stored_run(run)[2][:most]
    monkeypatch.setattr(repro, '_trained_again', noted)
    assert repeat_run(run, epochs=1)['verdict'].startswith('equal to the last digit: ')
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize('file, damage, sentence', [
    ('config.json', dict(data='no/such/folder'), 'its data cannot be read'),
    ('config.json', dict(digest='00000000'), 'is not what it was'),
    ('config.json', dict(recipe=3), 'damaged or of another version'),
    ('config.json', dict(recipe=dict(augment={}, cooldown=3)), "unexpected keyword argument 'cooldown'"),
    ('config.json', dict(recipe=dict(augment={}, epochs=2)), 'missing'),
    ('config.json', dict(variant=dict(name='x', d='deep')), 'depth of variant'),
    ('config.json', b'{"variant": "dep', 'not readable as JSON'),
    ('config.json', b'[]', 'holds []'),
    ('config.json', b'{}', "'recipe' missing"),
    ('config.json', None, 'no run here'),
    ('row.json', None, 'not finished'),
    ('row.json', b'', 'not readable as JSON'),
    ('row.json', dict(status='failed', error='the loss became nan'), 'the loss became nan'),
    ('row.json', dict(threads='many'), 'threads of the row'),
    ('row.json', dict(n_train='all'), 'n_train'),
    ('epochs.csv', None, 'nothing to compare'),
    ('epochs.csv', b'a,b\n1,2\n', 'missing')])
def test_what_cannot_be_repeated_is_a_sentence(run, capsys, file, damage, sentence):
    path = run/file
    if damage is None: path.unlink()
    elif isinstance(damage, bytes): path.write_bytes(damage)
    else: changed(path, **damage)
    assert main(['repro', str(run)]) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.startswith('layerscale: ') and sentence in said.err and said.err.count('\n') == 1, said.err


def test_other_folders_are_told_apart(study, run, tmp_path, capsys):
    for words, sentence in ((['repro', str(study)], 'Give one of them'), (['repro', str(tmp_path/'none')], 'no run here'),
                            (['repro', str(run), '--epochs', '3'], 'it has 2 epochs'), (['repro', str(run), '--device', 'cuda:77'], 'cuda:77')):
        assert main(words) == 2
        assert sentence in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(study, tmp_path):
    "The scratch folder goes also with an interrupt."
    code = ('import sys, layerscale_nb.study.repro as m; real = m.train_run\n'
            'def stop(*a):\n    for p in real(*a): raise KeyboardInterrupt\n    yield\n'
            'm.train_run = stop\nfrom layerscale_nb.cli import main; sys.exit(main(["repro", sys.argv[1]]))')
    r = subprocess.run([sys.executable, '-c', code, str(study/'depth_033_seed0')], env=os.environ | dict(TMPDIR=str(tmp_path)), capture_output=True, text=True, timeout=120)
    assert r.returncode == 130 and r.stderr.endswith('stopped.\n') and not list(tmp_path.glob('layerscale-repro-*')), r.stderr


def test_seeds_draw_other_first_batches(monkeypatch):
    "Weights, order and warps come from the seed: another one gives another first batch and first loss, the same one repeats both."
    st = open_setting(replace(TINY, recipe=Recipe(epochs=1)))
    seen = []
    def noted(store, index, *a):
        batch = make_batch(store, index, *a)
        seen.append((index.tolist(), batch['img'].clone()))
        return batch
    monkeypatch.setattr(train, 'make_batch', noted)
    def first(seed):
        "(image numbers, pixels, loss, weights before) of the first step."
        run = train.fit(networks(st.study, len(st.names))['depth_033'], st.train, st.val, st.study.recipe, seed, st.device)
        weights = torch.cat([p.detach().flatten() for p in run.model.parameters()])
        seen.clear()
        loss = next(iter(run)).loss
        return *seen[0], loss, weights
    a, again, other = first(0), first(0), first(1)
    same = lambda x, y: [x[0] == y[0], torch.equal(x[1], y[1]), x[2] == y[2], torch.equal(x[3], y[3])]
    assert same(a, again) == [True]*4 and same(a, other) == [False]*4
