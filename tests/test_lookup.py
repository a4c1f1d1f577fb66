"Names and files of others: the closed form is taken only where it is exact, and every mistake is a sentence."
import json

import pytest
import torch
import yaml
from torch import nn

from layerscale_nb.cli import main
from layerscale_nb.nets.count import count
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.find import by_ultralytics, find, from_yaml, pick_scale, cost_of
from layerscale_nb.nets.zoo import named_net

SMALL = dict(nc=80, scales=dict(n=[.33, .25, 1024]), backbone=[[-1, 1, 'Conv', [64, 3, 2]], [-1, 1, 'Conv', [128, 3, 2]], [-1, 3, 'C2f', [128, True]], [-1, 1, 'Conv', [256, 3, 2]]],
             head=[[[2, 3], 1, 'Detect', ['nc']]])


def changed(**kw):
    "The small graph with other top-level entries, or other rows by number."
    out = json.loads(json.dumps(SMALL)) | {k: v for k, v in kw.items() if k[0] != '_'}
    for k, v in kw.items():
        if k[0] == '_': out['backbone'][int(k[1:])] = v
    return out


def write(path, cfg): path.write_text(yaml.safe_dump(cfg, sort_keys=False)); return str(path)


@pytest.mark.parametrize('cfg', [SMALL, changed(_1=[-1, 4, 'Conv', [128, 3, 2]]), changed(_1=[-1, 1, 'Conv', [128, 2, 2]]), changed(reg_max=8), changed(end2end=True), changed(head=[[[2, 3], 1, 'Detect', [20]]])],
                         ids='as-it-is repeats even-kernel reg_max end2end own-classes'.split())
def test_a_foreign_yaml_costs_what_ultralytics_builds(cfg, tmp_path):
    path = write(tmp_path/'a.yaml', cfg)
    model = by_ultralytics(cfg, path, *pick_scale(cfg, path))
    assert cost_of(path, 64).total == count(model, (1, 3, 64, 64)).total


@pytest.mark.parametrize('cfg, text', [
    (changed(head=None), 'is not .from, repeats'), (changed(nc=None), 'number of classes is None'), (changed(nc='eighty'), "number of classes is 'eighty'"), (changed(scales=dict(n=.33)), 'scale n is 0.33'),
    (changed(_1=[7, 1, 'Conv', [64, 3, 2]]), 'a.yaml'), (changed(_1=[-1, 1, 'Conv', [64, 'three', 1]]), 'a.yaml'), (changed(_1='Conv'), "row 'Conv' is not")])
def test_a_broken_yolo_yaml_is_a_sentence(cfg, text, tmp_path):
    with pytest.raises(LayerscaleError, match=text): cost_of(write(tmp_path/'a.yaml', cfg), 64)


def test_partial_blocks_are_not_built_without_a_transition():
    from layerscale_nb.nets.csp import CspStage, break_even, build_stage, saving
    from layerscale_nb.nets.osa import cio
    for make, text in ((lambda: build_stage(CspStage("dark", 64, 2, ratio=.5)), "needs a transition"), (lambda: CspStage("dark", 64, 2, ratio=.5, transition="paper"), "two shares that make 1"),
                       (lambda: saving("foo"), "block type"), (lambda: saving("dark", 3, .5, "v4"), "transition"), (lambda: break_even("dark", 1), "nothing is saved"), (lambda: cio(16, 32, 2, "csp"), "growth g is 32")):
        with pytest.raises(LayerscaleError, match=text): make()


def test_a_broken_date_is_a_sentence(tmp_path):
    (tmp_path/'a.yaml').write_text('stages: 2020-13-45')
    with pytest.raises(LayerscaleError, match='a.yaml.*not readable as YAML'): from_yaml(tmp_path/'a.yaml')


def test_a_stem_may_be_left_out(tmp_path):
    net = from_yaml(write(tmp_path/'a.yaml', dict(stem=None, channels=64, stages=[dict(block='res', d=1, w=64)])))
    assert net.stem is None


def test_large_and_small_g_are_two_networks():
    assert named_net('ViT-g-14').name == 'ViT-g/14' and named_net('ViT-G-14').name == 'ViT-G/14' and named_net('vit-s-16').name == 'ViT-S/16'
    with pytest.raises(LayerscaleError, match='may be ViT-g/14 or ViT-G/14'): named_net('vit_g_14')
    with pytest.raises(LayerscaleError, match='may be ViT-g/14 or ViT-G/14'): find('vit-g/14')


@pytest.mark.parametrize('text, name', [
    ('en_b0', 'EN-B0'), ('EfficientNet B3', 'EN-B3'), ('RESNET\u201350', 'ResNet-50'), ('resnet\u221250', 'ResNet-50'),
    ('RegNetY\u20114.0gf', 'RegNetY-4.0GF'), ('vit-b/16', 'ViT-B/16')])
def test_a_paper_name_in_any_spelling_opens_no_file(text, name, monkeypatch):
    monkeypatch.setattr('layerscale_nb.nets.find._ultralytics_file', lambda name: pytest.fail('files were looked through'))
    assert find(text).name == name


def test_no_name_is_a_sentence(capsys):
    assert main(['count', '']) == 2 and "no network ''" in capsys.readouterr().err


def test_scales_are_chosen_not_guessed(tmp_path, capsys):
    both = changed(scales=dict(n=[.33, .25, 1024], m=[.67, .75, 768]))
    own = write(tmp_path/'custom.yaml', both)
    with pytest.raises(LayerscaleError, match='has the scales n, m; choose one'): find(own)
    assert cost_of(own, 64, 'm').name == 'custom (m)' and cost_of(write(tmp_path/'yolov8m.yaml', both), 64).name == 'yolov8m'
    for name in ('yolov8n', 'EN-B0', 'yolo11n'):
        with pytest.raises(LayerscaleError, match='leaves no scale to choose'): find(name, 'x')
    assert cost_of('yolo11', 64, 'n').total == cost_of('yolo11n', 64).total
    assert main(['scale', own, '--scale', 'n', '--s', '2', '--json']) == 0 and json.loads(capsys.readouterr().out)['s'] == 2


RESNET50 = 4_089_184_256, 25_557_032, 224


@pytest.mark.parametrize('name, macs, params, side', [
    ('timm:resnet50.a1_in1k', *RESNET50), ('timm/resnet50.a1_in1k', *RESNET50), ('hf_hub:timm/resnet50.a1_in1k', *RESNET50),
    ('hf-hub:timm/resnet50', *RESNET50), ('timm:hf_hub:timm/resnet50', *RESNET50),
    ('timm/convnext_tiny.in12k', 4_463_841_792, 36_910_477, 224),
    ('timm/convnext_tiny.in12k_ft_in1k_384', 13_092_317_184, 28_589_128, 384)])
def test_names_as_the_cards_of_timm_print_them(name, macs, params, side):
    "A tag says for which classes and image size its weights are; nothing is fetched."
    pytest.importorskip('timm', reason='timm is not installed here: pip install timm to run this test')
    p = cost_of(name)
    assert (p.total.macs, p.total.params, p.size) == (macs, params, (side, side))


@pytest.mark.parametrize('name, text', [
    ('timm:resnet50.a1_in1', "no weights 'a1_in1' of resnet50. Did you mean 'resnet50.a1_in1k'"),
    ('timm/resnet5', "Did you mean 'resnet50'"), ('hf_hub:someone/resnet50', "no model source 'hf_hub:'"),
    ('timm:', "no model ''"), ('timm:zzzzzzzz', "no model 'zzzzzzzz'.*and .* more")])
def test_a_wrong_name_of_timm_is_a_short_sentence(name, text):
    pytest.importorskip('timm', reason='timm is not installed here: pip install timm to run this test')
    with pytest.raises(LayerscaleError, match=text) as e: find(name)
    assert len(str(e.value)) < 1200


def test_json_has_no_not_a_number(capsys):
    assert main(['scale', 'EN-B0', '--s', '1', '--json']) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=lambda c: pytest.fail(c))['exponents'] == dict(macs=None, params=None, acts=None)


def test_a_wrong_transposed_convolution_is_named():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(32, 8, 2, 2))
    with pytest.raises(LayerscaleError, match='32 channels'): count(net, (1, 3, 16, 16))


def test_your_module_stays_as_it_is():
    from layerscale_nb.timing.trace import network_calls
    from layerscale_nb.timing.measure import time_module
    from layerscale_nb.timing.forecast import time_network
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    net(torch.rand(2, 3, 16, 16)).sum().backward()
    before, grad = {k: v.clone() for k, v in net.state_dict().items()}, net[0].weight.grad.clone()
    network_calls(net, 32)
    time_network(net, (1,), 32, 'cpu', 'bf16', repeats=1)
    time_module(net, (16, 16), torch.device('cpu'), 2, mode='train', repeats=1)
    assert net.training and torch.equal(net[0].weight.grad, grad) and all(v.dtype == before[k].dtype and torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_two_times_have_quartiles_between_them():
    from itertools import cycle
    from time import sleep
    from layerscale_nb.timing.measure import time_call
    waits = cycle((.001, .02))
    t = time_call(lambda: sleep(next(waits)), repeats=2, warmup=0)
    assert 0 < t.ms_q1 < t.ms < t.ms_q3 < 40


def test_benchmarks_without_rows_say_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['bench', 'acts', '--minutes', '1e-9', '--device', 'cpu', '--out', 'a.csv']) == 2 and 'nothing was measured' in capsys.readouterr().err
    for text in ('name,value\na,1\n', 'base,rule,s\nEN-B0,w\n'):
        (tmp_path/'a.csv').write_text(text)
        assert main(['bench', 'acts', '--minutes', '1e-9', '--device', 'cpu', '--out', 'a.csv']) == 2 and 'a.csv: no such table, the column' in capsys.readouterr().err
        assert (tmp_path/'a.csv').read_text() == text
