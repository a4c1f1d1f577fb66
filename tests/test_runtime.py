"Timing, the model of a machine, the experiment of Figure 2, and the commands over them."
import json
import math
from dataclasses import replace

import pytest

from layerscale_nb.table import read_rows
from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.net import Net, Stage, Stem
from layerscale_nb.nets.layer import cost
from layerscale_nb.nets.layer import Op
from layerscale_nb.timing.roofline import PAGE_MB, TERMS, Call, Profile, calls, conv_call, features, layer_times, load_profile, predict_ms, save_profile
from layerscale_nb.nets.zoo import named_net, zoo

KINDS = {c.kind for n in zoo() for c in calls(named_net(n))}
SMALL = 'RegNetX-200MF'


def profile(**rates):
    base = dict.fromkeys(TERMS, 0.0) | rates
    return Profile('toy', 'invented', 1, 'fp32', True, 8, 'sum', {k: dict(base) for k in KINDS}, 0.1, 3, 1.0, dict(date='today'))


@pytest.mark.parametrize('name', ['EN-B0', 'RegNetY-400MF', 'RegNetZ-500MF', 'ResNet-50', 'ResNeXt-50', 'ViT-S/16'])
def test_calls_hold_the_macs_of_the_count(name):
    "Without the padding of narrow groups, all macs of the closed form are in the calls."
    net = named_net(name)
    total = sum(c.macs*c.n for c in calls(net))
    if 'ResNeXt' in name: assert total >= cost(net).macs
    else: assert total == pytest.approx(cost(net).macs, rel=0.02)


def test_prediction_by_hand():
    net = Net((Stage('conv', 2, 16, 1),), None, classes=0, r=10, channels=16)
    gmac = 2*16*16*9*100/1e9
    assert predict_ms(net, profile(gmac=1e3)) == pytest.approx(gmac*1e3)
    assert predict_ms(net, profile(call=2)) == 4
    assert predict_ms(net, profile(near_mb=1), batch=3) == pytest.approx(2*3*100*32*4/1e6)
    assert predict_ms(net, replace(profile(near_mb=1), dtype='bf16'), batch=3) == pytest.approx(2*3*100*32*2/1e6)


def test_far_and_page_terms_start_at_their_limits():
    c = Call('norm', 0, 0, 2*10**6, 10**6)
    assert features(c, 1, 8)[3] == 0 and features(c, 4, 8)[3] == pytest.approx(24)
    small, large = (features(c, b, 8)[4] for b in (8, 9))
    assert 8*4 < PAGE_MB < 9*4 and small == 0 and large == pytest.approx(36)


def test_time_grows_with_everything():
    p, net = profile(gmac=20, near_mb=.03, call=.01), named_net('EN-B0')
    assert predict_ms(net, p, 8) > predict_ms(net, p, 4) > predict_ms(net, p) > 0
    assert predict_ms(net, p, size=256) > predict_ms(net, p)
    assert sum(l.ms for l in layer_times(net, p, 8)) == pytest.approx(predict_ms(net, p, 8))
    assert {l.memory_bound for l in layer_times(net, p, 8)} == {True, False}


def test_groups_are_padded_and_named():
    assert conv_call(Op('conv', 48, 48, 3, 1, 2), 1).macs == 48*32*9
    assert [conv_call(Op('conv', 64, 64, 3, 2, g), 1).kind for g in (64, 16, 8, 2, 1)] == ['depthwise /2', 'groups of 4 /2', 'groups of 8 /2', 'groups /2', 'spatial']


def test_profile_round_trip(tmp_path):
    p = profile(gmac=20.5, call=.01)
    assert load_profile(save_profile(p, tmp_path/'p.json')) == p


@pytest.mark.parametrize('text, sentence', [
    ('{"name": ', 'not readable as json'), ('[]', 'not a profile'), ('{"name": "x"}', 'device is missing'), (None, 'no such file')])
def test_broken_profile(text, sentence, tmp_path):
    path = tmp_path/'p.json'
    if text is not None: path.write_text(text)
    with pytest.raises(LayerscaleError, match=sentence) as e: load_profile(path)
    assert '\n' not in str(e.value) and 'layerscale profile' in str(e.value)


def test_profile_with_a_negative_rate(tmp_path):
    path = save_profile(profile(), tmp_path/'p.json')
    cfg = json.loads(path.read_text()); cfg['rates']['norm']['call'] = -1; path.write_text(json.dumps(cfg))
    with pytest.raises(LayerscaleError, match="the rate 'call' of 'norm'"): load_profile(path)


@pytest.mark.parametrize('field', [k for k in Profile.__dataclass_fields__ if k != 'origin'])
@pytest.mark.parametrize('bad', ['null', '[1]', '{"a": 1}', '-1', '1e999', 'NaN', '1' + '0'*400, '"8"', '"\\ud800"'])
def test_a_profile_field_of_another_kind_is_a_sentence(field, bad, tmp_path):
    cfg, path = json.loads(save_profile(profile(), tmp_path/'p.json').read_text()), tmp_path/'p.json'
    wrong = json.dumps({k: v for k, v in cfg.items() if k != field})[:-1] + f', "{field}": {bad}}}'
    path.write_text(wrong)
    if field in ('name', 'device') and bad[0] == '"':
        assert getattr(load_profile(path), field) == json.loads(bad)
        return
    text = f'p.json: profile.* ({field} is|of .a. is missing)'
    with pytest.raises(LayerscaleError, match=text) as e: load_profile(path)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400 and 'layerscale profile' in str(e.value)


def test_a_profile_keeps_the_checked_numbers(tmp_path):
    p = replace(profile(), cache_mb=8, threads=2.0, seconds=3)
    assert [type(v) for v in (p.cache_mb, p.threads, p.seconds)] == [float, int, float]
    for bad in ('1' + '0'*400, '"1"', 'null', 'true'):
        path = save_profile(profile(call=0.125), tmp_path/'p.json')
        path.write_text(path.read_text().replace('0.125', bad))
        with pytest.raises(LayerscaleError, match="the rate 'call' of"): load_profile(path)
    (tmp_path/'deep.json').write_text('['*100_000)
    with pytest.raises(LayerscaleError, match='deep.json: not readable as json'): load_profile(tmp_path/'deep.json')


def test_fit_finds_the_rates_of_a_made_machine():
    "Times computed from known rates give these rates back, and predict networks that were not in the fit."
    from layerscale_nb.timing.calibrate import conv_specimens, fit_rates
    true = dict(zip(TERMS, (20., .1, .03, .05, .4, .02)))
    cost = lambda c, b: sum(x*true[t] for x, t in zip(features(c, b, 8), TERMS))
    made = [(c, b, cost(c, b), 0.) for ops in conv_specimens().values() for i, (op, side) in enumerate(ops) for c in [conv_call(op, side*side)] for b in [(8, 1, 3)[i % 3]]]
    made += [(Call(k, 0, 0, m*v, v), b, cost(Call(k, 0, 0, m*v, v), b), 0.) for k, m in (('add', 3), ('norm', 2)) for v in (10**5, 10**6, 3*10**6, 10**4) for b in (1, 4, 8)]
    cache, form, rates, errors = fit_rates(made)
    assert cache == 8 and form == 'sum' and errors['sum'] < 0.02
    assert rates['1x1']['gmac'] == pytest.approx(20, rel=.05) and rates['add']['page_mb'] == pytest.approx(.4, rel=.05)


def test_lines_never_see_the_point_they_predict():
    from layerscale_nb.timing.calibrate import compare_predictors, line_errors
    assert abs(line_errors([1, 2, 3, 4], [3, 5, 7, 9])).max() < 1e-6
    assert line_errors([1, 2, 3, 4], [3, 5, 7, 90])[3] == pytest.approx(9/90 - 1)
    rows = [dict(name=str(i), ms=10.*i, predicted_ms=11.*i, acts=i, macs=i*i, params=5) for i in (1, 2, 3, 4, 5)]
    table = compare_predictors(rows)['median']
    assert table['per-layer model'] == pytest.approx(10) and table['line through acts'] < 1e-6 < table['line through macs'] < table['line through params']


def test_correlations_on_known_data():
    from layerscale_nb.experiments.actbound import correlations, pearson
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1) and pearson([1, 2, 4], [4, 2, 1], logs=True) == pytest.approx(-1)
    assert math.isnan(pearson([1, 1, 1], [1, 2, 3]))
    rows = [dict(base=b, asked_batch=8, batch=8, dtype='fp32', channels_last=True, macs=x, params=9 - x, acts=x**3, ms=x**3*k) for b, k in (('a', 1), ('b', 50)) for x in (1, 2, 3, 4)]
    t = correlations(rows).set_index('base')
    assert t.acts['a'] == pytest.approx(1) and t['log macs']['b'] == pytest.approx(1) and t['log params']['a'] < 0
    assert t.acts['all'] < 0.9  # the same cost, two paces


def test_rows_are_whole_and_not_measured_twice(tmp_path, monkeypatch):
    import layerscale_nb.experiments.actbound as a
    calls = []
    def fake(j, device, command='', **kw):
        if len(calls) == 2: raise KeyboardInterrupt
        calls.append(j)
        return dict(base=j.base, rule=j.rule, s=j.s, asked_batch=j.batch, dtype=j.dtype, channels_last=j.channels_last, **dict(zip(('device', 'threads'), a.machine(device))), ms=1.5, note='a, "b"')
    monkeypatch.setattr(a, 'measure_job', fake)
    jobs, out = a.jobs_of(bases=('EN-B0',), factors=(2,), batches=(1,))[:4], tmp_path/'r.csv'
    with pytest.raises(KeyboardInterrupt): a.bench_acts(out, jobs, 'cpu')
    assert [r['ms'] for r in read_rows(out)] == [1.5, 1.5] and read_rows(out)[0]['note'] == 'a, "b"'
    calls.clear()
    assert len(a.bench_acts(out, jobs, 'cpu')) == 4 and calls == jobs[2:]


def test_time_prints_one_json_object(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['time', SMALL, '--batch', '1,2', '--imgsz', '64', '--repeats', '3', '--json']) == 0
    r = json.loads(capsys.readouterr().out)
    assert [x['batch'] for x in r['rows']] == [1, 2] and r['size'] == '64x64' and r['rows'][0]['ms'] > 0
    assert r['rows'][0]['predicted_ms'] is None and 'layerscale profile' in r['no_prediction'] and {'versions', 'device', 'date'} <= set(r['origin'])


def test_time_predicts_with_a_profile_of_this_machine(tmp_path, capsys, monkeypatch):
    import torch
    from layerscale_nb.timing.measure import device_name
    monkeypatch.chdir(tmp_path)
    here = replace(profile(gmac=20., call=.01), device=device_name(torch.device('cpu')), threads=torch.get_num_threads())
    save_profile(here, 'layerscale-profile.json')
    words = ['time', SMALL, '--batch', '2', '--imgsz', '64', '--device', 'cpu', '--repeats', '3']
    assert main([*words, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['rows'][0]['predicted_ms'] == pytest.approx(predict_ms(named_net(SMALL), here, 2, 64))
    save_profile(replace(here, device='another'), 'layerscale-profile.json')
    assert main(words) == 0 and 'the profile is for device another' in capsys.readouterr().out


@pytest.mark.parametrize('words, sentence', [
    (['time', 'RegNetX-201MF'], "Did you mean 'RegNetX-200MF'?"),
    (['time', SMALL, '--batch', '0'], 'whole number > 0'),
    (['time', SMALL, '--batch', '1,x'], "batch 'x' of --batch 1,x"),
    (['time', SMALL, '--device', 'cuda:7'], "device 'cuda:7' was asked for"),
    (['time', SMALL, '--dtype', 'int8'], "dtype is 'int8'"),
    (['time', SMALL, '--mode', 'think'], "mode is 'think'"),
    (['time', SMALL, '--imgsz', 'big'], 'WIDTHxHEIGHT'),
    (['time', SMALL, '--profile', 'no.json'], 'no such file'),
    (['time', SMALL, '--repeats', '0'], 'repeats is'),
    (['profile', '--device', 'cuda:7'], "device 'cuda:7' was asked for"),
    (['profile', '--dtype', 'fp64'], "dtype is 'fp64'"),
    (['profile', '--out', 'no/such/folder/p.json'], 'its folder does not exist'),
    (['bench', 'acts', '--device', 'cuda:7'], "device 'cuda:7' was asked for"),
])
def test_bad_input(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert sentence in err and err.startswith('layerscale: ') and err.count('\n') == 1 and not out
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_memory_too_small_falls_back_and_says_so(monkeypatch, capsys, tmp_path):
    import layerscale_nb.timing.measure as r
    monkeypatch.chdir(tmp_path)
    whole = r.time_module
    def small_memory(model, size, device, batch=1, *a, **kw):
        if batch > 2: raise r.DoesNotFit('too large')
        return whole(model, size, device, batch, *a, **kw)
    monkeypatch.setattr(r, 'time_module', small_memory)
    assert main(['time', SMALL, '--batch', '8,64', '--imgsz', '64', '--repeats', '3']) == 0
    out = capsys.readouterr().out
    assert 'batch 8 did not fit into memory; 2 did' in out and '64 did' not in out


def test_memory_runs_out_for_real(monkeypatch):
    "A fence around little memory: images that cannot even be made are too large a batch, and a smaller one is timed."
    import torch
    import layerscale_nb.timing.measure as r
    whole, cpu, conv = r.memory_fence, torch.device('cpu'), torch.nn.Conv2d(3, 1, 1)
    monkeypatch.setattr(r, 'memory_fence', lambda device: whole(device, 0.02))
    row = r.timing_row('conv', conv, (1024, 1024), cpu, 4096, repeats=3, warmup=0)
    assert 1 <= row['batch'] < 4096 and row['ms'] > 0
    assert row['note'].startswith(f"batch 4096 did not fit into memory; {row['batch']} did")
    assert row['batch'] <= r.probe_largest_batch(conv, (1024, 1024), cpu, limit=4096)*2
    class Fat(torch.nn.Conv2d):
        def to(self, *a, **kw): raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(LayerscaleError, match='its weights do not fit'): r.timing_row('fat', Fat(3, 1, 1), (8, 8), cpu, 1)


def test_a_smaller_batch_after_one_that_did_not_fit_is_still_timed(monkeypatch):
    import layerscale_nb.timing.forecast as t
    row = lambda label, module, size, device, b, *a, **kw: dict(name=label, batch=min(b, 4), ms_img=1., note='')
    monkeypatch.setattr(t, 'timing_row', row)
    assert [x['batch'] for x in t.time_network(SMALL, (64, 1, 8), 64, 'cpu')['rows']] == [4, 1]


@pytest.mark.parametrize('error, memory', [(MemoryError(), True), (RuntimeError('CUDA out of memory. Tried to allocate'), True), (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), True),
                                           (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True), (RuntimeError('shapes do not match'), False), (ValueError('out of memory'), False)])
def test_what_counts_as_out_of_memory(error, memory):
    from layerscale_nb.timing.measure import out_of_memory
    assert out_of_memory(error) == memory


def test_a_network_that_cannot_run_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    import layerscale_nb.experiments.actbound as a
    whole = a.measure_job
    def picky(j, device, command='', **kw):
        if j.dtype == 'bf16': raise LayerscaleError('no bf16 here.')
        return whole(j, device, command, **kw)
    monkeypatch.setattr(a, 'measure_job', picky)
    jobs = [a.Job('RegNetX-200MF', '', 1, 1, d) for d in ('bf16', 'fp32')]
    with pytest.warns(UserWarning, match='left out: no bf16 here'): rows = a.bench_acts(tmp_path/'r.csv', jobs, 'cpu', repeats=3)
    assert [r['dtype'] for r in rows] == ['fp32'] and len(read_rows(tmp_path/'r.csv')) == 1


def test_json_has_no_not_a_number(tmp_path, monkeypatch, capsys):
    import layerscale_nb.experiments.actbound as a
    import torch
    here = dict(zip(('device', 'threads'), a.machine(torch.device('cpu'))))
    monkeypatch.setattr(a, 'bench_acts', lambda out, **kw: [dict(batch=1, peak_mb=math.nan) | here, dict(batch=8, device='another', threads=1)])
    assert main(['bench', 'acts', '--device', 'cpu', '--json', '--out', str(tmp_path/'r.csv')]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=lambda c: pytest.fail(c)) == [dict(batch=1, peak_mb=None) | here]  # the other machine's row stays in the file


def test_a_gpu_hides_the_shorter_of_asking_and_working():
    "With `host` rates the time of a pass is the larger of two sums, and the layers share it."
    net, p = named_net('EN-B0'), profile(gmac=20, near_mb=.03, call=.01)
    slow = replace(p, rates={k: r | dict(host=50.) for k, r in p.rates.items()})
    fast = replace(p, rates={k: r | dict(host=1e-6) for k, r in p.rates.items()})
    n = sum(c.n for c in calls(net))
    assert predict_ms(net, fast, 8) == predict_ms(net, p, 8) and predict_ms(net, slow, 8) == pytest.approx(50*n)
    assert sum(l.ms for l in layer_times(net, slow, 8)) == pytest.approx(50*n)
    with pytest.raises(LayerscaleError, match="the rate 'host'"): replace(p, rates={k: r | dict(host=-1) for k, r in p.rates.items()})


def test_stored_predictions_are_within_fifteen_percent_and_ahead_of_every_line(repo):
    from layerscale_nb.table import read_rows
    from layerscale_nb.timing.calibrate import compare_predictors
    for name in ('predictor_cpu.csv', 'predictor_modules_cpu.csv'):
        t = compare_predictors([r for r in read_rows(repo/'nbs'/'results'/name) if r['batch'] == 8])['median']
        assert t['per-layer model'] <= 15 and t['per-layer model'] == t.min(), name


def test_a_model_without_half_precision():
    import torch
    from layerscale_nb.timing.forecast import time_network
    class Picky(torch.nn.Conv2d):
        def forward(self, x):
            if x.dtype != torch.float32: raise RuntimeError('"slow_conv" not implemented for \'Half\'')
            return super().forward(x)
    with pytest.raises(LayerscaleError, match="not implemented for 'Half'. Try fp32"): time_network(Picky(3, 4, 3), [1], 32, 'cpu', 'fp16')


def test_explorer_moves(repo):
    from layerscale_nb.experiments.actbound import runtime_explorer
    from layerscale_nb.table import read_rows
    p, rows = profile(gmac=20., near_mb=.03), read_rows(repo/'nbs'/'results'/'actbound_cpu.csv')
    box = runtime_explorer([p, replace(p, name='other')], rows)
    seen = {box.out.value}
    for move in (dict(batch=1), dict(s=64), dict(alpha=.3), dict(net='RegNetZ-500MF')):
        box.set(**move)
        assert box.out.value not in seen and '<svg' in box.out.value
        seen.add(box.out.value)
    assert '<circle' in box.out.value
    with pytest.raises(LayerscaleError, match='at least one profile'): runtime_explorer([])


def test_at_a_balance_counts_trade_places(repo):
    "More arithmetic for each byte: r of acts rises above that of macs, curves fan out over macs and meet over acts."
    import math
    from layerscale_nb.experiments.balance import PEAKS, balance_explorer, crossing, fan, loads, measured_balance, r_at, time_at
    from layerscale_nb.table import read_rows
    rows = read_rows(repo/'nbs'/'results'/'actbound_cpu.csv')
    core = load_profile(repo/'nbs'/'results'/'predictor_cpu_profile.json')
    start = measured_balance(core)
    assert 2.3 < start < 2.6 < min(p.balance for p in PEAKS) and [p.balance for p in PEAKS if p.name == 'V100, fp32'] == [pytest.approx(7.85/0.9)]
    for batch in (1, 8, 64):
        found = loads(rows, batch)
        assert len(found) == 51 and (None in [l.ms for l in found]) == (batch == 64)
        r = [r_at(found, b) for b in (start, 200)]
        assert r[0]['macs'] > r[0]['acts'] and r[1]['macs'] < r[1]['acts'] and start < crossing(found) < 35
        assert math.isnan(crossing(found, 100, 200)) and math.isnan(crossing(found, 1, 2))
        for base in ('EN-B0', 'RegNetY-500MF', 'RegNetZ-500MF'):
            mine = [l for l in found if l.base == base]
            assert fan(mine, start) < fan(mine, 200) and fan(mine, start, 'acts') > fan(mine, 200, 'acts')
    l = loads(rows, 1)[0]
    moved = sum(c.n*4*(c.moved + c.weights) for c in calls(named_net('EN-B0')))
    assert time_at(l, 10) == pytest.approx(sum(c.n*c.macs for c in calls(named_net('EN-B0')))/10 + moved)
    with pytest.raises(LayerscaleError, match='no rows in fp32'): loads([])
    box = balance_explorer(rows, core)
    dots = box.out.value.count('<circle')
    box.set(balance=200)
    assert 0 < box.out.value.count('<circle') < dots and '**' not in box.out.value   # measured dots stay with their machine
    box.set(batch=64, net='RegNetZ-500MF')
    assert 'RegNetZ-500MF' in box.out.value and box.out.value.count('<circle') == 0


def priced(kinds, **rates):
    "A profile in which every one of these kinds costs the same."
    return replace(profile(), rates={k: dict.fromkeys(TERMS, 0.0) | (rates or dict(gmac=20., weights_mb=.1, near_mb=.03, far_mb=.05, page_mb=.4, call=.01)) for k in {*kinds, 'add'}})


@pytest.mark.parametrize('name', ['EN-B0', 'EN-B2', 'RegNetX-400MF', 'RegNetY-800MF', 'RegNetZ-500MF', 'ResNet-18', 'ResNet-50', 'ResNeXt-50', 'ViT-Ti/16', 'ViT-S/32'])
def test_module_and_description_give_the_same_calls(name):
    "Two ways to the calls of a network: equal macs and weights, times within one part in a hundred at both batches."
    from layerscale_nb.timing.trace import module_calls, predict_calls
    from layerscale_nb.nets.build import build
    net = named_net(name)
    told, found = calls(net), module_calls(build(net).eval(), (net.r, net.r))
    assert sum(c.macs for c in found) == pytest.approx(sum(c.n*c.macs for c in told), rel=1e-9)
    assert sum(c.weights for c in found) == sum(c.n*c.weights for c in told)
    p = priced({c.kind for c in told + found})
    for b in (1, 8): assert predict_calls(found, p, b).ms == pytest.approx(predict_ms(net, p, b), rel=0.01)


@pytest.mark.parametrize('name', ['yolov8n', 'yolov5n', 'yolov4-tiny', 'yolov4-csp'])
def test_calls_of_a_yolo_graph_hold_its_macs(name):
    from layerscale_nb.nets.layer import cost
    from layerscale_nb.timing.trace import network_calls
    from layerscale_nb.nets.find import find
    found = network_calls(name, '160x96')
    assert sum(c.n*c.macs for c in found) == cost(find(name), (96, 160)).macs
    assert {'cat', 'upsample', 'norm'} <= {c.kind for c in found} and all(c.part.startswith('row ') for c in found)


def test_hidden_copies_views_and_acts_in_place():
    import torch
    from torch import nn
    from layerscale_nb.timing.trace import module_calls
    class Halves(nn.Module):
        def __init__(self): super().__init__(); self.a = nn.Conv2d(3, 32, 1); self.b = nn.Conv2d(16, 8, 1)
        def forward(self, x):
            y = nn.functional.relu_(self.a(x))
            return self.b(y.chunk(2, 1)[1]).flatten(1).unflatten(1, (8, -1)).transpose(1, 2)
    found = module_calls(Halves(), (10, 20))
    assert [(c.kind, c.moved, c.out) for c in found] == [('first', 35*200, 32*200), ('relu', 32*200, 0), ('copy', 32*200, 16*200), ('1x1', 24*200, 8*200),
        ('reorder', 16*200, 8*200)]  # flattening a channels-last map has to turn it


def test_fused_attention_is_one_call_and_put_back():
    import torch
    from torch import nn
    from layerscale_nb.timing.trace import module_calls
    fused = nn.functional.scaled_dot_product_attention
    class Tokens(nn.Module):
        def __init__(self, fail=False): super().__init__(); self.mha, self.fail = nn.MultiheadAttention(64, 4, batch_first=True), fail
        def forward(self, x):
            t = x.flatten(2)[:, :1].expand(-1, 64, -1).transpose(1, 2)
            if self.fail: raise ValueError('no')
            return self.mha(t, t, t, need_weights=False)[0]
    found = [c for c in module_calls(Tokens(), (4, 4)) if c.kind == 'attention']
    assert len(found) == 1 and found[0].macs == 2*16*16*64 and found[0].out == 16*64
    with pytest.raises(LayerscaleError, match='Tokens'): module_calls(Tokens(True), (4, 4))
    assert nn.functional.scaled_dot_product_attention is fused


def test_tracing_leaves_a_module_as_it_was():
    import torch
    from torch import nn
    from layerscale_nb.timing.trace import module_calls
    m = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    module_calls(m, (16, 16))
    assert m.training and m[1].training and all(torch.equal(v, before[k]) for k, v in m.state_dict().items()) and 'forward' not in m[0].__dict__


def test_what_has_no_rate_is_named_with_its_share():
    import torch
    from torch import nn
    from layerscale_nb.timing.trace import module_calls, predict_time, predict_calls
    class Odd(nn.Module):
        def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 8, 3, padding=1)
        def forward(self, x): return torch.erfinv(torch.sigmoid(self.c(x)))
    found = module_calls(Odd(), (16, 16))
    p = priced({'first', 'silu'}, near_mb=1.)
    said = predict_calls(found, p)
    v = 8*256
    assert said.guessed == {'sigmoid': pytest.approx(v/(3*256 + 5*v)), 'erfinv': pytest.approx(2*v/(3*256 + 5*v))}
    assert said.ms == pytest.approx(sum(c.moved for c in found)*4/1e6)
    with pytest.raises(LayerscaleError, match="no rates for 'first'"): predict_calls(found, priced({'norm'}))
    class Choice(Odd):
        def forward(self, x): return x if x.mean() < .5 else self.c(x)
    with pytest.raises(LayerscaleError, match='depends on the pixels'): predict_time(Choice(), p, 1, 16)


def test_time_predicts_a_yolo_graph_and_a_module_and_no_training(tmp_path, capsys, monkeypatch):
    import torch
    from layerscale_nb.timing.trace import network_calls, predict_time
    from layerscale_nb.timing.measure import device_name
    monkeypatch.chdir(tmp_path)
    kinds = {c.kind for n in ('yolov8n', 'torchvision:mobilenet_v3_small') for c in network_calls(n, 64)} - {'cat', 'cat of slices', 'leaky_relu'}
    here = replace(priced(kinds), device=device_name(torch.device('cpu')), threads=torch.get_num_threads())
    save_profile(here, 'layerscale-profile.json')
    for name in ('yolov8n', 'torchvision:mobilenet_v3_small'):
        words = ['time', name, '--batch', '2', '--imgsz', '64', '--device', 'cpu', '--repeats', '3']
        assert main([*words, '--json']) == 0
        r = json.loads(capsys.readouterr().out)
        assert r['rows'][0]['predicted_ms'] == pytest.approx(predict_time(name, here, 2, 64).ms) and not r['no_prediction'] and r['profile'] == 'toy'
    assert main(['time', 'yolov8n', '--batch', '1', '--imgsz', '64', '--device', 'cpu', '--repeats', '3']) == 0
    out = capsys.readouterr().out
    assert "predicted from the profile 'toy'" in out and 'nearest kind: cat' in out
    assert main(['time', 'torchvision:mobilenet_v3_small', '--mode', 'train', '--batch', '2', '--imgsz', '64', '--device', 'cpu', '--repeats', '3']) == 0
    assert 'no prediction: a profile holds rates of inference' in capsys.readouterr().out


def test_bench_predictor_with_names(tmp_path, monkeypatch, capsys):
    "Rows of named networks, written one by one beside a profile; nothing is measured twice."
    import torch
    import layerscale_nb.experiments.actbound as a
    from layerscale_nb.timing.trace import network_calls
    monkeypatch.chdir(tmp_path)
    here = dict(zip(('device', 'threads'), a.machine(torch.device('cpu'))))
    monkeypatch.setattr(a, 'calibrate', lambda *_, **kw: replace(priced({c.kind for c in network_calls('yolov8n', 64)}), **here))
    words = ['bench', 'predictor', '--names', 'yolov8n', '--imgsz', '64', '--device', 'cpu', '--out', 'm.csv', '--json']
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r['name'], r['size'], r['batch']) for r in rows] == [('yolov8n', '64x64', 8), ('yolov8n', '64x64', 1)] and {'command', 'versions', 'device', 'seed', 'date'} <= set(rows[0])
    assert main(words) == 0 and json.loads(capsys.readouterr().out) == read_rows('m.csv', text=('asked_size',)) and (tmp_path/'m_profile.json').exists()
    save_profile(replace(load_profile(tmp_path/'m_profile.json'), device='another machine'), tmp_path/'m_profile.json')
    assert main(words) == 2 and 'm_profile.json is a profile of another machine' in capsys.readouterr().err
    save_profile(replace(load_profile(tmp_path/'m_profile.json'), **here), tmp_path/'m_profile.json')
    assert main(words[:-1]) == 0 and 'predicted_ms' in capsys.readouterr().out


def test_stored_predictions_of_modules(repo):
    "The stored table holds every network of the list at both batches, and its predictions follow from its profile."
    from layerscale_nb.table import read_rows
    from layerscale_nb.timing.trace import MODULE_NAMES, predict_time
    rows = read_rows(repo/'nbs'/'results'/'predictor_modules_cpu.csv')
    assert {(r['name'], r['batch']) for r in rows} == {(n, b) for n in MODULE_NAMES for b in (8, 1)}
    p = load_profile(repo/'nbs'/'results'/'predictor_modules_cpu_profile.json')
    for r in rows:
        if r['name'] in ('yolov8n', 'torchvision:mobilenet_v3_large'):  # the one in closed form, the other traced
            assert predict_time(r['name'], p, r['batch'], r['size']).ms == pytest.approx(r['predicted_ms'], rel=1e-2)


def test_specimens_give_what_they_count():
    "The new result of each measured pass has as many numbers as its call says."
    import torch
    from layerscale_nb.timing.calibrate import MOVED, PASSES, other_specimens, specimen
    sizes = other_specimens()
    for kind in (*PASSES, 'add', 'softmax'):
        c, f = specimen(kind, sizes[kind][min(8, len(sizes[kind]) - 1)], 2, torch.device('cpu'), torch.float32)
        with torch.inference_mode(): out = f()
        assert c.kind == kind and c.out in (0, out.numel()//2), kind
    assert 0 < MOVED['upsample'][0] < MOVED['cat'][0]


@pytest.mark.parametrize('name', ['yolov8n', 'yolov8m', 'yolov5n', 'yolov4-tiny', 'yolov4-csp', 'yolov4-p6', 'csp stage', 'osa block', 'csp net'])
def test_closed_form_times_are_those_of_the_traced_module(repo, name):
    "Every graph, stage and block is predicted from its layers within 1% of its module's own calls, and with their macs."
    from layerscale_nb.experiments.slower import csp_darknet53
    from layerscale_nb.nets.csp import CspStage, csp_ize
    from layerscale_nb.nets.find import find
    from layerscale_nb.nets.osa import OsaBlock
    from layerscale_nb.timing.roofline import calls
    from layerscale_nb.timing.trace import module_calls, predict_calls
    mine = {'csp stage': csp_ize(CspStage('dark', 64, 3), transition='yolov4'), 'osa block': OsaBlock(64, 32, 4), 'csp net': csp_darknet53()}
    net, p = mine.get(name) or find(name), load_profile(repo/'nbs'/'results'/'predictor_modules_cpu_profile.json')
    size = (20, 20) if name in ('csp stage', 'osa block') else (192, 192)
    told, found = calls(net, size), module_calls(net.build(size).eval(), size, p.channels_last, getattr(net, 'b', 3))
    assert sum(c.n*c.macs for c in told) == sum(c.n*c.macs for c in found)
    assert predict_ms(net, p, 8, size) == pytest.approx(predict_calls(found, p, 8).ms, rel=0.01)
