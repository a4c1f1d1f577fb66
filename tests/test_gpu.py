"`layerscale bench gpu` without a GPU: its order, its time and its failures with made-up rows and a made-up clock, and its rows on a CPU with tiny networks."
import json
import math
import warnings

import pytest

import layerscale_nb.experiments.gpu as gpu
from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError
from layerscale_nb.experiments.gpu import GpuJob, Watch, bench_gpu, gpu_jobs, gpu_text, seconds_of
from layerscale_nb.table import read_rows

HERE = dict(device='cpu', command='made up')
SMALL = Watch(n_train=8, n_val=4, seconds=.1, warm_steps=1, epochs=2, study_epochs=1)
NET, SIZE = '.33/.125', '96x64'


class Clock:
    "Seconds that pass only when a row is measured."
    now = 0.

    def __call__(self): return self.now


@pytest.fixture
def made_up(monkeypatch):
    "Rows that take the seconds of `cost(job)` on a clock of their own; what was begun, and when."
    clock, begun, plan = Clock(), [], dict(cost=lambda j: 10.)

    def measure(j, watch, device, command=''):
        begun.append((clock.now, j))
        seconds = plan['cost'](j)
        if seconds is None: raise RuntimeError('CUDA error: an illegal memory access\nmore')
        clock.now += seconds
        return dict(ms=1., img_s=100., macs=1e9, params=1e6, acts=1e6, batch=j.asked_batch, channels_last=True)
    monkeypatch.setattr(gpu, '_MEASURE', dict.fromkeys(gpu.ROW_KINDS, measure))
    return clock, begun, plan


def test_a_row_is_begun_only_if_it_fits(made_up, tmp_path):
    clock, begun, plan = made_up
    plan['cost'] = lambda j: dict(trainer=30., figure=4.*j.s, study=50.)[j.kind]
    rows = bench_gpu(tmp_path/'g.csv', gpu_jobs(factors=(2,)), minutes=4, clock=clock, **HERE)
    assert clock.now <= 240 and len(rows) == len(begun) > 10
    assert [j for _, j in begun] == [j for j in gpu_jobs(factors=(2,)) if j in [j for _, j in begun]]  # in their order
    for at, j in begun[4:]:
        known = [r for r in rows if r['kind'] == j.kind and r['mode'] == j.mode]
        assert at + plan['cost'](j) <= 240 or len(known) == 1, (at, j)


def test_it_goes_on_where_it_stopped(made_up, tmp_path):
    clock, begun, _ = made_up
    jobs = gpu_jobs(factors=(2,))[:12]
    for _ in range(20):
        if len(read_rows(tmp_path/'g.csv')) == len(jobs): break
        bench_gpu(tmp_path/'g.csv', jobs, minutes=1.5, clock=clock, **HERE)
    assert [j for _, j in begun] == jobs or sorted(map(str, (j for _, j in begun))) == sorted(map(str, jobs))
    assert len(begun) == len(set(begun)) == len(jobs)
    before = len(begun)
    rows = bench_gpu(tmp_path/'g.csv', jobs, minutes=1.5, clock=clock, **HERE)
    assert len(begun) == before and [gpu._job_of(r) for r in rows] == jobs


def test_a_first_guess_too_long_waits_and_shorter_rows_go_first(made_up, tmp_path):
    "Twenty seconds are too short for a trainer and long enough for a row of the figure."
    clock, begun, plan = made_up
    plan['cost'] = lambda j: 3.
    bench_gpu(tmp_path/'g.csv', gpu_jobs(factors=(2,)), minutes=1/3, clock=clock, **HERE)
    assert {j.kind for _, j in begun} == {'figure'} and clock.now <= 20


def test_what_fails_leaves_the_others_and_is_tried_again(made_up, tmp_path):
    clock, begun, plan = made_up
    plan['cost'] = lambda j: None if j.mode == 'graph' else 5.
    jobs = [j for j in gpu_jobs(factors=(2,)) if j.kind == 'trainer'][:3]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        rows = bench_gpu(tmp_path/'g.csv', jobs, clock=clock, **HERE)
    assert [str(w.message) for w in said] == ['left out: trainer yolov8n, graph, batch 16: CUDA error: an illegal memory access.']
    assert [r['mode'] for r in rows] == ['eager', 'ultralytics']
    plan['cost'] = lambda j: 5.
    rows = bench_gpu(tmp_path/'g.csv', jobs, clock=clock, **HERE)
    assert [r['mode'] for r in rows] == ['eager', 'graph', 'ultralytics'] and len(begun) == 4


def test_guesses_come_from_the_nearest_row_of_the_same_machine():
    def row(s, seconds=1., device='a GPU', **kw): return GpuJob('figure', 'EN-B0', 'train', 64, 'w', float(s), 'bf16')._replace(**kw)._asdict() | dict(device=device, threads=8, row_s=seconds)
    rows = [row(2, 2.), row(16, 20.), row(4, 99., device='another'), row(4, 99., mode='inference')]
    assert seconds_of(row(1), rows) == 2. and seconds_of(row(16), rows) == 20.
    assert 35 < seconds_of(row(32), rows) < 45 and seconds_of(row(4, device='a third'), rows) == 6.
    study = GpuJob('study', '1.0/0.08', 'eager', 16)._asdict() | dict(device='a GPU', threads=8, row_s=10.)
    assert seconds_of(study | dict(jobs=4), [study]) == 40.
    assert math.isfinite(max(seconds_of(j._asdict() | dict(device='', threads=1), []) for j in gpu_jobs()))


def test_the_rows_are_real(tmp_path):
    "A loop of ours in its process, without and with a graph that cannot be, a row of the figure, and two runs at once."
    trainers = [GpuJob('trainer', NET, m, 4, size=SIZE) for m in ('eager', 'graph')]
    figure = [GpuJob('figure', 'EN-B0', m, 1, dtype='fp32') for m in ('train', 'inference')]
    jobs = [*trainers, *figure, GpuJob('study', '.33/.125', 'eager', 4, jobs=2, size=SIZE)]
    rows = bench_gpu(tmp_path/'g.csv', jobs, watch=SMALL, minutes=60, **HERE)
    assert [gpu._job_of(r) for r in rows] == jobs and all(r['row_s'] > 0 and r['versions'] and r['date'] and r['command'] == 'made up' for r in rows)
    eager, graph, train, inference, study = rows
    assert eager['img_s_q1'] <= eager['img_s'] <= eager['img_s_q3'] and not eager['note'] and eager['batch'] == 4
    assert graph['note'] == 'no graph: the device is cpu'
    assert train['ms'] > inference['ms'] > 0 and train['acts'] == inference['acts'] > 1e6
    assert study['img_s'] > 0
    text = gpu_text(read_rows(tmp_path/'g.csv', text=('base', 'rule', 'size', 'mode')))
    assert 'trainer .33/.125, graph, batch 4: no graph: the device is cpu' in text and 'eager, batch 4, 2 runs' in text


@pytest.mark.prove
def test_the_row_of_ultralytics_is_real(tmp_path):
    row, = bench_gpu(tmp_path/'g.csv', [GpuJob('trainer', NET, 'ultralytics', 4, size=SIZE)], watch=SMALL, minutes=60, **HERE)
    assert row['img_s'] > 0 and row['batch'] == 4


def test_ratios_compare_like_with_like():
    "Rows that should have had a graph and had none take no part."
    def row(mode, pace, batch=16, jobs=1, kind='trainer', note=''): return GpuJob(kind, 'yolov8n', mode, batch, jobs=jobs)._asdict() | dict(img_s=pace, note=note)
    text = gpu_text([row('eager', 100.), row('graph', 250.), row('ultralytics', 50.), row('eager', 100., 64), row('graph', 99., 64, note='no graph: x'),
                     row('eager', 100., kind='study'), row('eager', 180., jobs=4, kind='study')]).splitlines()
    assert 'trainer yolov8n, graph, batch 16: 250 img/s, 2.50 times the loop without a graph, 5.00 times Ultralytics\' loop' in text
    assert 'study yolov8n, eager, batch 16, 4 runs: 180 img/s, 1.80 times one run at a time' in text
    assert 'trainer yolov8n, graph, batch 64: no graph: x' in text and not any('99 img/s' in line for line in text)


def test_the_command(made_up, tmp_path, capsys):
    out = tmp_path/'g.csv'
    assert main(['bench', 'gpu', '--device', 'cpu', '--only', 'trainer', 'study', '--net', NET, '--imgsz', SIZE, '--out', str(out), '--json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r['kind'] for r in rows} == {'trainer', 'study'} and len(rows) == len(read_rows(out)) and all(r['command'].startswith('layerscale') for r in rows)
    assert main(['bench', 'gpu', '--device', 'cpu', '--only', 'trainer', 'study', '--net', NET, '--imgsz', SIZE, '--out', str(out)]) == 0
    assert f'{len(rows)} of {len(rows)} rows in {out}' in capsys.readouterr().out


@pytest.mark.parametrize('words, sentence', [
    (['--only', 'picture'], "no kind of row 'picture'"), (['--imgsz', '100x96'], 'multiple of the stride 32'), (['--minutes', '0'], "minutes is '0'"), (['--batch', '0'], "batch is '0'"),
    (['--net', 'resnet18'], 'resnet18'), (['--net', 'yolov4-tiny'], 'no network that both trainers can train'), (['--device', 'tpu'], "device 'tpu'")])
def test_bad_options_are_said_before_anything_is_measured(words, sentence, made_up, tmp_path, capsys):
    options = dict(zip(words[::2], words[1::2]))
    line = [w for pair in ({'--device': 'cpu', '--out': str(tmp_path/'g.csv')} | options).items() for w in pair]
    assert main(['bench', 'gpu', *line]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count('\n') == 1 and not made_up[1] and not (tmp_path/'g.csv').exists()


def test_without_a_gpu_the_command_says_so(tmp_path, capsys):
    import torch
    if torch.cuda.is_available(): pytest.skip('there is one')
    assert main(['bench', 'gpu', '--out', str(tmp_path/'g.csv')]) == 2
    assert 'torch sees 0 CUDA GPUs here. Use --device cpu' in capsys.readouterr().err


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path/'g.csv').write_text('name,ms\na,1\n', encoding='utf-8')
    with pytest.raises(LayerscaleError, match="no such table, the column '.*' is missing"): bench_gpu(tmp_path/'g.csv', gpu_jobs()[:1], **HERE)
