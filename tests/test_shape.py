"Shapes of vision transformers, the fit of Equation 2, the scaling rule, the explorer and the sweep."
import json

import numpy as np
import pytest

from layerscale_nb.core import LayerscaleError
from layerscale_nb.laws.shape import (
    EXPONENTS, PUBLISHED, START, Shape, Surface, fit_shape, one_factor, scale_shape, shape_for, shape_rule, star_arms, star_sweep)
from layerscale_nb.nets.layer import cost
from layerscale_nb.nets.vit import SIZES, table1, vit, vit_shape


def test_table_1_within_tolerance():
    "Params within 0.3%, FLOPs within 0.7%; multiply-adds as an independent script counted them."
    rows = {r['name']: r for r in table1()}
    assert len(rows) == 6
    for r in rows.values(): assert abs(r['params_off']) <= 0.3 and abs(r['flops_off']) <= 0.7, r
    counted = {('So400m', 14, 224, 'map'): (427680704, 110176948224), ('So400m', 14, 378, 'map'): (428225600, 335173224960),
               ('So400m', 14, 518, 'map'): (428962880, 683919936000), ('L', 16, 384, 'gap'): (303688704, 190706614272),
               ('g', 14, 518, 'gap'): (1012766720, 1593908169216), ('G', 14, 518, 'map'): (1882984448, 2827647496960)}
    for k, v in counted.items(): assert (cost(vit(*k, 0)).params, cost(vit(*k, 0)).macs) == v, k
    assert cost(vit('So400m', 14, 518, 'map', 0)).macs < 0.5*cost(vit('g', 14, 518, 'gap', 0)).macs


@pytest.mark.parametrize('name, net', [('vit_b_16', vit('B')), ('vit_l_16', vit('L')), ('vit_h_14', vit('H', 14))])
def test_torchvision_to_the_integer(name, net):
    import torch, torchvision
    from layerscale_nb.nets.count import count
    with torch.device('meta'): model = torchvision.models.get_model(name)
    theirs, ours = count(model, (1, 3, 224, 224)), cost(net)
    assert (theirs.params, theirs.macs) == (ours.params, ours.macs)


@pytest.mark.parametrize('pool', ['token', 'map', 'gap'])
def test_each_head_is_what_is_built(pool):
    import torch
    from layerscale_nb.nets.build import build
    from layerscale_nb.nets.count import count
    net = vit_shape(48, 2, 100, 3, 8, 32, pool, 7)
    model = build(net).eval()
    c, said = count(model, (1, 3, 32, 32)), cost(net)
    assert (c.params, c.macs, c.acts) == (said.params, said.macs, said.acts)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def known_arms(rng, noise=0.01):
    "A star of 90 runs on random surfaces with known exponents, and those."
    c, arms, true = rng.uniform(0.4, 0.7), {}, {}
    for k, power in dict(width=1.8, depth=1.0, mlp=0.7).items():
        s, u, alpha, off = rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.65), rng.uniform(0.1, 0.3), np.exp(0.2*rng.normal())
        a, b = u*c/s, (1 - u)*c/s
        f = Surface(alpha, a, alpha*a/b*off**-(a + b), b, rng.uniform(0.03, 0.1), c, rng.uniform(0.08, 0.2))
        x, t = np.array([(x, d*x**power) for x in np.geomspace(0.45, 2.2, 5) for d in (0.5, 1, 2) for _ in range(2)]).T
        arms[k], true[k] = np.column_stack([x, t, f.loss(x, t)*np.exp(noise*rng.normal(size=len(x)))]), s
    return arms, true


@pytest.mark.parametrize('n, low, high', [(12, 0.8, 1.0), pytest.param(500, 0.92, 0.98, marks=pytest.mark.prove)])
def test_the_interval_covers_what_it_says(n, low, high):
    "Known exponents, 90 runs, 1% noise: the share of 95% intervals that hold the truth."
    rng, hits = np.random.default_rng(7), []
    for _ in range(n):
        arms, true = known_arms(rng)
        hits += [lo <= true[k] <= hi for k, (_, lo, hi) in fit_shape(arms, check=False).exponents.items()]
    assert low <= np.mean(hits) <= high, np.mean(hits)


def test_without_noise_the_exponents_come_back():
    arms, true = known_arms(np.random.default_rng(0), 1e-5)
    fit = fit_shape(arms)
    for k, s in true.items(): assert fit.s[k] == pytest.approx(s, rel=0.02)
    assert fit.doubts() == [] and fit.n == 90
    assert fit.outside(1.0) == '' and 'extrapolation' in fit.outside(1e6) and 'below' in fit.outside(1e-6)
    assert fit.optimum(1e6)['width'] > fit.optimum(1.0)['width']
    scaled = fit_shape({k: v*(100, 1e15, 3) for k, v in arms.items()})   # other units, same exponents
    assert scaled.s['depth'] == pytest.approx(fit.s['depth'], rel=1e-3)


def test_equation_4_and_5():
    f, x = Surface(0.2, 0.8, 0.1, 0.7, 0.05, 0.5, 0.1), np.geomspace(0.1, 1000, 100001)
    for t in (1.0, 30.0, 1e4):
        assert x[f.loss(x, t).argmin()] == pytest.approx(f.optimum(t), rel=1e-3)
        assert f.frontier(t) == pytest.approx(f.loss(f.optimum(t), t), rel=1e-12)
    assert f.optimum(100.)/f.optimum(1.) == pytest.approx(100**f.s)


def test_the_printed_rule_and_the_published_shapes():
    for name, off in (('So400m', 0.109), ('So150m', 0.059)):
        assert one_factor(PUBLISHED[name])['off'] == pytest.approx(off, abs=0.002)
    assert one_factor(Shape(*map(round, shape_rule(START, 1000))))['off'] < 0.01
    s = EXPONENTS['classification']
    assert s['width'] < s['depth'] < s['mlp']


def test_shapes_are_friendly_to_machines():
    for compute in (0.01, 1, 7, 300, 1e5):
        x = scale_shape(START, compute)
        assert x.width % 64 == 0 == x.mlp % 64 and x.depth >= 1
    free, bound = shape_rule(START, 1000), shape_rule(START, 1000, max_depth=20)
    assert bound[1] == 20 < free[1] and bound[0] > free[0] and bound[2] > free[2]
    assert abs(shape_for(params=400e6)['params']/400e6 - 1) < 0.05
    assert abs(shape_for(gflops=100)['gflops']/100 - 1) < 0.05


BAD = [
    (lambda: vit_shape(100, 4, 256), '16 heads do not divide width 100; take width 96 or 112'),
    (lambda: vit_shape(8, 4, 256), '16 heads do not divide width 8; take width 16'),
    (lambda: vit_shape(64, 4, 256, heads=0), 'heads is 0'),
    (lambda: vit_shape(64, 4.5, 256), 'depth is 4.5'),
    (lambda: vit_shape(64, 4, 256, pool='max'), "no head type 'max'"),
    (lambda: scale_shape(START, 0), 'compute is 0'),
    (lambda: scale_shape(START, -3), 'compute is -3'),
    (lambda: shape_for(params=0), 'params is 0'),
    (lambda: shape_for(params=1e8, gflops=3), 'either params or gflops'),
    (lambda: shape_for(params=1e30), 'no shape of the rule comes near'),
    (lambda: shape_for(params=1e8, task='detect'), "no exponents for task 'detect'"),
    (lambda: star_sweep(START, dict(height=(1, 2)), (1,)), "no size 'height'"),
    (lambda: star_arms([dict(width=8, depth=1, mlp=8, t=1., loss=1.)], Shape(16, 1, 8)), 'no runs in which width alone'),
    (lambda: fit_shape({'width': [(1, 1, 1)]*30}), '1 different sizes'),
    (lambda: fit_shape({'width': [(1, 1, -1)]*30}), 'no positive number'),
    (lambda: fit_shape({'width': [(i, 1., 1.) for i in range(1, 6)]}), '5 runs for 7 fitted numbers'),
]


@pytest.mark.parametrize('make, text', BAD)
def test_bad_input_is_one_sentence(make, text):
    with pytest.raises(LayerscaleError) as e: make()
    assert text in str(e.value) and '\n' not in str(e.value)


def test_what_the_data_cannot_say_is_refused():
    arms, _ = known_arms(np.random.default_rng(3), 0.3)
    with pytest.raises(LayerscaleError, match='the data do not identify'): fit_shape(arms)
    arms, _ = known_arms(np.random.default_rng(0), 1e-4)
    falling = arms | {'depth': np.column_stack([arms['depth'][:, :2], 1 + arms['depth'][:, 0]**-0.5])}  # no minimum in sight
    with pytest.raises(LayerscaleError, match='the data do not identify'): fit_shape(falling)


def test_command(capsys):
    from layerscale_nb.cli import main
    assert main(['shape', '--params', '400e6', '--json']) == 0
    r = json.loads(capsys.readouterr().out)
    assert r['width'] % r['heads'] == 0 and r['note'] == ''
    assert main(['shape', '--gflops', '10']) == 0
    assert 'extrapolation' in capsys.readouterr().out
    for args, text in ((['--params', '-1'], 'params'), ([], 'either params or gflops'), (['--params', 'x'], 'params')):
        assert main(['shape', *args]) == 2
        assert text in capsys.readouterr().err
    assert main(['bench', 'shapes', '--plan']) == 0
    assert '78 runs' in capsys.readouterr().out
    assert main(['bench', 'shapes', '--plan', '--widths', '30']) == 2
    assert '4 heads do not divide width 30' in capsys.readouterr().err


def test_explorer():
    from layerscale_nb.live.shapes import shape_explorer
    e = shape_explorer()
    before = e.out.value
    e.set(compute=1000.0)
    assert e.out.value != before and 'params' in e.out.value
    e.set(depth=20)
    assert '20 deep' in e.out.value
    e.set(compute=1e4)
    assert 'extrapolation' in e.out.value
    assert len(e.page()) < 300_000


def test_pictures_from_a_folder(tmp_path):
    from PIL import Image
    from layerscale_nb.experiments.pictures import from_folder
    for c in ('a', 'b'):
        (tmp_path/c).mkdir()
        for i in range(5): Image.new('RGB', (40, 30), (50*i, 0, 0)).save(tmp_path/c/f'{i}.png')
    p = from_folder(tmp_path, 16)
    assert p.classes == ('a', 'b') and tuple(p.x.shape) == (8, 3, 16, 16) and len(p.val_x) == 2
    (tmp_path/'b'/'0.png').write_text('no image')
    with pytest.raises(LayerscaleError, match='not a whole image'): from_folder(tmp_path)
    with pytest.raises(LayerscaleError, match='no images in folders'): from_folder(tmp_path/'a')


def test_a_sweep_continues(tmp_path):
    from layerscale_nb.experiments.shapes import sweep_jobs, sweep_shapes, swept_arms
    jobs, seen = sweep_jobs(Shape(16, 1, 16), dict(width=(8, 16)), (320, 640), (0,)), []
    first = sweep_shapes(tmp_path/'s.csv', jobs=jobs[:2], device='cpu', look=lambda *a: seen.append(a[0]['width']))
    df = sweep_shapes(tmp_path/'s.csv', jobs=jobs, device='cpu', look=lambda *a: seen.append(a[0]['width']))
    assert len(seen) == len(df) == 4 and df.loss[:2].tolist() == first.loss.tolist() and (df.t > 0).all()
    with pytest.raises(LayerscaleError, match='no runs in which depth alone'): swept_arms(df, Shape(16, 1, 16))
