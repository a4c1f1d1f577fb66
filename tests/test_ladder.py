"The YOLO ladder: published totals, built modules to the integer, and the way through training, saving and export."
import random
import time
from dataclasses import replace

import pytest

from conftest import golden
from layerscale_nb.nets.count import count
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.ladder import ABLATION, LADDER, ablation, named_yolo, row, v4_csp, v4_large, v5, with_head
from layerscale_nb.timing.latency import scale_to_latency
from layerscale_nb.nets.yolo import ACTIVATIONS, Yolo, build_yolo, identity, row_costs, quiet_ultralytics, to_dict
from layerscale_nb.nets.layer import cost
from layerscale_nb.nets.memory import check_memory, memory_bytes

BODIES = ('yolov4-tiny', 'yolov4-csp', 'yolov4-p5', 'yolov4-p6', 'yolov4-p7', 'yolov5n', 'yolov8n')


def reference(repo, name): return golden(name.removesuffix('.json'))


def total(net, size=None):
    c = cost(net, size or net.imgsz)
    return dict(params=c.params, mac_conv=c.macs, act_conv=c.acts)


@pytest.mark.parametrize('name', ['yolov4-csp', 'yolov4-p5', 'yolov4-p6', 'yolov4-p7'])
def test_totals_of_the_authors_model_files(repo, name):
    got = next(f for f in reference(repo, 'scaled_yolov4.json')['facts'] if f['id'] == name)['reproduced']
    assert total(named_yolo(name)) == {k: got[k] for k in ('params', 'mac_conv', 'act_conv')}
    assert named_yolo(name).imgsz == got['size']


@pytest.mark.parametrize('fact, net', [('darknet README yolov4-tiny@416', named_yolo('yolov4-tiny')), ('darknet README yolov4-csp@640', v4_csp(renorm=False)), ('darknet README yolov4-csp@512', v4_csp(renorm=False)),
                                       ('darknet README yolov4-p5@896', v4_large(5, renorm=False)), ('darknet README yolov4-p6@1280', v4_large(6, renorm=False)),
                                       ('T8 D53-FPNSPP', ablation(False, False, 'LeakyReLU')), ('T8 CD53s-CPANSPP', ablation())])
def test_totals_of_the_darknet_files(repo, fact, net):
    got = next(f for f in reference(repo, 'scaled_yolov4.json')['facts'] if f['id'] == fact)['reproduced']
    assert total(net, got['size']) == {k: got[k] for k in ('params', 'mac_conv', 'act_conv')}


@pytest.mark.parametrize('fact, csp, down', [('T8 D53-FPNSPP', False, False), ('T8 CD53s-CFPNSPP', True, False), ('T8 D53-PANSPP', False, True), ('T8 CD53s-CPANSPP', True, True)])
def test_ablation_rounds_to_print(repo, fact, csp, down):
    f = next(f for f in reference(repo, 'scaled_yolov4.json')['facts'] if f['id'] == fact)
    c = cost(ablation(csp, down), 608)
    assert round(c.params/1e6) == f['published']['params_M']
    assert c.flops/1e9 == pytest.approx(f['reproduced']['bflops_conv'], rel=1e-12)
    assert round(f['reproduced'].get('bflops_darknet', c.flops/1e9)) == f['published']['flops_B']


@pytest.mark.parametrize('scale', 'nsmlx')
def test_yolov5_table(repo, scale):
    r = next(r for r in reference(repo, 'yolov5.json')['rows'] if r['name'] == f'yolov5{scale}')
    for key, got in r['reproduced'].items():
        size, nc = (int(''.join(c for c in part if c.isdigit())) for part in key.split('_'))
        assert total(v5(scale, nc), size) == {k: got[k] for k in ('params', 'mac_conv', 'act_conv')}
    c = cost(v5(scale), 640)
    assert round(2*(c.macs + c.acts)/1e9, 1) == r['published']['flops_B']


@pytest.mark.parametrize('scale', 'nsmlx')
def test_yolov8_table(repo, scale):
    r = next(r for r in reference(repo, 'yolov8_family.json')['rows'] if r['name'] == f'yolov8{scale}')
    assert total(named_yolo(f'yolov8{scale}')) == {k: r['reproduced'][k] for k in ('params', 'mac_conv', 'act_conv')}


@pytest.mark.parametrize('seed', range(14))
def test_random_scales_to_the_integer(seed):
    r = random.Random(seed)
    name = (BODIES + tuple(ABLATION))[seed % (len(BODIES) + len(ABLATION))]
    net = named_yolo(name, r.choice([1, 3, 20])).rescaled(r.uniform(0.1, 0.5), r.uniform(0.05, 0.2))
    if seed % 2: net = with_head(net)
    h, w = net.stride*r.randint(1, 2), net.stride*r.randint(1, 3)
    assert count(build_yolo(net), (1, 3, h, w)).total == cost(net, (h, w)).total


def test_full_size_module_to_the_integer():
    assert count(build_yolo(named_yolo('yolov4-tiny')), (1, 3, 64, 64)).total == cost(named_yolo('yolov4-tiny'), 64).total


@pytest.mark.parametrize('name', list(LADDER))
def test_counting_is_quick(name):
    net = named_yolo(name)
    def once():
        t = time.process_time(); cost(replace(net), net.imgsz); return time.process_time() - t  # other processes aside
    assert min(once() for _ in range(9)) < 5e-3


@pytest.mark.parametrize('act, kind', [('SiLU', 'SiLU'), ('Mish', 'Mish'), ('LeakyReLU', 'LeakyReLU')])
def test_activation_is_the_named_one_and_nothing_global(act, kind):
    quiet_ultralytics()
    from ultralytics.nn.modules import Conv
    before = Conv.default_act
    model = build_yolo(replace(Yolo(d=0.33, w=0.06, nc=2), act=act))
    assert {type(m.act).__name__ for m in model.modules() if isinstance(m, Conv) and not isinstance(m.act, type(None))} == {kind}
    assert Conv.default_act is before
    assert identity(Yolo(act=act)) != identity(Yolo()) or act == 'SiLU'


def test_stage_split_is_a_split():
    "Two convolutions with half the outputs are one convolution whose output is split."
    import torch
    whole, x = torch.nn.Conv2d(6, 8, 3, padding=1), torch.rand(1, 6, 5, 5)
    halves = [torch.nn.Conv2d(6, 4, 3, padding=1) for _ in range(2)]
    for i, c in enumerate(halves): c.weight.data, c.bias.data = whole.weight.data[4*i:4*i + 4], whole.bias.data[4*i:4*i + 4]
    assert torch.allclose(whole(x), torch.cat([c(x) for c in halves], 1), atol=1e-6)


def test_join_first_or_norm_first():
    "Norm and activation on each path, then join: the same as join, then norm and activation."
    import torch
    a, b = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    norm, act = torch.nn.BatchNorm2d(8).train(), torch.nn.Mish()
    parts = [torch.nn.BatchNorm2d(4).train() for _ in range(2)]
    assert torch.allclose(act(norm(torch.cat([a, b], 1))), torch.cat([act(p(x)) for p, x in zip(parts, (a, b))], 1), atol=1e-6)


@pytest.mark.parametrize('make, says', [
    (lambda: named_yolo('yolov4p6'), "Did you mean 'yolov4-p6'"), (lambda: named_yolo('resnet'), 'no network'), (lambda: v4_large(8), '5, 6 or 7'), (lambda: v5('q'), "no scale 'q'"),
    (lambda: cost(named_yolo('yolov4-p7'), 1504), 'multiple of the stride 128; the next one is 1536'), (lambda: cost(named_yolo('yolov4-p6'), '416x128'), 'stride 64'),
    (lambda: replace(named_yolo('yolov4-csp'), act='Mishh'), "Did you mean 'Mish'"), (lambda: with_head(v5('n'), 'v9'), "head 'v9'"), (lambda: with_head(v5('n'), 'anchor', 0), 'anchors is 0'),
    (lambda: build_yolo(replace(named_yolo('yolov4-p7'), w=40.0)), 'needs about .* are free'), (lambda: check_memory(named_yolo('yolov4-p7'), 1536, 8, True, free=24e9), 'to train, 24 GB are free'),
    (lambda: replace(v5('n'), imgsz=0), 'image size is 0'), (lambda: scale_to_latency(-1), 'time limit'),
    (lambda: cost(Yolo(((-1, 1, 'Conv', (8, 3, 2)), (-1, 1, 'Conv', (8, 3, 2)), ((-1, 0), 1, 'Concat', (1,)))), 64), 'cannot be joined'),
    (lambda: cost(Yolo(((-1, 3, 'Bottleneck', (8, True)),)), 64), 'Bottleneck')])
def test_bad_input(make, says):
    with pytest.raises(LayerscaleError, match=says): make()


def test_scaling_under_a_limit():
    fake = lambda net: cost(net, net.imgsz).macs/1e10
    last = None
    for bound in (17, 40, 90, 200, 400):
        r = scale_to_latency(bound, time_of=fake)
        assert r.ms <= bound and fake(r.net) == r.ms
        macs = cost(r.net, r.net.imgsz).macs
        assert last is None or macs > last
        last = macs
    stages_first = [t[0] for t in scale_to_latency(90, time_of=fake).tried[:3]]
    assert stages_first == ['yolov4-p5', 'yolov4-p6', 'yolov4-p7']
    with pytest.raises(LayerscaleError, match='over the limit'): scale_to_latency(10, time_of=fake)


def test_rows_are_numbered():
    g = []
    assert [row(g, -1, 'Conv', 8, 3, 2), row(g, 0, 'Conv', 8, 3, 1), row(g, (1, 0), 'Concat', 1)] == [0, 1, 2]
    assert g[1][0] == -1 and g[2][0] == (-1, 0)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "One epoch of every body on a few drawn scenes."
    from layerscale_nb.detect.augment import make_store
    from layerscale_nb.detect.datasets import roadscenes
    from layerscale_nb.detect.store import to_frames

    from layerscale_nb.detect.recipe import Recipe
    from layerscale_nb.detect.train import fit, save_checkpoint
    import torch
    ds, folder, out = roadscenes(8, 4, size=(128, 128)), tmp_path_factory.mktemp('ladder'), {}
    stores = [make_store(to_frames(x, (128, 128)), torch.device('cpu')) for x in (ds.train, ds.val)]
    for name in BODIES + ('d53-fpnspp-leaky', 'cd53s-cfpnspp-mish'):
        net = with_head(named_yolo(name, len(ds.names)).rescaled(0.1, 0.07))
        s = fit(net, *stores, Recipe(epochs=2, batch=4), device=torch.device('cpu')).finish()
        out[name] = (s, ds, save_checkpoint(s, ds.names, folder/name/'best.pt', (128, 128)))  # Ultralytics takes a file named yolov5n.pt for its own and would download another
    return out


@pytest.mark.parametrize('name', BODIES + ('d53-fpnspp-leaky', 'cd53s-cfpnspp-mish'))
def test_trains_saves_and_predicts(trained, name):
    import numpy as np
    s, ds, path = trained[name]
    assert len(s.rows) == 2 and all(r['loss'] == r['loss'] for r in s.rows)
    from ultralytics import YOLO
    model = YOLO(path)
    assert model.names == dict(enumerate(ds.names))
    r = model.predict(np.zeros((128, 128, 3), np.uint8), imgsz=128, conf=1e-6, verbose=False, device='cpu')[0]
    assert r.boxes.data.shape[1] == 6


def test_checkpoint_needs_ultralytics_alone(trained, tmp_path):
    "The weights open in a process in which our package cannot be imported."
    import subprocess, sys
    _, _, path = trained['yolov4-tiny']
    code = f'''
import sys
class No:
    def find_spec(self, name, *a):
        if name.startswith("layerscale_nb"): raise ImportError(name)
sys.meta_path.insert(0, No())
from ultralytics import YOLO
import numpy as np
print(len(YOLO({str(path)!r}).predict(np.zeros((128, 128, 3), np.uint8), imgsz=128, verbose=False, device="cpu")))
'''
    import os
    env = os.environ | dict(YOLO_CONFIG_DIR=str(tmp_path), YOLO_OFFLINE='1')
    r = subprocess.run([sys.executable, '-c', code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.strip().endswith('1'), r.stderr[-2000:]


@pytest.mark.parametrize('name', BODIES)
def test_exports_to_onnx(trained, name):
    pytest.importorskip('onnx', reason='onnx is not installed: the export is not tested')
    import onnx
    from ultralytics import YOLO
    out = YOLO(trained[name][2]).export(format='onnx', imgsz=128, simplify=False, opset=17, verbose=False)
    onnx.checker.check_model(onnx.load(out))


def test_anchor_head_is_known_and_to_dict_is_plain():
    net = v5('n', 3)
    d = to_dict(net)
    assert [r[2] for r in d['head']][-7:] == ['nn.Conv2d', 'nn.Flatten']*3 + ['Concat'] and 'activation' not in d
    assert to_dict(named_yolo('yolov4-tiny'))['activation'] == ACTIVATIONS['LeakyReLU']
    assert row_costs(net, 640)[-1].params == sum((c + 1)*3*8 for c in (64, 128, 256))


@pytest.mark.parametrize('name', BODIES)
def test_realised_of_a_thinner_body(name):
    from layerscale_nb.nets.scale import realised
    net = named_yolo(name)
    assert realised(net, net) == dict(d=1.0, w=1.0, r=1.0, g=1.0)
    d, w = (realised(net.rescaled(0.5, 0.5), net)[k] for k in 'dw')
    assert d == 1.0 if name == 'yolov4-tiny' else 0.4 < d <= 1.0
    assert 0.49 < w < 0.52


def test_ablation_configs_are_the_table(repo):
    "Eight files, each a network of Table 8; the figures in their comments are the printed ones, and the count agrees."
    import re
    from layerscale_nb.study.variants import load_configs
    paths = sorted((repo/'configs'/'ablation').glob('*.yaml'))
    s = load_configs(paths)
    assert {v.net for v in s.variants} == set(ABLATION) and [v.net for v in s.variants] == [v.name for v in s.variants] == [p.stem for p in paths]
    for p in paths:
        params, bflops = map(int, re.search(r'80 classes: (\d+) M parameters, (\d+) BFLOPs', p.read_text()).groups())
        fact = 'T8 ' + {'d53-fpn': 'D53-FPNSPP', 'd53-pan': 'D53-PANSPP', 'cd53s-c': 'CD53s-CFPNSPP' if 'cfpn' in p.stem else 'CD53s-CPANSPP'}[p.stem[:7]]
        f = next(f for f in reference(repo, 'scaled_yolov4.json')['facts'] if f['id'] == fact)
        c = cost(named_yolo(p.stem), 608)
        assert (params, bflops) == (f['published']['params_M'], f['published']['flops_B']) and round(c.params/1e6) == params
        assert round(f['reproduced'].get('bflops_darknet', c.flops/1e9)) == bflops and c.flops/1e9 == pytest.approx(f['reproduced']['bflops_conv'], rel=1e-12)
