"CSP-ization: the hand-derived fractions, the sum over layers and the built module are one number."
import random
from fractions import Fraction
from xml.etree import ElementTree

import pytest

from conftest import golden
from layerscale_nb.nets.count import count
from layerscale_nb.core import LayerscaleError
from layerscale_nb.cost import Cost
from layerscale_nb.nets.csp import INNER, CspStage, around, break_even, build_stage, csp_ize, CspNet, per_block, saving, stage_convs
from layerscale_nb.nets.layer import cost
from layerscale_nb.timing.roofline import calls as calls_of
from layerscale_nb.timing.roofline import find_profile
from layerscale_nb.live.view import draw_view
from layerscale_nb.live.csp import break_even_part, compare_csp, csp_explorer, measure_ms, paths_part, shares_part, stage_ms
from layerscale_nb.nets.osa import OSA_FORMS, OsaBlock, build_osa, cio, osa_convs, osa_reads, receptive_field
from layerscale_nb.timing.roofline import TERMS, Profile, save_profile


def profile(form='sum', **rates):
    "An invented machine: the same rates for every kind of layer in a stage."
    kinds = ('1x1', 'spatial', 'depthwise', 'groups of 4', 'groups of 8', 'groups', 'norm', 'silu', 'add')
    return Profile('invented', 'none', 1, 'fp32', True, 1e9, form, {k: dict.fromkeys(TERMS, 0.) | rates for k in kinds}, 0, 0, 0)


HERE = profile(gmac=10., near_mb=.1, call=.01)


def reference(repo):
    return {f['id']: f for f in golden('scaled_yolov4')['facts']}


@pytest.mark.parametrize('seed', range(20))
def test_random_stages_to_the_integer(seed):
    import torch
    r = random.Random(seed)
    kind = r.choice(list(INNER))
    s = CspStage(kind, r.choice([64, 128, 192]) if kind == 'resx' else 4*r.randint(2, 24), r.randint(1, 5))
    if r.random() < 0.75: s = csp_ize(s, r.choice([0.25, 0.5, 0.75]), r.choice(['paper', 'yolov4']))
    h, w = r.randint(1, 9), r.randint(1, 9)
    module, x = build_stage(s), torch.rand(1, s.b, h, w)
    assert count(module, x).total == cost(s, (h, w)).total
    assert module(x.repeat(2, 1, 1, 1)).shape == (2, s.b, h, w)


@pytest.mark.parametrize('kind', INNER)
def test_layers_add_up_to_the_fraction(kind):
    for n in range(1, 8):
        r = Fraction(n, 8)
        for t in ('paper', 'yolov4'):
            s = CspStage(kind, 512, 6, float(r), float(1 - r), t)
            assert sum(c.weights for c in stage_convs(s)) == 512**2*(around(r, 1 - r, t) + 6*per_block(kind, r))


def test_tables_1_and_2(repo):
    ref = reference(repo)
    units = ref['T1']['reproduced']
    assert [float(per_block(k)) for k in ('res', 'resx', 'dark')] == [units['Res'], units['ResX'], units['Dark']]
    printed = ref['T2']['published']['reductions_pct']
    assert [round(100*float(saving(k)), 1) for k in ('res', 'resx', 'dark')] == printed
    for k, row in ref['T2']['reproduced']['reduction_with_3/4_at_k'].items():
        got = [100*float(saving(kind, int(k))) for kind in ('res', 'resx', 'dark')]
        assert max(abs(a - b) for a, b in zip(got, row)) <= 0.051, k


def test_break_even_is_the_first_k_that_saves():
    for kind in INNER:
        for t in ('paper', 'yolov4'):
            for r in (0.25, 0.5, 0.75):
                k = break_even(kind, r, t)
                assert saving(kind, k, r, t) > 0 and (k == 1 or saving(kind, k - 1, r, t) <= 0)


def test_darknet_53_as_printed(repo):
    ref = reference(repo)['CSPNet README ImageNet 256x256']['published']
    dark = [CspStage('dark', b, k) for b, k in zip((64, 128, 256, 512, 1024), (1, 2, 8, 8, 4))]
    csp = [CspStage('dark', 64, 1, 1.0, 1.0, 'yolov4')] + [csp_ize(s, transition='yolov4') for s in dark[1:]]
    for stages, name in ((dark, 'DarkNet-53'), (csp, 'CSPDarkNet-53')):
        c = cost(CspNet(tuple(stages)))
        norms = 2*(32 + sum(s.b + sum(x.cout for x in stage_convs(s)) for s in stages))
        assert [round((c.params - norms)/1e6, 2), round(c.flops/1e9, 2)] == ref[name]


def test_cspdarknet_stage(repo):
    f = reference(repo)['CSPDarknet stage']['reproduced']
    s = csp_ize(CspStage('dark', 512, 8), transition='yolov4')
    assert cost(s, 4).macs/(16*512**2) == f['yolov4-csp.cfg stage 512ch k=8 without its stride-2 conv, units whb^2']
    assert cost(CspStage('dark', 512, 8), 4).macs/(16*512**2) == f['Darknet53 stage k=8 without stride-2 conv']


@pytest.mark.parametrize('form', OSA_FORMS)
def test_osa_blocks_to_the_integer(form):
    import torch
    for b, g, k in ((32, 16, 1), (64, 16, 4), (48, 8, 6)):
        assert count(build_osa(b, g, k, form), (1, b, 4, 3)).total == cost(OsaBlock(b, g, k, form), (4, 3)).total
        assert [sum(n for _, n in parts) for parts in osa_reads(b, g, k, form).values()] == [c.cin for c in osa_convs(b, g, k, form)]


def test_tables_3_and_5(repo):
    got = reference(repo)['T3']['reproduced']['b=256,g=32,k=5']
    weights = lambda convs: sum(c.weights for c in convs)
    assert weights(osa_convs(256, 32, 5, 'dense')) == got['Dense'] and weights(osa_convs(256, 32, 5, 'osa')[:-1]) == got['OSA']
    for b, g, k in ((64, 16, 3), (128, 32, 5), (64, 8, 12)):
        assert (cio(b, g, k, 'pcb') < cio(b, g, k, 'csp')) == (k*g > b)
        assert (cio(b, g, k, 'pcb_half') < cio(b, g, k, 'csp')) == (k*g > b//2)


def test_receptive_field_rules():
    stage = [(3, 2), (3, 1)]
    assert receptive_field([(3, 1)]*4) == 9
    assert receptive_field(stage*2 + [(5, 1)]) - receptive_field(stage*2) == 4*4
    assert 2*receptive_field(stage*3) <= receptive_field(stage*4) <= 2*receptive_field(stage*3) + 5


@pytest.mark.parametrize('make, says', [
    (lambda: CspStage(k=0), 'number of blocks k is 0'), (lambda: CspStage(b=0), 'stage width b is 0'), (lambda: CspStage('darknet'), "Did you mean 'dark'"),
    (lambda: CspStage('resx', 100), 'multiple of 64'), (lambda: csp_ize(CspStage(b=66), 0.25), 'do not split'), (lambda: csp_ize(CspStage(), 1), 'nothing goes past'),
    (lambda: csp_ize(CspStage(), 0), 'partial ratio is 0'), (lambda: csp_ize(CspStage(), transition='v4'), 'transition'), (lambda: cost(CspStage(), 0), 'positive number of pixels'),
    (lambda: saving('dark', 0), 'number of blocks'), (lambda: osa_convs(7, 2, 2, 'pcb_half'), 'do not split'), (lambda: osa_convs(8, 2, 2, 'oas'), "Did you mean 'osa'"),
    (lambda: cost(CspNet((CspStage(),)*3), 100), 'multiple of the stride 8')])
def test_bad_input(make, says):
    with pytest.raises(LayerscaleError, match=says): make()


def test_pictures_say_what_they_show():
    r = compare_csp('res', 128, 4, profile=HERE)
    drawn = lambda f, *args: draw_view([f(compare_csp(*args) if args else r)])
    assert 'plain = 1' in drawn(shares_part) and (drawn(shares_part).count('<rect'), drawn(shares_part, 'res').count('<rect')) == (3, 2)
    assert 'pays from k = 10' in drawn(break_even_part)
    paths = drawn(paths_part, 'dark', 128, 4, 0.25)
    assert '32 through 4 x dark' in paths and '96 past' in paths
    for f in (paths_part, shares_part, break_even_part): ElementTree.fromstring(drawn(f))  # well formed


@pytest.mark.parametrize('kind', INNER)
def test_predicted_time_is_arithmetic_traffic_and_calls(kind):
    for s in (CspStage(kind, 128, 3), csp_ize(CspStage(kind, 128, 3)), csp_ize(CspStage(kind, 128, 3), 0.25, 'yolov4')):
        calls, c = calls_of(s, (20, 30)), cost(s, (20, 30))
        assert sum(k.n for k in calls) == 3*len(stage_convs(s)) + s.k + bool(s.transition)
        assert stage_ms(s, profile(call=2), (20, 30), 8) == 2*sum(k.n for k in calls)
        assert stage_ms(s, profile(gmac=1e9), (20, 30)) == pytest.approx(c.macs)
        written = c.acts*3 + 600*(3*s.k*s.outer + 2*(s.outer + s.past)*bool(s.transition))  # batch norm reads and writes, SiLU in place; then sums and the join
        read = 600*sum(x.cin + x.cout for x in stage_convs(s))
        assert stage_ms(s, profile(near_mb=1e6), (20, 30), 2) == pytest.approx(2*4*(written + read))
        both = [stage_ms(s, HERE, 20), stage_ms(s, profile('max', gmac=10., near_mb=.1, call=.01), 20)]
        assert both[1] < both[0] and stage_ms(s, HERE, '20x20') == both[0]


def test_the_calls_of_a_stage_are_what_runs():
    "The calls of a stage are the modules that run in it, with the maps they write."
    import torch
    for s in (CspStage('dark', 64, 2), csp_ize(CspStage('res', 64, 3), 0.25, 'yolov4')):
        wrote, module = {'conv': 0, 'norm': 0}, build_stage(s)
        for m in module.modules():
            kind = 'conv' if isinstance(m, torch.nn.Conv2d) else 'norm' if isinstance(m, torch.nn.BatchNorm2d) else None
            if kind: m.register_forward_hook(lambda m, i, o, kind=kind: wrote.__setitem__(kind, wrote[kind] + o.numel()))
        module(torch.rand(1, s.b, 6, 5))
        calls = calls_of(s, (6, 5))
        assert sum(c.n*c.out for c in calls if c.kind == 'norm') == wrote['norm'] and sum(c.n*c.out for c in calls if c.weights) == wrote['conv']


def test_a_profile_is_found_or_not(tmp_path, monkeypatch):
    from layerscale_nb.timing.forecast import PROFILE_FILE
    monkeypatch.chdir(tmp_path)
    assert find_profile() is None and find_profile(HERE) is HERE
    e = csp_explorer()
    assert 'layerscale profile' in e.note.value and 'predicted ms' not in e.out.value
    save_profile(HERE, PROFILE_FILE)
    assert find_profile() == HERE and find_profile(tmp_path/PROFILE_FILE) == HERE
    e = csp_explorer()
    assert 'invented' in e.note.value and 'predicted ms' in e.out.value
    with pytest.raises(LayerscaleError, match='no such file'): csp_explorer(profile='none.json')
    with pytest.raises(LayerscaleError, match="no rates for 'norm'"): stage_ms(CspStage(), Profile(**{**vars(HERE), 'rates': {'1x1': HERE.rates['1x1']}}))


def test_explorer_moves():
    e = csp_explorer(profile=HERE)
    for name, value in (('k', 9), ('b', 256), ('ratio', 0.25), ('kind', 'resx')):
        before = e.out.value
        e.set(**{name: value})
        assert e.out.value != before and e.out.value.count('<svg') == 3


def test_further_times_stand_beside_the_prediction():
    r = compare_csp('dark', 64, 2, profile=HERE, times=dict(measured=measure_ms, fixed=lambda s, size: float(s.k)))
    assert list(r['ms']) == ['predicted', 'measured', 'fixed'] and r['ms']['fixed'] == dict(plain=2., csp=2.)
    assert all(v > 0 for v in r['ms']['measured'].values()) and draw_view([shares_part(r)]).count('<rect') == 5
    e = csp_explorer(profile=HERE, device='cpu')
    before = e.out.value
    e.button.click()
    assert e.out.value != before and 'measured ms' in e.out.value


def test_torchs_own_counter_agrees():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    for kind in INNER:
        s = csp_ize(CspStage(kind, 128, 2), 0.25, 'yolov4')
        with FlopCounterMode(display=False) as counter, torch.no_grad(): build_stage(s).eval()(torch.rand(1, 128, 6, 5))
        assert counter.get_total_flops() == 2*cost(s, (6, 5)).macs


def test_charts_are_well_formed_and_their_names_apart():
    import re
    from layerscale_nb.svg import Mark, svg_chart
    same = [Mark('line', [1, 10], [1, 10], 'black', [n], [n]) for n in ('a & b', 'c < d', 'e')]
    for log in ('', 'x', 'y', 'xy'):
        chart = svg_chart([*same, Mark('dot', [2, 3], [4, 5], names=[1, 2], tips=['"', '>']), Mark('ring', [2], [4]), Mark('rule', [2, 9], names=['left', 'right'])], 'x', 'y', log=log)
        root = ElementTree.fromstring(chart)
        ends = [float(t.get('y')) for t in root if t.tag.endswith('text') and t.text in ('a & b', 'c < d', 'e')]
        assert len(ends) == 3 and all(b - a >= 13 for a, b in zip(ends, ends[1:]))
        assert [t.text for t in root.iter() if t.tag.endswith('title')] == ['a & b', 'c < d', 'e', '"', '>']
        assert all(0 <= float(v) <= 470 for v in re.findall(r' cx="([^"]+)"', chart))
    ElementTree.fromstring(svg_chart([], 'x', 'y', log='x'))  # nothing to show yet
