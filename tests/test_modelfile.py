"A model yaml of a stranger: nothing of it runs, all that Ultralytics ships count, and a broken one is a sentence."
import contextlib
import copy
import datetime
import json
import os
import random
import re
from pathlib import Path

import pytest
import torch
import yaml

from layerscale_nb.cli import main
from layerscale_nb.nets.count import count
from layerscale_nb.core import LayerscaleError
from layerscale_nb.nets.ladder import named_yolo
from layerscale_nb.nets.find import find, cost_of, yolo_of
from layerscale_nb.cost import Count
from layerscale_nb.nets.modelfile import anchor_row, anchored, by_ultralytics, check_rows
from layerscale_nb.nets.yolo import Yolo, build_yolo, quiet_ultralytics
from layerscale_nb.nets.layer import cost

DOWN = [-1, 1, 'Conv', [64, 3, 2]]
NET = dict(nc=8, scales=dict(n=[.33, .25, 1024], s=[.33, .5, 512]), scale='n',
           backbone=[DOWN, [-1, 1, 'Conv', [128, 3, 2]], [-1, 3, 'C2f', [128, True]], [-1, 1, 'Conv', [256, 3, 2]],
                     [-1, 1, 'SPPF', [256, 5]]],
           head=[[-1, 1, 'nn.Upsample', [None, 2, 'nearest']], [[-1, 2], 1, 'Concat', [1]], [-1, 3, 'C2f', [128]],
                 [[7, 4], 1, 'Detect', ['nc']]])


def changed(base=NET, **rows):
    "The network with other entries; `_2` is row 2 of the backbone, `h_2` row 2 of the head."
    out = copy.deepcopy(base)
    for k, v in rows.items():
        part, _, at = k.rpartition('_')
        if at.isdigit(): out['head' if part == 'h' else 'backbone'][int(at)] = v
        else: out[k] = v
    return out


def write(path, cfg):
    path.write_text(yaml.safe_dump(cfg, sort_keys=False, allow_unicode=True), encoding='utf-8')
    return str(path)


# code in a file

class Evil:
    "A pickle that makes a file when it is opened."
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (Path(self.path),)


def evil_yaml(place, call, folder, ran):
    "A yaml that makes the file `ran` if a part of it runs; `call` does so when it is evaluated."
    torch.save(dict(ema=Evil(ran), model=Evil(ran)), folder/'evil.pt')
    write(folder/'inner.yaml', changed(activation=f'[{call}, nn.SiLU()][1]', reg_max=8))
    rows = {'argument': ['Conv', [128, 3, call]], 'nested argument': ['Conv', [128, [call], 2]],
            'dunder': ['nn.__class__', [call]], 'module opens a yaml': ['DetectionModel', ['inner.yaml']],
            'module opens a pickle': ['load_checkpoint', ['evil.pt']]}
    if place in rows: return changed(_1=[-1, 1, *rows[place]])
    entries = {'activation': dict(activation=f'[{call}, nn.SiLU()][1]'), 'scale': dict(scale=call),
               'activation after a module': dict(activation=f'nn.SiLU() if {call} is None else 1'),
               'anchors': dict(anchors=call, h_3=[[7, 4], 1, 'Detect', ['nc', 'anchors']])}
    return changed(**entries[place])


@pytest.mark.parametrize('place', ['activation', 'activation after a module', 'argument', 'nested argument', 'dunder',
                                   'module opens a pickle', 'module opens a yaml', 'anchors', 'scale'])
def test_no_code_of_a_yaml_runs(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = tmp_path/'ran'
    call = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    path = write(tmp_path/'a.yaml', evil_yaml(place, call, tmp_path, ran))
    assert main(['count', path, '--imgsz', '64']) == 2 and not ran.exists()
    said = capsys.readouterr().err
    assert 'a.yaml' in said and said.count('\n') == 1
    assert main(['time', path, '--imgsz', '64']) == 2 and not ran.exists()


@pytest.mark.parametrize('place', ['activation', 'module opens a pickle', 'module opens a yaml'])
def test_the_exploits_are_real(place, tmp_path, monkeypatch):
    "What the test above refuses does run where Ultralytics is asked; if this fails, it proves nothing any more."
    monkeypatch.chdir(tmp_path)
    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel
    call = f"__import__('pathlib').Path({str(tmp_path/'ran')!r}).touch()"
    with contextlib.suppress(Exception): DetectionModel(evil_yaml(place, call, tmp_path, tmp_path/'ran'), verbose=False)
    assert (tmp_path/'ran').exists()


@pytest.mark.parametrize('text, act', [
    ('nn.ReLU()', None), ('torch.nn.LeakyReLU(0.1)', 'LeakyReLU'), ('nn.SiLU()', 'SiLU'), ('nn.Mish()', 'Mish'),
    (' nn.Hardtanh(min_val=-1, max_val=2) ', None)])
def test_an_activation_costs_nothing_and_is_kept(text, act, tmp_path):
    net = find(write(tmp_path/'a.yaml', changed(activation=text)))
    assert (net.act if act else None) == act
    assert cost_of(net, 64).total == cost(yolo_of(copy.deepcopy(NET), 'a.yaml'), 64).total
    module = build_yolo(net) if act else net
    assert re.sub(r'\W.*', '', str(module.model[0].act)) == re.search(r'(\w+)\(', text)[1]


@pytest.mark.parametrize('text', [
    'nn.SiLU', 'SiLU()', 'nn.functional.relu(1)', 'nn.ReLU(print(1))', 'nn.ReLU(**{"inplace": True})', 'nn.SiLU();',
    '('*3000, 'nn.PReLU(1000000000)', 5, True, ['nn.SiLU()'], 'nn.Sequentiel()'])
def test_other_activations_are_refused(text, tmp_path):
    path = write(tmp_path/'a.yaml', changed(activation=text))
    with pytest.raises(LayerscaleError, match='activation is|the number 1000000000'): cost_of(path, 64)


def test_a_failed_build_leaves_the_activation_of_others(tmp_path):
    quiet_ultralytics()
    from ultralytics.nn.modules import Conv
    before = Conv.default_act
    path = write(tmp_path/'a.yaml', changed(activation='nn.ReLU()', _1=[-1, 1, 'Conv', [128, 'word', 2]]))
    with pytest.raises(LayerscaleError, match='row 1'): cost_of(path, 64)
    assert Conv.default_act is before


def test_a_variable_of_the_reader_is_no_argument(tmp_path):
    for word in ('layers', 'd', 'ch', 'm', 'base_modules', 'args'):
        path = write(tmp_path/'a.yaml', changed(_1=[-1, 1, 'Conv', [128, 3, word]]))
        with pytest.raises(LayerscaleError, match=rf"row 1 \(Conv\): the argument '{word}'"): cost_of(path, 64)


def classifier(*args):
    "A yaml of one TorchVision row and a head for a thousand classes."
    return dict(nc=1000, backbone=[[-1, 1, 'TorchVision', list(args)]], head=[[-1, 1, 'Classify', ['nc']]])


def test_weights_are_not_loaded_for_a_count(tmp_path, monkeypatch):
    import torchvision
    def refuse(*args, **kw): pytest.fail('weights were asked for')
    for name in ('torch.hub.load_state_dict_from_url', 'torch.hub.download_url_to_file', 'urllib.request.urlopen'):
        monkeypatch.setattr(name, refuse)
    p = cost_of('yolo11-cls-resnet18', 224)
    bare = count(torchvision.models.resnet18(weights=None), (1, 3, 224, 224))
    assert p.total.params == 13_115_432 == bare.params - 513_000 + 512*1280 + 2*1280 + 1281*1000
    assert p.total.macs == 1_846_953_984 == bare.macs - 512_000 + 49*512*1280 + 1_280_000
    for args in ([512, 'resnet18'], [512, 'resnet18', 'IMAGENET1K_V1', True, 2]):
        assert cost_of(write(tmp_path/'a.yaml', classifier(*args)), 224).total == p.total
    for name in ('fasterrcnn_resnet50_fpn', '../evil.pt', 'resnet19'):
        path = write(tmp_path/'a.yaml', classifier(512, name, 'DEFAULT'))
        with pytest.raises(LayerscaleError, match=r'row 0 \(TorchVision\)'): cost_of(path, 224)


# every file that Ultralytics ships

def shipped():
    import importlib.util
    root = Path(importlib.util.find_spec('ultralytics').origin).parent/'cfg'/'models'
    return sorted(root.rglob('*.yaml'))


def least_scale(path):
    "The letter of its smallest scale, None if it has no scales."
    scales = yaml.safe_load(path.read_text(encoding='utf-8')).get('scales') or {}
    return next((k for k in ('n', 's') if k in scales), next(iter(scales), None))


SAMPLE = slice(None) if os.environ.get('LAYERSCALE_ALL') else slice(0, None, 6)  # LAYERSCALE_ALL=1: all, a minute


@pytest.mark.parametrize('path', shipped()[SAMPLE], ids=lambda p: p.stem)
def test_every_shipped_yaml_counts(path):
    net = find(path, least_scale(path))
    p = cost_of(net, 128)
    assert p.total.macs > 1e7 and p.total.params > 1e5
    if not isinstance(net, Yolo): assert p.total.params == sum(v.numel() for v in net.parameters())


@pytest.mark.parametrize('name, macs, params', [
    ('yolov8n-world', 5_552_497_664, 4_204_111), ('yolov8n-worldv2', 5_343_380_480, 3_695_183),
    ('yolov8s-worldv2', 16_360_616_960, 12_759_880), ('yoloe-v8n', 5_006_361_600, 5_538_406),
    ('yoloe-11n', 3_905_619_200, 5_005_286), ('yoloe-11n-seg', 5_535_008_000, 5_258_054),
    ('yoloe-26n-seg', 6_486_796_800, 5_615_540), ('yoloe-26n', 4_309_363_200, 5_061_540)])
def test_models_that_read_texts(name, macs, params):
    "Parameters as Ultralytics' files state them (world, worldv2, 26n-seg); macs as torch's own counter finds them."
    p = cost_of(name)
    assert (p.total.macs, p.total.params, p.size) == (macs, params, (640, 640))


def test_texts_are_as_many_as_classes(tmp_path):
    "80 classes of YOLOE at 128x128 have 336 places; each class less is one product of 512 numbers less at each."
    from torch.utils.flop_counter import FlopCounterMode
    path = next(p for p in shipped() if p.stem == 'yoloe-v8')
    cfg = yaml.safe_load(path.read_text(encoding='utf-8'))
    for nc in (80, 20):
        module = find(write(tmp_path/'yoloe-v8n.yaml', cfg | dict(nc=nc)))
        with torch.no_grad(), FlopCounterMode(display=False) as f: out = module(torch.zeros(1, 3, 128, 128))[0]
        assert out.shape == (1, 4 + nc, 336) and count(module, (1, 3, 128, 128)).macs == f.get_total_flops()//2


# files of the yolov5 repository

def v5_yaml(scale='n', **kw):
    "YOLOv5 v6.0 in the form of its own repository."
    net = named_yolo(f'yolov5{scale}')
    rows = json.loads(json.dumps(net.rows[:-1])) + [[list(net.rows[-1][0]), 1, 'Detect', ['nc', 'anchors']]]
    anchors = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
    numbers = dict(nc=80, depth_multiple=net.d, width_multiple=net.w, anchors=anchors)
    return numbers | dict(backbone=rows[:10], head=rows[10:]) | kw


@pytest.mark.parametrize('scale, params', [
    ('n', 1_872_157), ('s', 7_235_389), ('m', 21_190_557), ('l', 46_563_709), ('x', 86_749_405)])
def test_yolov5_of_its_own_repository(scale, params, tmp_path):
    "In closed form, with the parameters that the repository states."
    p = cost_of(write(tmp_path/f'yolov5{scale}.yaml', v5_yaml(scale)))
    assert p.how == 'closed form' and p.total.params == params and p.total == cost(named_yolo(f'yolov5{scale}'), 640).total


def test_a_yolov5_file_is_the_built_module(tmp_path):
    cfg = v5_yaml(nc=3, anchors=[[10, 13, 16, 30]]*3, activation='nn.LeakyReLU(0.1)', ch=3)
    path = write(tmp_path/'mine.yaml', cfg)
    net = find(path)
    assert net.act == 'LeakyReLU' and net.resolved[-1].args == (2, (((10.0, 13.0), (16.0, 30.0)),)*3)
    assert count(build_yolo(net), (1, 3, 64, 64)).total == cost_of(path, 64).total
    head = anchor_row(cfg, cfg['head'][-1])
    slow = anchored(cfg, check_rows(cfg, path), head, path, None, (net.d, net.w, 1024))
    assert count(slow, (1, 3, 64, 64)).total == cost_of(path, 64).total


def test_a_yolov5_file_with_other_modules_is_counted(tmp_path):
    "Ghost convolutions have no closed form here: Ultralytics builds the body, the anchor head stays ours."
    cfg = v5_yaml(nc=3)
    cfg['backbone'][1] = [-1, 1, 'GhostConv', [128, 3, 2]]
    p = cost_of(write(tmp_path/'yolov5n-ghost.yaml', cfg), 64)
    plain = cost(yolo_of(v5_yaml(nc=3), 'a.yaml'), 64)
    conv, ghost = 16*32*9 + 2*32, 16*16*9 + 2*16 + 16*25 + 2*16  # its second half is 5x5, one channel at a time
    assert p.how == 'counted' and p.total.params == plain.params - conv + ghost and p.total.acts == plain.acts


@pytest.mark.parametrize('kw, text', [
    (dict(anchors=None), 'anchors is None'), (dict(anchors=[[10, 13]]), 'for each of the 3 maps'),
    (dict(anchors=[[10, 13, 5]]*3), 'all of one length'), (dict(anchors=[[10, 'a']]*3), "side of an anchor is 'a'"),
    (dict(anchors=[[], [], []]), 'all of one length'), (dict(ch=1), 'ch is 1')])
def test_broken_anchors_are_a_sentence(kw, text, tmp_path):
    with pytest.raises(LayerscaleError, match=f'a.yaml: .*{text}'): cost_of(write(tmp_path/'a.yaml', v5_yaml(**kw)), 64)


# what is no network

@pytest.mark.parametrize('kind, text', [
    ('MP', r"row 2 \(MP\): no module 'MP'"), ('C2ff', "no module 'C2ff'. Did you mean 'C2f'")])
def test_an_unknown_module_is_named_with_its_row(kind, text, tmp_path):
    path = write(tmp_path/'a.yaml', changed(_2=[-1, 1, kind, [64]]))
    with pytest.raises(LayerscaleError, match=f'a.yaml: .*{text}'): cost_of(path, 64)


@pytest.mark.parametrize('row, text', [
    ([-1, 1, 'Conv', [-64, 3, 2]], 'number of channels is -64'),
    ([-1, 1, 'Conv', [0, 3, 2]], 'number of channels is 0'),
    ([-1, 1, 'Conv', [64, 0, 2]], 'kernel side is 0'), ([-1, 1, 'Conv', [64, 3, 0]], 'stride is 0'),
    ([-1, 1, 'Conv', [64, 3, -2]], 'stride is -2'), ([-1, 3, 'C2f', [-128, True]], 'number of channels is -128'),
    ([-1, 0, 'C2f', [128, True]], 'number of repeats is 0'), ([-1, -3, 'C2f', [128]], 'number of repeats is -3'),
    ([-1, True, 'C2f', [128]], 'number of repeats is True'), ([-1, 1, 'SPPF', [0, 5]], 'number of channels is 0'),
    ([-1, 2, 'C3k2', [-64, True]], 'its first number is -64'), ([-1, 1, 'GhostConv', [0, 3]], 'its first number is 0'),
    ([-1, 1, 'DWConv', [64, 0]], 'row 1'), ([-1, 1, 'nn.ConvTranspose2d', [0, 2, 2]], 'row 1|has no numbers'),
    ([-1, 1, 'HGBlock', [0, 64, 3]], 'its first number'),
    ([-1, 1, 'GhostConv', [True, 3]], 'its first number is True'),
    ([-1, 1, 'Conv', [64, 3, 2, 0, 1, 1, 0]], 'cannot build .*row 6: '),
    ([1, 1, 'Conv', [64, 3, 2]], 'reads row 1'), ([-3, 1, 'Conv', [64, 3, 2]], 'reads row -3'),
    ([-2, 1, 'Conv', [64, 3, 2]], 'reads row -2'), ([None, 1, 'Conv', [64, 3, 2]], 'reads row None'),
    ([[], 1, 'Concat', [1]], 'from'), ([-1, 1, 'Conv', [10**10, 3, 2]], 'number of channels is 10000000000'),
    ([-1, 10**9, 'GhostConv', [64, 3]], 'too large'), ([-1, 1, 'Conv', [[64], 3, 2]], 'row 1'),
    ([-1, 1, 'Conv', []], 'row 1')])
def test_a_row_that_no_network_has(row, text, tmp_path):
    path = write(tmp_path/'a.yaml', changed(_1=row))
    with pytest.raises(LayerscaleError, match=f'a.yaml.*({text})'): cost_of(path, 64)


def test_a_list_that_holds_itself_is_a_sentence(tmp_path):
    rows = 'nc: 8\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[{}, 1, Concat, {}]]\nscales: {{n: {}}}\n'
    for at in range(3):
        ends = ['[-1]', '[1]', '[1, 1, 64]']
        ends[at] = '&a [*a]'
        (tmp_path/'a.yaml').write_text(rows.format(*ends))
        with pytest.raises(LayerscaleError, match='a.yaml'): cost_of(tmp_path/'a.yaml', 64)


def test_modules_of_torchvision_are_counted(tmp_path):
    cfg = changed(_2=[-1, 1, 'torchvision.ops.DropBlock2d', [0.1, 3]])
    assert cost_of(write(tmp_path/'a.yaml', cfg), 64).how == 'counted'


@pytest.mark.parametrize('kw, text', [
    (dict(scales=5), 'scales is 5'), (dict(scales=['n']), 'scales is'), (dict(scale=['n']), r"scale is \['n'\]"),
    (dict(scale=3), 'scale is 3'), (dict(scales=dict(n=['a', 1, 1024])), "scale n: depth is 'a'"),
    (dict(scales=dict(n=[.33, None, 1024])), 'scale n: width is None'),
    (dict(scales=dict(n=[.3, .2, -5])), 'max_channels is -5'),
    (dict(scales=dict(n=[.33, .25, 1024, 7])), 'scale n is'), (dict(nc='eighty'), "number of classes is 'eighty'"),
    (dict(nc=0), 'number of classes is 0'), (dict(nc=[8]), 'number of classes is'),
    (dict(nc=10**400), 'number of classes is 100'),
    (dict(reg_max='x y'), 'a.yaml: the argument'), (dict(backbone=None), 'is not .from'),
    (dict(backbone=[], head=[]), 'no rows')])
def test_an_entry_of_another_kind(kw, text, tmp_path):
    path = write(tmp_path/'a.yaml', changed(**kw))
    with pytest.raises(LayerscaleError, match=text): cost_of(path, 64)


@pytest.mark.parametrize('own, asked, text', [('n', None, 'leave out scale'), (['n'], None, 'leave out scale'),
                                              (None, 'n', 'leave out --scale')])
def test_a_scale_without_scales(own, asked, text, tmp_path):
    path = write(tmp_path/'a.yaml', changed(scales=None, scale=own))
    with pytest.raises(LayerscaleError, match=f'a.yaml has no scales; {text}'): cost_of(path, 64, asked)


@pytest.mark.parametrize('kw, text', [
    (dict(stages=5), 'stages is 5'), (dict(stages=[5]), 'stage 1: expected'), (dict(stem='big'), ', stem: expected'),
    (dict(stages=[dict(block=['res'], d=1, w=8)]), 'no block'), (dict(ends_scale='no'), "ends_scale of a is 'no'"),
    (dict(stages=[dict(block='res', d='1', w=8)]), "d of a res stage is '1'"),
    (dict(stages=[dict(block='res', d=1, w=8, b=None)]), 'ratio b is None')])
def test_a_description_of_another_kind(kw, text, tmp_path):
    path = write(tmp_path/'a.yaml', dict(stages=[dict(block='res', d=1, w=8)]) | kw)
    with pytest.raises(LayerscaleError, match=f'a.yaml.*{text}'): cost_of(path, 64)


def test_a_short_file_cannot_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr('layerscale_nb.nets.modelfile.HEAVIEST', 4e6)
    many = dict(nc=8, backbone=[DOWN, [-1, 1, 'nn.Flatten', []]], head=[[-1, 999, 'nn.Linear', [500, 500]]])
    wide = changed(scales=dict(n=[1, 10**6, 10**9]), reg_max=8)
    for cfg, text in ((many, 'more than 4 MB'), (wide, 'too large to be built')):
        with pytest.raises(LayerscaleError, match=text): cost_of(write(tmp_path/'a.yaml', cfg), 64)


# anything at all

V5 = changed(anchors=[[10, 13, 16, 30]]*2, h_3=[[7, 4], 1, 'Detect', ['nc', 'anchors']])
BASES = [NET, changed(_2=[-1, 2, 'C3k2', [128, False, 0.25]], reg_max=16, end2end=True),
         changed(kpt_shape=[17, 3], activation='nn.ReLU()', h_3=[[7, 4], 1, 'Pose', ['nc', 'kpt_shape']]),
         changed(h_2=[-1, 1, 'C2fAttn', [128, 64, 2]], h_3=[[7, 4], 1, 'WorldDetect', ['nc', 512, False]]),
         {k: v for k, v in V5.items() if k[:5] != 'scale'}, classifier(512, 'resnet18', 'DEFAULT', True, 2),
         dict(r=64, stem=dict(w=16, pool=False), classes=5, act='silu',
              stages=[dict(block='res', d=1, w=32, g=8, se=.25), dict(block='mbconv', d=2, w=64, b=4, k=5)])]
VALUES = [None, True, 0, -1, 1, 2, 3, 64, 1.5, -64, 10**9, 10**400, 1e308, float('nan'), float('inf'), '', 'text', 'nc',
          'anchors', 'layers', 'None', '3', '[1, 2]', 'nn.SiLU()', '__import__("os").getpid()', 'é\u2028x', 'x'*5000,
          '('*3000, b'bytes', [], {}, [1], [[1]], [-1, -1], {'a': 1}, datetime.date(2020, 1, 1), 'Conv', 'Detect', 'MP',
          'TorchVision', 'Concat', 'nn.Conv2d', 'load_checkpoint', 'SPP']
KEYS = ['scales', 'scale', 'activation', 'anchors', 'kpt_shape', 'reg_max', 'nc', 'max_channels', 5, None, 'zz']


def places(x, at=()):
    "The way to every value inside nested lists and dicts."
    for k, v in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield (*at, k)
        yield from places(v, (*at, k))


def mutated(rnd):
    "One of `BASES` with one to three values changed, taken out, put in or copied elsewhere."
    cfg = copy.deepcopy(rnd.choice(BASES))
    for _ in range(rnd.choice((1, 1, 1, 2, 3))):
        *way, last = rnd.choice(list(places(cfg)))
        inside = cfg
        for k in way: inside = inside[k]
        how = rnd.random()
        if how < .7: inside[last] = copy.deepcopy(rnd.choice(VALUES))
        elif how < .8: del inside[last]
        elif isinstance(inside, list): inside.insert(last, copy.deepcopy(rnd.choice([*VALUES, inside[last]])))
        else: inside[rnd.choice(KEYS)] = copy.deepcopy(rnd.choice(VALUES))
        if not list(places(cfg)): break
    return cfg


@pytest.mark.parametrize('start', range(0, 400, 50))
def test_a_mutated_yaml_has_a_price_or_a_sentence(start, tmp_path):
    for seed in range(start, start + int(os.environ.get('LAYERSCALE_FUZZ', 50))):
        rnd = random.Random(seed)
        path = write(tmp_path/rnd.choice(['a.yaml', 'yolov8n.yaml']), mutated(rnd))
        try: p = cost_of(path, 64)
        except LayerscaleError as e:
            said = str(e)
            assert '\n' not in said and len(said) < 500 and Path(path).name in said, f'seed {seed}: {said[:500]}'
        except BaseException as e: pytest.fail(f'seed {seed}: {type(e).__name__}: {e}')
        else: assert isinstance(p, Count) and min(vars(p.total).values()) >= 0, f'seed {seed}'
