"Descriptions, closed forms, scaling and the zoo, against built modules, torchvision and the published tables."
import random

import numpy as np
import pytest

from conftest import golden
from layerscale_nb.nets import csp
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.net import BLOCKS, Net, Stage, Stem
from layerscale_nb.nets.layer import cost
from layerscale_nb.experiments.published import network_of, printed_rows, pycls_cost, reproduce
from layerscale_nb.nets.scale import RULES, alpha_rule, as_rule, compare, growth, measured_exponents, scale, theory
from layerscale_nb.nets.net import rescale
from layerscale_nb.nets.rounding import UNROUNDED
from layerscale_nb.nets.zoo import named_net, zoo


def counted(net, res=None):
    "(macs, params, acts) counted on the built module, without memory."
    import torch
    from layerscale_nb.nets.build import build
    model, acts = build(net, res, 'meta').eval(), []
    for m in model.modules():
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)): m.register_forward_hook(lambda m, i, o: acts.append(o.numel()))
    from torch.utils.flop_counter import FlopCounterMode
    side = res if isinstance(res, tuple) else (res or net.r,)*2
    with FlopCounterMode(display=False) as f, torch.no_grad(): model(torch.empty(1, net.channels, *side, device='meta'))
    return f.get_total_flops()//2, sum(p.numel() for p in model.parameters()), sum(acts)


def of(c): return c.macs, c.params, c.acts


@pytest.mark.parametrize('name', list(zoo()))
def test_closed_form_is_the_built_module(name):
    net = named_net(name)
    if net.stem.patch and net.r % net.stem.k: pytest.skip('no such resolution')
    assert of(cost(net)) == counted(net)


def random_net(rng):
    "A network of random stages: every block but the transformer's, groups, squeezes, odd kernels."
    stages = []
    for _ in range(rng.randint(1, 4)):
        block, g = rng.choice([b for b in BLOCKS if b != 'vit']), rng.choice([0, 1, 4, 8])
        w, b = 8*rng.randint(1, 12), rng.choice([0.5, 1, 2, 4])
        if block in ('basic', 'conv', 'mbconv'): b = 1 if block != 'mbconv' else rng.choice([1, 3, 4, 6])
        g = g if not g or round(w*(b if block in ('res', 'inverted') else 1)) % g == 0 else 0
        stages.append(Stage(block, rng.randint(1, 3), w, rng.choice([1, 2, 2, 3]), rng.choice([1, 3, 3, 5, 7]), b, g, 0 if block in ('basic', 'conv') else rng.choice([0, 0.25, 0.1])))
    for i, s in enumerate(stages):  # a grouped plain convolution needs an input width that its groups divide
        before = stages[i - 1].w if i else 24
        if s.block in ('conv', 'basic') and s.g and (before % (s.w//s.g) or s.block == 'conv'): stages[i] = Stage(s.block, s.d, s.w, s.stride, s.k, s.b, 0, s.se)
    stem = Stem(24, rng.choice([3, 7]), rng.choice([1, 2]), pool=rng.random() < 0.3)
    return Net(tuple(stages), stem, head_w=rng.choice([0, 40]), classes=rng.choice([3, 10]), r=rng.randint(33, 97), act=rng.choice(['relu', 'silu']))


def random_vit(rng):
    heads, g, patch = rng.randint(1, 4), rng.choice([8, 16]), rng.choice([4, 8])
    return Net((Stage('vit', rng.randint(1, 3), heads*g, 1, b=rng.choice([1, 3.5, 4]), g=g),), Stem(heads*g, patch, patch, patch=True), r=patch*rng.randint(2, 5), act='gelu')


@pytest.mark.parametrize('n', [66, pytest.param(660, marks=pytest.mark.prove)])
def test_random_networks(n):
    "Random networks, a third of them on rectangles of odd sides."
    rng, kinds = random.Random(0), set()
    for i in range(n):
        net = random_vit(rng) if i % 11 == 0 else random_net(rng)
        res = (rng.randint(31, 99), rng.randint(31, 99)) if i % 3 == 0 and not net.stem.patch else None
        assert of(cost(net, res)) == counted(net, res), (net, res)
        kinds |= {s.block for s in net.stages}
    assert kinds == set(BLOCKS)


def test_torchvision_builds_the_same():
    "Parameters of every network torchvision has too, but for the three RegNets it rounds otherwise."
    import torch, torchvision.models as m
    same = {f'EN-B{i}': f'efficientnet_b{i}' for i in range(8)} | {f'ResNet-{n}': f'resnet{n}' for n in (18, 34, 50, 101, 152)}
    same |= {'ResNeXt-50-32x4d': 'resnext50_32x4d', 'ResNeXt-101-32x8d': 'resnext101_32x8d', 'ViT-B/16': 'vit_b_16', 'ViT-B/32': 'vit_b_32', 'ViT-L/16': 'vit_l_16', 'ViT-H/14': 'vit_h_14'}
    with torch.device('meta'):
        for ours, theirs in same.items(): assert cost(named_net(ours)).params == sum(p.numel() for p in getattr(m, theirs)().parameters()), ours
    for kind in 'XY':
        for ours, theirs in {'400MF': '400mf', '800MF': '800mf', '1.6GF': '1_6gf', '3.2GF': '3_2gf', '8.0GF': '8gf', '16GF': '16gf'}.items():
            a, b = cost(named_net(f'RegNet{kind}-{ours}')).params, sum(p.numel() for p in getattr(m, f'regnet_{kind.lower()}_{theirs}')().parameters())
            assert (a == b) != ((kind, ours) in {('X', '400MF'), ('Y', '800MF'), ('Y', '8.0GF')}), (kind, ours)


def test_regnet_names_tell_their_macs():
    "Within the tolerance the design-space paper keeps."
    for n in zoo():
        if n.startswith('RegNet') and n[6] in 'XY':
            size = n.split('-')[1]; told = float(size[:-2])*dict(M=1e6, G=1e9)[size[-2]]
            assert abs(cost(named_net(n)).macs/told - 1) < 0.05, n


def test_printed_rows():
    got = [reproduce(r) for r in printed_rows()]
    assert len(got) == 22 and sum(g['exact'] is True for g in got) == 21 and sum(g['exact'] is None for g in got) == 1


def test_printed_rows_against_the_reference():
    "Every row of the reference: printed values, and our integers."
    rows = {r.name.replace('ResNet-50', 'ResNet50').replace('ResNeXt-50', 'ResNeXt50'): r for r in printed_rows()}
    for ref in golden('dollar_fast_scaling')['rows']:
        row, p = rows.pop(ref['name']), ref['published']
        assert [float(row.macs_g), float(row.params_m), float(row.acts_m), float(row.minutes)] == [p['flops_B'], p['params_M'], p['acts_M'], p['time_min_per_epoch']], ref['name']
        if not ref.get('reproduced'): assert network_of(row) is None; continue
        c, want = pycls_cost(network_of(row)), ref['reproduced']
        assert of(c) == (want['flops'], want['params'], want['acts']), ref['name']
        assert cost(network_of(row)).macs == want['macs_no_bias']
    assert not rows


def uniform(g=0, r=64): return Net((Stage('conv', 8, 64, 1, k=1, g=g),), stem=None, classes=0, r=r, channels=64)


@pytest.mark.parametrize('rule,s,g', [('d', 4, 0), ('w', 4, 0), ('r', 4, 0), ('dw', 16, 0), ('wr', 16, 0), ('dr', 16, 0), ('dwr', 64, 0), ('dWr', 2**20, 0), ('w', 4, 16), ('w only', 4, 16), ('g only', 4, 16)])
def test_tables_1_to_4_exactly(rule, s, g):
    got = growth(cost(uniform(g)).total, cost(scale(uniform(g), rule, s, UNROUNDED)).total, s)
    assert got == pytest.approx(theory(rule), abs=1e-6)


@pytest.mark.parametrize('a', [0, 0.2, 1/3, 0.5, 0.8, 1])
def test_any_alpha(a):
    t = theory(alpha_rule(a))
    assert (t['macs'], t['params'], t['acts']) == pytest.approx((1, (1 + a)/2, (2 - a)/2))


@pytest.mark.parametrize('name', ['EN-B0', 'RegNetY-4GF-224', 'RegNetZ-500MF'])
def test_slopes_of_real_networks(name):
    for rule in ('d', 'w', 'r', 'dw', 'wr', 'dr', 'dwr', 'dWr', 0.5):
        got, want = measured_exponents(named_net(name), rule), theory(rule)
        assert all(abs(got[k] - want[k]) < 0.08 for k in got), (rule, got)


def test_scaling_is_pure_and_one_changes_nothing():
    for name in ('EN-B0', 'RegNetZ-500MF', 'ResNet-50', 'ViT-S/16'):
        net = named_net(name)
        for rule in RULES: assert scale(net, rule, 1).stages == net.stages and scale(net, rule, 1).r == net.r, (name, rule)
        c = compare(net, 'dWr', 4)
        assert c.base == named_net(name) and 2.5 < c.after.macs/c.before.macs < 6


def test_scaled_networks_build():
    for name in ('EN-B0', 'RegNetZ-500MF', 'ResNeXt-50', 'ViT-Ti/16'):
        for rule in ('dWr', 'dr', 0.6):
            net = scale(named_net(name), rule, 3)
            assert of(cost(net)) == counted(net)


@pytest.mark.parametrize('make,says', [
    (lambda: Stage('res', 2, 64, g=-4), 'group width g'), (lambda: Stage('res', 2, 64, g=2.5), 'group width g'), (lambda: Stage('res', 2, 100, g=16), 'not divisible'),
    (lambda: Stage('res', 0, 64), 'd of a res stage'), (lambda: Stage('res', 2, 64, k=4), 'odd'), (lambda: Stage('rex', 2, 64), 'no block'),
    (lambda: scale(named_net('EN-B0'), 'w', -2), 'scale factor s is -2'), (lambda: scale(named_net('EN-B0'), 'w', float('nan')), 'scale factor s'), (lambda: alpha_rule(1.5), 'alpha is 1.5'),
    (lambda: as_rule('dwR2'), 'no rule'), (lambda: named_net('EN-B9'), 'EN-B'), (lambda: named_net('ResNet-51'), "Did you mean 'ResNet-50'"), (lambda: rescale(named_net('EN-B0'), d=0), 'multiplier d is 0'),
    (lambda: cost(named_net('ViT-B/16'), 200), 'multiples of 16'), (lambda: cost(named_net('EN-B0'), 1.5), 'resolution'), (lambda: Net(()), 'no stages')])
def test_bad_input_is_one_sentence(make, says):
    with pytest.raises(LayerscaleError) as e: make()
    assert says in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('make, text', [
    (lambda: Stem(192, 16, 2, patch=True), 'give the stem stride 16 too'), (lambda: Stem('big'), "w of the stem is 'big'"),
    (lambda: Stage('basic', 2, 64, se=.25), 'a basic block has no se'), (lambda: Stage('conv', 2, 64, b=4), 'a conv block has no b'),
    (lambda: Net((Stage('conv', 1, 48, g=4),)), 'has 12 groups and reads 32 channels'), (lambda: Net((Stage('vit', 2, 96, 1, b=4, g=32),)), 'needs a stem of patches'),
    (lambda: Net((Stage('vit', 2, 96, 1, b=4, g=32), Stage('vit', 2, 192, 1, b=4, g=32)), Stem(96, 16, 16, patch=True)), 'stage 2, a vit, is 192 wide and reads 96'),
    (lambda: Net((Stage('res', 2, 64),), act='swish'), "activation 'swish'"), (lambda: Net((Stage('res', 2, 64),), classes='ten'), "classes of net is 'ten'"),
    (lambda: Net((Stage('res', 2, 64),), head_w=12.5), 'head_w of net is 12.5')])
def test_what_is_no_network_has_no_price(make, text):
    with pytest.raises(LayerscaleError, match=text): make()


def test_the_checked_number_is_the_one_that_is_kept():
    assert Stage('res', 2.0, 64.0) == Stage('res', 2, 64)
    assert type(cost(Net((Stage('res', 2.0, 64),))).total.macs) is int
    mixed = Stage('mbconv', 2.0, 64, b=6, se=np.float32(.25), g=1.0)
    assert [type(getattr(mixed, k)) for k in ('d', 'w', 'b', 'se', 'g')] == [int, int, float, float, int]
    assert type(Net((mixed,), Stem(32.0), r=224.0).r) is int and type(Stem(32.0).w) is int


@pytest.mark.parametrize('bad', ['2', '0.5', None, True, [2], 10**400, -1, float('nan'), 10**10, b'2'])
def test_text_and_impossible_numbers_are_refused(bad):
    for k in ('d', 'w', 'stride', 'k', 'b', 'g', 'se'):
        with pytest.raises(LayerscaleError, match=' is '): Stage(**dict(block='res', d=2, w=64) | {k: bad})
    for k in ('w', 'k', 'stride', 'pool', 'patch'):
        if not (k in ('pool', 'patch') and bad is True):
            with pytest.raises(LayerscaleError, match=f'{k} of the stem is '): Stem(**{k: bad})
    for k in ('r', 'channels', 'head_w', 'classes', 'ends_scale'):
        if not (k == 'ends_scale' and bad is True):
            with pytest.raises(LayerscaleError, match=f'{k} of net is '): Net((Stage('res', 1, 64),), **{k: bad})
    for k in ('k', 'b', 'ratio', 'cross'):
        with pytest.raises(LayerscaleError, match=' is '): csp.CspStage(**{k: bad})


def test_makers_of_networks_refuse_text():
    from layerscale_nb.nets.ladder import v4_large
    from layerscale_nb.nets.yolo import Yolo, yolov8
    from layerscale_nb.nets.vit import vit
    from layerscale_nb.nets.zoo import resnet
    for make, text in ((lambda: resnet(50, '32', 4), "groups is '32'"), (lambda: resnet(50, 32, 10**400), 'g0 is 1000'),
                       (lambda: vit('B', '16'), "patch is '16'"), (lambda: v4_large(5, w='a'), "width is 'a'"),
                       (lambda: yolov8(('1', 1, 512)), "depth is '1'"), (lambda: yolov8((1, 1)), 'no scale'),
                       (lambda: Yolo(nc='8'), "number of classes is '8'"), (lambda: Yolo(w=10**400), 'width is 1000')):
        with pytest.raises(LayerscaleError, match=text): make()


def test_parts_of_another_type_are_refused():
    for stages in ((), 'res', ('res',), [dict(block='res', d=1, w=8)]):
        with pytest.raises(LayerscaleError, match='stages'): Net(stages)
    with pytest.raises(LayerscaleError, match='stem of net'): Net((Stage('res', 1, 64),), dict(w=32))
    with pytest.raises(LayerscaleError, match='no block'): Stage(['res'], 1, 64)
    assert Net([Stage('res', 1, 64)]) == Net((Stage('res', 1, 64),))