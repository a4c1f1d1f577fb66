"The closed form against the built module and against print."
import random

import pytest

from conftest import golden
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.yolo import YOLOV8, Yolo, build_yolo, identity, row_costs, to_dict, yolov8, yolov8_rows
from layerscale_nb.nets.layer import cost


def counted(net, h, w):
    "(macs, params, acts) of the built module by hooks: every Conv2d, nothing else has weights."
    import torch
    total = [0, 0]
    def hook(m, i, o):
        total[0] += o.shape[2]*o.shape[3]*m.weight.numel(); total[1] += o[0].numel()
    model = build_yolo(net).eval()
    for m in model.modules():
        if isinstance(m, torch.nn.Conv2d): m.register_forward_hook(hook)
    with torch.no_grad(): model(torch.zeros(1, 3, h, w))
    return total[0], sum(p.numel() for p in model.parameters()), total[1]


@pytest.mark.parametrize('seed', range(12))
def test_random_nets_to_the_integer(seed):
    r = random.Random(seed)
    net = Yolo(d=r.uniform(0.1, 1.5), w=r.uniform(0.06, 0.5), max_channels=r.choice([256, 512, 768, 1024]), nc=r.choice([1, 3, 5, 20, 80, 120]))
    h, w = 32*r.randint(1, 5), 32*r.randint(1, 9)
    c = cost(net, (h, w))
    assert (c.macs, c.params, c.acts) == counted(net, h, w)


def test_rows_are_ultralytics_rows():
    import ultralytics, yaml
    from pathlib import Path
    cfg = yaml.safe_load((Path(ultralytics.__file__).parent/'cfg'/'models'/'v8'/'yolov8.yaml').read_text())
    plain = lambda r: [list(r[0]) if isinstance(r[0], tuple) else r[0], r[1], r[2], list(r[3])]
    theirs = [[f, n, m, [None if a in ('None', None) else a for a in args]] for f, n, m, args in cfg['backbone'] + cfg['head']]
    assert [plain(r) for r in yolov8_rows()] == theirs
    assert {k: tuple(v) for k, v in cfg['scales'].items()} == YOLOV8


def test_reference_grid(repo):
    grid = golden('yolov8_layerscale')['reproduced']['grid']
    assert len(grid) >= 30
    for r in grid:
        c = cost(Yolo(d=r['depth'], w=r['width'], max_channels=r['max_channels'], nc=r['nc']), 640)
        assert c.params == r['params'] and round(c.flops) == round(r['gflops_2mac']*1e9) and round(c.acts) == round(r['act_conv_M']*1e6)


def test_layers_sum_to_the_total():
    net = yolov8('s')
    assert sum(row_costs(net, 320)) == cost(net, 320).total and len(row_costs(net, 320)) == len(net.rows)


@pytest.mark.parametrize('bad', [dict(d=0), dict(w=-1), dict(d=float('nan')), dict(w=float('inf')), dict(nc=0), dict(max_channels=0), dict(d='x')])
def test_bad_scale(bad):
    with pytest.raises(LayerscaleError, match='must be'): Yolo(**bad)


def test_unknown_module():
    with pytest.raises(LayerscaleError, match="no closed form for module 'C9f'"): cost(Yolo(rows=((-1, 1, 'C9f', (8,)),)), 64)


def test_size_not_a_multiple():
    with pytest.raises(LayerscaleError, match='multiple of the stride'): cost(yolov8('n'), (100, 320))


def test_scale_is_explicit():
    d = to_dict(Yolo(d=1., w=.25, nc=3).rescaled(0.33, 1))
    assert list(d['scales']) == [d['scale']] == ['own'] and d['scales']['own'] == [0.33, 0.25, 1024]


def test_realised_of_itself():
    net = yolov8('m')
    assert net.rescaled().dims() == net.dims() and identity(net) == identity(yolov8((0.67, 0.75, 768)))
