"YOLOv5's neck and head on other backbones: reference costs, traced layers, names, training, checkpoints, bad input."
import sys

import pytest
import torch

from conftest import golden
from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.anchors import build_detector
from layerscale_nb.detect.augment import make_store
from layerscale_nb.detect.datasets import roadscenes
from layerscale_nb.detect.optim import make_optimizer
from layerscale_nb.detect.store import to_frames
from layerscale_nb.detect.recipe import Recipe, check_recipe
from layerscale_nb.detect.train import fit, save_checkpoint
from layerscale_nb.nets.backbones import BACKBONES, STUDY_NETS, Backbone, backboned, named_detector
from layerscale_nb.nets.count import count
from layerscale_nb.nets.find import find
from layerscale_nb.nets.ladder import with_head
from layerscale_nb.nets.layer import Network, cost
from layerscale_nb.nets.memory import memory_bytes
from layerscale_nb.nets.yolo import quiet_ultralytics
from layerscale_nb.study.variants import PRESETS, Study, Variant, networks, with_options

timm = pytest.importorskip('timm', reason='timm is not installed: pip install layerscale-nb[backbones]')
REFERENCE = golden('yolov5_backbones')


@pytest.mark.parametrize('row', REFERENCE['rows'], ids=lambda r: f'{r["name"]}@{r["res"]}')
def test_classifiers_agree_with_the_reference(row):
    name, deploy = row['name'].removesuffix('_deploy'), row['name'].endswith('_deploy')
    with torch.device('cpu' if deploy else 'meta'): model = timm.create_model(name)
    if deploy: model = timm.utils.reparameterize_model(model)
    c = count(model, (1, 3, row['res'], row['res']))
    assert (c.params, c.macs, c.acts) == (row['params'], row['macs'], row['act_conv'] + 1000)


@pytest.mark.parametrize('name', ['resnet18', 'densenet121', 'inception_v4', 'repvgg_a0'])
def test_extractors_keep_all_but_the_classifier(name):
    row = next(r for r in REFERENCE['rows'] if r['name'] == name and r['res'] == 320)
    c = cost(Backbone(name), 320)
    assert (c.params, c.macs, c.acts) == (row['params_without_classifier'], row['mac_conv'], row['act_conv'])


@pytest.mark.parametrize('name', BACKBONES.values())
def test_traced_layers_are_the_module(name):
    b = Backbone(name)
    assert isinstance(b, Network)
    for size in ((160, 192), (96, 320)):
        assert cost(b, size).total == count(b.build(), (1, 3, *size)).total
    assert [s for _, s, _ in b.maps] == [8, 16, 32] and memory_bytes(b, 160, 2) > 4*cost(b, 160).params


@pytest.mark.parametrize('name', ['mobilenetv3', 'ghostnet', 'inceptionv4', 'repvgg-deploy'])
def test_detectors_are_built_as_described(name):
    for head in ('v8', 'anchor'):
        net = with_head(named_detector(f'yolov5n-{name}', 4), head)
        assert count(build_detector(net).eval(), (1, 3, 96, 160)).total == cost(net, (96, 160)).total


def test_inception_is_padded_to_the_grid():
    net = backboned('inception_v4')
    pads = [l.args for l in net.resolved if l.kind == 'nn.ZeroPad2d']
    assert pads == [((1, 2, 1, 2),), ((1, 1, 1, 1),), ((1, 1, 1, 1),)]
    assert sum(l.op.kind == 'pad' for l in net.layers(320)) == 3
    assert net.rows[0][3][0].sides((320, 320)) == ((37, 37), (18, 18), (8, 8))


def test_what_the_study_says_of_costs():
    c = {n: cost(named_detector(n, 20), 320) for n in STUDY_NETS}
    for key in ('params', 'macs'):
        most = {n: getattr(v, key) for n, v in c.items()}
        assert max(most, key=most.get) == 'yolov5-inceptionv4' and most['yolov5m'] < 0.5*most['yolov5-inceptionv4']


def test_names(capsys):
    assert find('yolov5-MobileNetV3').resolved == backboned('mobilenetv3_large_100').resolved
    assert find('yolov5n-mobilenetv3_small_100').d == 0.33 and find('yolov5-resnet-18').name == 'yolov5-resnet-18'
    assert main(['count', 'yolov5-mobilenetv3']) == 0 and 'closed form' in capsys.readouterr().out
    assert main(['count', 'yolov5-mobilenetv']) == 2
    assert "Did you mean 'mobilenetv" in capsys.readouterr().err
    s = Study(variants=tuple(Variant(n, net=n) for n in ('yolov5n', 'yolov5n-ghostnet')))
    assert [n.resolved[-1].kind for n in networks(s, 3).values()] == ['Detect']*2
    assert [v.net for v in PRESETS['yolov5-study'].variants] == list(STUDY_NETS)
    r = with_options(PRESETS['yolov5-study'], epochs=3, lr=0.01, optimizer='muon').recipe
    assert (r.epochs, r.batch, r.lr, r.optimizer) == (3, 32, 0.01, 'muon')


@pytest.mark.parametrize('make, sentence', [
    (lambda: backboned('vit_tiny_patch16_224'), 'gives maps at strides 16, .*and a YOLOv5 neck reads 8, 16 and 32'),
    (lambda: cost(named_detector('yolov5-inceptionv4'), 64), 'in an image of 64x64: it is too small'),
    (lambda: backboned('resnet8'), "timm has no model 'resnet8'. Did you mean"),
    (lambda: backboned('resnet18', 'q'), "YOLOv5 neck 'q'"),
    (lambda: named_detector('yolov5-resnet18').rescaled(d=2), 'has a backbone of one depth and width'),
    (lambda: Backbone('resnet18').rescaled(w=2), 'has one depth and one width'),
    (lambda: cost(named_detector('yolov5-resnet18'), 100), 'multiple of the stride 32'),
    (lambda: check_recipe(Recipe(optimizer='adam')), "optimizer is 'adam'. Known: muon, sgd.")])
def test_bad_input_is_one_sentence(make, sentence):
    with pytest.raises(LayerscaleError, match=sentence) as e: make()
    assert '\n' not in str(e.value)


def test_without_timm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'timm', None)
    assert main(['count', 'yolov5-resnet34']) == 2
    assert 'timm, which is not installed. Run: pip install "layerscale-nb[backbones]"' in capsys.readouterr().err


@pytest.fixture(scope='module')
def frames():
    ds = roadscenes(4, 2, size=(96, 160))
    return ds.names, *(make_store(to_frames(x, (96, 160), []), torch.device('cpu')) for x in (ds.train, ds.val))


def test_the_first_small_pictures_are_large_enough(frames):
    "Inception-V4 takes 96x160 and not the 64x128 of the first steps: said before anything is built."
    names, train, val = frames
    with pytest.raises(LayerscaleError, match='it is too small.* The first 20% of the steps see such pictures'):
        fit(named_detector('yolov5n-inceptionv4', len(names)), train, val, Recipe(epochs=1, batch=4), 0, torch.device('cpu'))


@pytest.mark.parametrize('name, head', [('yolov5n-repvgg', 'v8'), ('yolov5n-ghostnet', 'anchor'), ('yolov5n-inceptionv4', 'v8')])
def test_trained_saved_opened(frames, tmp_path, name, head):
    names, train, val = frames
    run = fit(with_head(named_detector(name, len(names)), head), train, val, Recipe(epochs=1, batch=4, small=0), 0, torch.device('cpu'))
    row = run.finish().rows[-1]
    assert row['loss'] > 0 and 0 <= row['recall'] <= 1
    path = save_checkpoint(run, names, tmp_path/'best.pt', (96, 160))
    yolo = quiet_ultralytics().YOLO(path)
    if head == 'v8': assert {type(m).__module__.split('.')[0] for m in yolo.model.modules()} == {'torch', 'timm', 'ultralytics'}
    assert len(yolo.predict(torch.rand(1, 3, 96, 160), verbose=False)) == 1
    if name != 'yolov5n-ghostnet': return
    pytest.importorskip('onnx')
    assert yolo.export(format='onnx', imgsz=(96, 160), simplify=False, verbose=False).endswith('.onnx')


def test_sgd_moves_all_weights_and_goes_on(frames, tmp_path):
    names, train, val = frames
    from layerscale_nb.nets.yolo import Yolo
    net, recipe = Yolo(d=0.33, w=0.1, nc=len(names)), Recipe(epochs=2, batch=2, optimizer='sgd', lr=0.01, weight_decay=5e-4)
    whole = fit(net, train, val, recipe, 0, torch.device('cpu')).finish()
    assert type(whole.optimizer) is torch.optim.SGD
    assert {g['weight_decay'] for g in whole.optimizer.param_groups} == {5e-4, 0.}
    part = iter(fit(net, train, val, recipe, 0, torch.device('cpu'), tmp_path))
    for p in part:
        if p.row: break
    part.close()
    rest = fit(net, train, val, recipe, 0, torch.device('cpu'), tmp_path).finish()
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), rest.model.state_dict().values()))
    moved = sum(len(g['params']) for g in make_optimizer(whole.model, 0.1, sgd=True).param_groups)
    assert moved == sum(p.requires_grad for p in whole.model.parameters())
