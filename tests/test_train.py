"The training step: the loss equals Ultralytics', processes share gradients, nothing waits, and what is missing is said."
import math
from dataclasses import replace

import pytest
import torch

from layerscale_nb.detect.augment import STILL, Augment, make_batch, make_store
from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.datasets import roadscenes
from layerscale_nb.detect.ddp import fit_on_ranks
from layerscale_nb.detect.store import to_frames
from layerscale_nb.detect.anchors import net_loss
from layerscale_nb.detect.loss import detection_loss
from layerscale_nb.study.runs import open_setting
from layerscale_nb.detect.recipe import Recipe, lr_at
from layerscale_nb.detect.train import AVERAGE_EVERY, clip_gradients, epoch_order, fit, start, train_step
from layerscale_nb.nets.yolo import Yolo, build_yolo
from layerscale_nb.table import read_rows

CPU = torch.device('cpu')


def flat(truth, size):
    "Padded truth in the form Ultralytics' loss reads."
    ok, (h, w) = truth['valid'], size
    box = truth['boxes'][ok]/torch.tensor([w, h, w, h])
    return dict(bboxes=torch.cat([(box[:, :2] + box[:, 2:])/2, box[:, 2:] - box[:, :2]], 1), cls=truth['labels'][ok].float()[:, None], batch_idx=ok.nonzero()[:, 0].float())


def random_truth(g, b, k, nc, size, crowd):
    "Random boxes from 3 pixels to half the frame, some images empty, some crowded at one place."
    h, w = size
    side = torch.exp(torch.rand(b, k, 2, generator=g)*math.log(h/2/3))*3
    place = torch.rand(b, k, 2, generator=g)*(0.1 if crowd else 1)
    low = place*(torch.tensor([w, h]) - side)
    valid = torch.arange(k) < torch.randint(0, k + 1, (b, 1), generator=g)
    return dict(boxes=torch.cat([low, low + side], -1)*valid[..., None], labels=torch.randint(nc, (b, k), generator=g)*valid, valid=valid)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('listed', [True, False])
def test_loss_is_ultralytics(seed, listed):
    nc, size = (1, 3, 80)[seed % 3], ((96, 320), (64, 64))[seed % 2]
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = build_yolo(replace(Yolo(d=.33, w=.125), nc=nc)).train()
    preds = model(torch.rand(4, 3, *size, generator=g))
    preds = {k: v if k == 'feats' else (v + torch.randn(v.shape, generator=g)*(seed % 4)).detach().requires_grad_() for k, v in preds.items()}
    truth = random_truth(g, 4, 12, nc, size, crowd=seed > 3)
    ours, theirs = detection_loss(preds, truth, listed=listed), model.loss(flat(truth, size), preds=preds)[0]/4
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), (ours, theirs)
    for a, b in zip(*(torch.autograd.grad(x.sum(), [preds['boxes'], preds['scores']]) for x in (ours, theirs))):
        assert float((a - b).abs().max()) < 1e-4*max(1., float(b.abs().max()))


@pytest.mark.parametrize('listed', [True, False])
def test_loss_without_any_box(listed):
    model = build_yolo(Yolo(d=.33, w=.125, nc=3)).train()
    preds = model(torch.rand(2, 3, 64, 64))
    truth = dict(boxes=torch.zeros(2, 1, 4), labels=torch.zeros(2, 1, dtype=torch.long), valid=torch.zeros(2, 1, dtype=torch.bool))
    loss = detection_loss(preds, truth, listed=listed)
    assert loss[0] == 0 and loss[2] == 0 and loss[1] > 0
    loss.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def tiny_stores(n=16, device=CPU):
    data = roadscenes(n, 8)
    return [make_store(to_frames(x, (96, 320)), device) for x in (data.train, data.val)]


def test_training_reduces_the_loss_with_every_option():
    train, val = tiny_stores()
    for r in (Recipe(), Recipe(augment=Augment(mosaic=1)), Recipe(small=.5), Recipe(ema=0, prior=0, warmup=0, final=1)):
        rows = [p.row for p in fit(Yolo(d=.33, w=.125, nc=5), train, val, replace(r, epochs=6), device=CPU) if p.row]
        assert rows[-1]['loss'] < rows[0]['loss'], r


def test_constant_rate_is_constant():
    r = Recipe(final=1., warmup=0.)
    assert {lr_at(i, 50, r) for i in range(50)} == {r.lr}


def test_average_is_off_at_zero():
    train, _ = tiny_stores()
    s = start(Yolo(d=.33, w=.125, nc=5), Recipe(ema=0.), 100, device=CPU)
    train_step(s, make_batch(train, torch.arange(8)))  # from the first step on
    assert all(torch.equal(a, b) for a, b in zip(s.average.state_dict().values(), s.model.state_dict().values()))


def test_clipping_is_torchs():
    def grads(clip):
        torch.manual_seed(0)
        m = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 2))
        (m(torch.ones(4, 9))*100).sum().backward()
        clip(m)
        return torch.cat([p.grad.flatten() for p in m.parameters()])
    ours, torchs = grads(lambda m: clip_gradients(torch.optim.SGD(m.parameters(), 1.), 3.)), grads(lambda m: torch.nn.utils.clip_grad_norm_(m.parameters(), 3.))
    assert torch.allclose(ours, torchs) and ours.norm() == pytest.approx(3., rel=1e-4)
    assert torch.equal(grads(lambda m: clip_gradients(torch.optim.SGD(m.parameters(), 1.), 1e9)), grads(lambda m: None))


def test_two_processes_take_the_mean_of_their_gradients(tmp_path):
    "One step of two processes is one step on the mean of the gradients of the two halves."
    data, net = roadscenes(8, 4), Yolo(d=.33, w=.125, nc=5)
    frames = [to_frames(x, (96, 320)) for x in (data.train, data.val)]
    r = Recipe(epochs=1, batch=8, amp='off', warmup=0., ema=0., small=0., augment=STILL)
    ends = fit_on_ranks(net, *frames, tmp_path, r, world=2, device='cpu')
    assert ends[0] == ends[1] and ends[0]['steps'] == 1
    s, store = start(net, r, 1, 0, CPU), make_store(frames[0], CPU)
    order = epoch_order(8, 0, 0, 8)[0][0]
    for half in (order[0::2], order[1::2]):
        b = make_batch(store, half)
        (net_loss(net, s.model(b['img']), b, r.topk, r.cls_gain).sum()/2).backward()
    clip_gradients(s.optimizer, r.clip)
    for g in s.optimizer.param_groups: g['lr'] = lr_at(0, 1, r)*g['share']
    s.optimizer.step()
    there = torch.load(tmp_path/'state.pt', weights_only=True)['model']
    off = torch.cat([(there[k] - v.detach()).abs().flatten() for k, v in s.model.named_parameters()])
    assert float((off < 1e-6).float().mean()) > 0.99 and float(off.max()) <= 2*r.lr  # Adam's first step is the gradient's sign: one near zero may differ


@pytest.mark.parametrize('share, states', [(1e-9, [1, 1, 3]), (1e9, [1, 2, 3])])
def test_writing_states_takes_a_share_of_the_time(share, states, tmp_path, monkeypatch):
    "The first and the last epoch are always written, those between if there is time for it; rows are never missing."
    import layerscale_nb.detect.train as module
    monkeypatch.setattr(module, '_SAVE_SHARE', share)
    data = roadscenes(8, 4)
    train, val = (make_store(to_frames(x, (64, 64)), CPU) for x in (data.train, data.val))
    run = fit(Yolo(d=.33, w=.125, nc=5), train, val, Recipe(epochs=3, batch=8), 0, CPU, tmp_path)
    ends = [(torch.load(tmp_path/'state.pt', weights_only=True)['epoch'], len(read_rows(tmp_path/'epochs.csv'))) for p in run if p.row]
    assert ends == [(state, epoch) for epoch, state in enumerate(states, 1)]


def test_compiling_without_a_compiler_is_said(monkeypatch):
    import shutil
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.warns(UserWarning, match='no C.. compiler here, so the model is not compiled'):
        s = start(Yolo(d=.33, w=.125, nc=5), Recipe(compile=True), 10, device=CPU)
    assert s.forward is s.model


def test_data_larger_than_memory_is_said_before_decoding(tiny, monkeypatch):
    import layerscale_nb.detect.augment as augment
    monkeypatch.setattr(augment, 'free_bytes', lambda: 1e6)
    sentence = '40 images of 320x96 need 7.37 MB of memory, and 900 kB can be used .*Use smaller images'
    with pytest.raises(LayerscaleError, match=sentence): open_setting(tiny)


def test_options_of_a_recipe_are_checked():
    for kw, text in ((dict(compile='yes'), "compile is 'yes'"), (dict(final=2), 'final is 2'), (dict(small=-1), 'small is -1'), (dict(topk=0), 'topk is 0')):
        with pytest.raises(LayerscaleError, match=text): start(Yolo(d=.33, w=.125, nc=5), Recipe(**kw), 10, device=CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU here')
@pytest.mark.parametrize('host', [True, False])
def test_no_step_waits_for_the_gpu(host, monkeypatch):
    import layerscale_nb.detect.augment as augment
    device = torch.device('cuda')
    if host: monkeypatch.setattr(augment, 'fits_on', lambda *a: False)
    train, _ = tiny_stores(device=device)
    assert train.images.is_cuda != host
    s, g = start(Yolo(d=.33, w=.125, nc=5), Recipe(augment=Augment(mosaic=.5)), 100, device=device), torch.Generator()
    for _ in range(6): train_step(s, make_batch(train, torch.arange(8), s.recipe.augment, g))
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(6): train_step(s, make_batch(train, torch.arange(8), s.recipe.augment, g))
    finally: torch.cuda.set_sync_debug_mode('default')


def test_small_pictures_keep_the_stride():
    from layerscale_nb.detect.train import picture_size
    assert picture_size(0, 10, (128, 512), Recipe(small=.5), 128) == (128, 384) and picture_size(0, 10, (128, 416), Recipe(small=.5)) == (96, 320)


def test_a_state_belongs_to_its_images(tmp_path):
    train, val = tiny_stores()
    net, r = Yolo(d=.33, w=.125, nc=5), Recipe(epochs=2)
    for p in fit(net, train, val, r, device=CPU, folder=tmp_path):
        if p.row: break
    with pytest.raises(LayerscaleError, match='other network, recipe, images or seed'): fit(net, replace(train, images=255 - train.images), val, r, device=CPU, folder=tmp_path)


def test_batch_norm_over_one_value_is_said_before_training(tmp_path, capsys, monkeypatch):
    "One image of 32x32 has one value on the map of stride 32; two images, or 64x32, have two and train."
    from layerscale_nb.detect import train as module
    from layerscale_nb.experiments.bench import bench_limit
    from layerscale_nb.cli import main
    
    from layerscale_nb.study.variants import Study
    begin, built, net, data = module.start, [], Yolo(d=.33, w=.125, nc=5), roadscenes(4, 4)
    monkeypatch.setattr(module, 'start', lambda *a, **k: built.append(a) or begin(*a, **k))
    words = 'study --base 1 0.125 512 --n-val 4 --variants baseline --device cpu --imgsz 32x32 --batch 1'.split()
    assert main([*words, '--out', str(tmp_path)]) == 2
    sentence = ('a step on 1 image of 32x32 leaves batch norm one value of each channel (stride 32), and it needs two. '
                'Use a batch of 2 or more')
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob('*/config.json')), 'the folder is free for --batch 2'
    small = to_frames(data.train, (32, 32))
    st = open_setting(Study(data=data, imgsz=(32, 32), recipe=Recipe(batch=1), device='cpu'))
    refused = pytest.raises(LayerscaleError, match='leaves batch norm one value')
    with refused: fit_on_ranks(net, small, small, tmp_path, Recipe(batch=2), world=2, device='cpu')
    with refused: bench_limit(st, net, turns=1, steps=1)
    with refused: fit(net, st.train, st.val, Recipe(batch=1, small=0.5), device=CPU)
    one = make_store(to_frames(data.train[:1], (32, 32)), CPU)
    with refused: fit(net, one, st.val, Recipe(batch=8), device=CPU)
    assert not built
    for size, batch, amp in (((32, 32), 2, 'off'), ((64, 32), 1, 'off'), ((64, 32), 1, 'bf16')):
        store = make_store(to_frames(data.train, size), CPU)
        assert fit(net, store, store, Recipe(epochs=1, batch=batch, small=0.5, amp=amp), device=CPU).finish().step == 4//batch
