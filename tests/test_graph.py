"""A training step recorded as a graph, without a GPU. Two stand-ins for CUDA's recording:
a tape, which keeps every operation with its arrays and repeats those without Python, as a graph does, so what Python decided in the recorded step is decided for ever;
and fake tensors, which know their shape and device and hold no numbers, so whatever needs a number raises."""
import warnings
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect import anchors as anchor_loss, loss
from layerscale_nb.detect.augment import Augment, Store, make_batch
from layerscale_nb.detect.graph import GraphedUpdate, _rates_as_tensors, graphed_update
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.detect.train import _update, fit, start, train_step
from layerscale_nb.nets.find import find
from layerscale_nb.nets.yolo import Yolo
from test_no_gpu_needed import GPU, on_gpu

CPU = torch.device('cpu')
TINY = Yolo(d=.33, w=.125, nc=3)
NETS = {'v8': TINY, 'yolov4-tiny': replace(find('yolov4-tiny'), nc=3)}
RECIPE = Recipe(amp='off', batch=4, augment=Augment(mosaic=.5))


def place(t): return t.untyped_storage()._cdata


class Tape(TorchDispatchMode):
    "Every operation with its arrays."
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        self.calls.append((f, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def repeat(self):
        "The same operations on the same arrays; a new result goes where the recorded one lies."
        for f, args, kwargs, old in self.calls:
            had = {place(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            if isinstance(old, torch.Tensor) and place(old) in had and not f._schema.is_mutable: continue  # a view
            for a, b in zip(tree_leaves(old), tree_leaves(f(*args, **kwargs))):
                if isinstance(a, torch.Tensor) and place(a) not in had: a.copy_(b)


class TapeRecorder:
    def warm_up(self, f): return f()

    def record(self, f):
        with Tape() as tape: out = f()
        return out, tape.repeat


def images(n=12, k=3, h=64, w=96):
    g = torch.Generator().manual_seed(5)
    corner, side = torch.rand(n, k, 2, generator=g)*torch.tensor([50., 30]), 12 + torch.rand(n, k, 2, generator=g)*30
    valid = torch.arange(k) < torch.randint(1, k + 1, (n, 1), generator=g)
    pictures = torch.randint(0, 255, (n, h, w, 3), generator=g, dtype=torch.uint8).permute(0, 3, 1, 2)
    return Store(pictures, torch.cat([corner, corner + side], 2)*valid[..., None], torch.randint(0, 3, (n, k), generator=g)*valid, valid, CPU)


def as_on_a_gpu(s, recorder=None):
    "The run with an update that may not look, recorded or not."
    s.graphed = GraphedUpdate(_update, recorder or TapeRecorder()) if recorder is not False else _update
    return s


def same_shapes(monkeypatch):
    "Batches are padded as on a GPU."
    import layerscale_nb.detect.augment as augment
    pad = torch.nn.functional.pad
    monkeypatch.setattr(augment, '_trim', lambda b, l, v, most: [pad(x, (0, 0)*(x.ndim - 2) + (0, most - x.shape[1])) for x in (b, l, v)])


def losses(s, n, store=images()):
    g = torch.Generator().manual_seed(1)
    return [float(train_step(s, make_batch(store, torch.arange(i, i + 4), s.recipe.augment, g))) for i in range(n)]


def weights(s): return torch.cat([p.detach().flatten() for p in [*s.model.parameters(), *s.average.parameters()]])


@pytest.mark.parametrize('name', NETS)
def test_a_recorded_step_trains_as_the_step_does(name, monkeypatch):
    "Eight steps in which rate, pictures, labels and mosaics change: the tape gives the losses of the update that it recorded, and nearly those of the usual one."
    same_shapes(monkeypatch)
    usual, told, taped = (start(NETS[name], RECIPE, 8, 0, CPU) for _ in range(3))
    as_on_a_gpu(told, False), as_on_a_gpu(taped)
    a, b, c = (losses(s, 2) for s in (usual, told, taped))  # later, rounding differs from machine to machine and grows tenfold a step
    assert c == pytest.approx(b, rel=1e-5) and c[0] == b[0]
    assert float((weights(taped) - weights(told)).norm()) < 1e-3*float((weights(told) - weights(start(NETS[name], RECIPE, 8, 0, CPU))).norm())
    a, b, c = (x + losses(s, 6) for x, s in ((a, usual), (b, told), (c, taped)))
    assert not taped.graphed.why_not and len(taped.graphed.graphs) == 1
    assert b == pytest.approx(a, rel=1e-2) and c == pytest.approx(b, rel=1e-2)


def test_the_tape_is_exact_where_the_rates_are_tensors(monkeypatch):
    "The only difference above is the rate's rounding: against an update whose rates are tensors too, all is equal to the bit."
    same_shapes(monkeypatch)
    told, taped = (start(TINY, RECIPE, 8, 0, CPU) for _ in range(2))
    as_on_a_gpu(told, False), as_on_a_gpu(taped)
    _rates_as_tensors(told.optimizer, CPU)
    assert losses(told, 8) == losses(taped, 8) and torch.equal(weights(told), weights(taped))


def test_the_tape_would_notice_a_number_of_the_first_step(monkeypatch):
    "What the tests above are worth: an update that reads its rate as a number goes wrong on the tape."
    import layerscale_nb.detect.graph as graph
    same_shapes(monkeypatch)
    monkeypatch.setattr(graph, '_rates_as_tensors', lambda *a: None)
    told, taped = (start(TINY, replace(RECIPE, warmup=.9), 8, 0, CPU) for _ in range(2))
    as_on_a_gpu(told, False), as_on_a_gpu(taped)
    a, b = losses(told, 8), losses(taped, 8)
    assert a[0] == b[0] and a[7] != pytest.approx(b[7], rel=2e-3)


def test_the_tape_would_notice_a_list_of_pairs():
    "And so does the usual loss on a CPU, which lists its pairs: their number changes."
    taped = start(TINY, RECIPE, 8, 0, CPU)
    taped.graphed = GraphedUpdate(lambda s, batch: _update(replace(s, graphed=None), batch), TapeRecorder())
    with pytest.raises(RuntimeError, match='size'): losses(taped, 8)


def test_small_pictures_have_a_recording_of_their_own(monkeypatch):
    same_shapes(monkeypatch)
    s = as_on_a_gpu(start(TINY, RECIPE, 8, 0, CPU))
    for size in ((64, 96), (32, 64), (64, 96)):
        train_step(s, make_batch(images(), torch.arange(4), s.recipe.augment, torch.Generator().manual_seed(1), size))
    assert len(s.graphed.graphs) == 2 and s.step == 3


@pytest.mark.parametrize('at', ['first warm-up', 'second warm-up', 'record', 'another result', 'repeat'])
def test_what_fails_leaves_no_trace(at, monkeypatch):
    "Whatever fails, and when: one warning, and the run goes on to the same weights, to the bit."
    same_shapes(monkeypatch)

    class Failing(TapeRecorder):
        calls = 0

        def warm_up(self, f):
            self.calls += 1
            out = f()
            if (at, self.calls) in (('first warm-up', 1), ('second warm-up', 2)): raise RuntimeError('out of stock\nand more')
            return out

        def record(self, f):
            out, repeat = super().record(f)
            if at == 'record': raise ValueError('out of stock')
            if at == 'another result': return out, lambda: None
            if at == 'repeat': return out, lambda: 1/0
            return out, repeat
    told, failing = as_on_a_gpu(start(TINY, RECIPE, 4, 0, CPU), False), as_on_a_gpu(start(TINY, RECIPE, 4, 0, CPU), Failing())
    a = losses(told, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        b = losses(failing, 4)
    said = [str(w.message) for w in said if 'graph' in str(w.message)]
    assert len(said) == 1 and '\n' not in said[0] and said[0].endswith('it runs as usual.')
    assert a == b and torch.equal(weights(told), weights(failing))
    assert not any(g['capturable'] or isinstance(g['lr'], torch.Tensor) for g in failing.optimizer.param_groups)


def test_an_interrupt_while_recording_leaves_the_weights(monkeypatch):
    same_shapes(monkeypatch)

    class Interrupted(TapeRecorder):
        def record(self, f): raise KeyboardInterrupt
    s = as_on_a_gpu(start(TINY, RECIPE, 4, 0, CPU), Interrupted())
    before = weights(s)
    with pytest.raises(KeyboardInterrupt): losses(s, 1)
    assert torch.equal(before, weights(s)) and s.step == 0


def test_a_run_goes_on_with_its_recording(tmp_path, monkeypatch):
    "Stopped within an epoch and begun again, a recorded run ends where an unbroken one ends."
    import layerscale_nb.detect.train as train
    same_shapes(monkeypatch)
    monkeypatch.setattr(train, 'graphed_update', lambda update, device, world: GraphedUpdate(update, TapeRecorder()))
    recipe = replace(RECIPE, graph=True, epochs=2)
    whole = fit(TINY, images(), images(), recipe, 0, CPU, tmp_path/'a').finish()
    for p in (steps := iter(fit(TINY, images(), images(), recipe, 0, CPU, tmp_path/'b'))):
        if p.step == 4: steps.close()
    again = fit(TINY, images(), images(), recipe, 0, CPU, tmp_path/'b')
    assert again.step == 4
    again.finish()
    assert again.graphed.graphs and torch.equal(weights(whole), weights(again))


def test_a_loss_scale_is_recorded(monkeypatch):
    "fp16: a step that overflows is left out, and the scale is halved, without a look."
    same_shapes(monkeypatch)
    told, taped = (start(TINY, RECIPE, 8, 0, CPU) for _ in range(2))
    as_on_a_gpu(told, False), as_on_a_gpu(taped)
    for s in (told, taped): s.scaler = torch.amp.GradScaler('cpu', init_scale=2.**126)
    a, b = losses(told, 8), losses(taped, 8)
    assert not taped.graphed.why_not and b == pytest.approx(a, rel=2e-3)
    assert told.scaler.get_scale() == taped.scaler.get_scale() < 2.**126


def without_adamw(monkeypatch, seen):
    "torch has no fake of the fused AdamW with a rate on the device; that one reads nothing on the host, and here only notes its arrays."
    monkeypatch.setattr(torch, '_fused_adamw_', lambda *a, **kw: seen.extend(t.device for t in tree_leaves((a, kw)) if isinstance(t, torch.Tensor)))


@pytest.mark.parametrize('name, amp', [('v8', 'bf16'), ('yolov4-tiny', 'off')])
def test_no_number_decides_anything(name, amp, monkeypatch):
    "The whole update on fake tensors, with the backward pass, autocast, the loss scale and the optimizer: `.item()`, `nonzero` and boolean indices would raise."
    kept, seen = (loss.anchors, anchor_loss.constant, anchor_loss.grid_once), []
    without_adamw(monkeypatch, seen)
    s = as_on_a_gpu(start(NETS[name], Recipe(amp=amp), 100, 0, CPU), False)
    s.scaler = torch.amp.GradScaler('cpu')
    _rates_as_tensors(s.optimizer, CPU)
    for f in kept: f.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            batch = dict(img=torch.rand(4, 3, 96, 320), boxes=torch.rand(4, 20, 4), labels=torch.zeros(4, 20, dtype=torch.long), valid=torch.ones(4, 20, dtype=torch.bool))
            for _ in range(2): assert train_step(s, batch).shape == ()
            with pytest.raises((DynamicOutputShapeException, DataDependentOutputException)): _update(replace(s, graphed=None), batch)  # the usual one on a CPU
    finally:
        for f in kept: f.cache_clear()
    assert seen


class Devices(TorchDispatchMode):
    "Notes operations that touch an array which is not on the GPU."
    def __init__(self):
        super().__init__()
        self.host = []

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        if any(isinstance(t, torch.Tensor) and t.device != GPU for t in tree_leaves((args, kwargs or {}, out))): self.host.append(str(f))
        return out


@pytest.mark.parametrize('name', NETS)
def test_a_recorded_step_touches_nothing_on_the_host(name, monkeypatch):
    "From the second step on, all arrays of the update are on the GPU: nothing is copied there, and no number comes from the host."
    seen_by_adamw = []
    without_adamw(monkeypatch, seen_by_adamw)
    with on_gpu(monkeypatch, NETS[name]) as (s, store):
        s.graphed = _update
        _rates_as_tensors(s.optimizer, GPU)
        batch = make_batch(store, torch.arange(4), s.recipe.augment, torch.Generator().manual_seed(0))
        train_step(s, batch)
        with Devices() as seen: _update(s, batch)
        assert not seen.host and set(seen_by_adamw) == {GPU}


def test_no_shape_changes_on_a_gpu(monkeypatch):
    with on_gpu(monkeypatch) as (s, store):
        g, aug, seen = torch.Generator().manual_seed(0), Augment(mosaic=.5), set()
        import layerscale_nb.detect.augment as augment
        draws, drawn, mosaics = iter([.2, .8]*6), [], augment.mosaics
        monkeypatch.setattr(augment, 'mosaics', lambda *a: drawn.append(1) or mosaics(*a))
        monkeypatch.setattr(torch.Tensor, 'item', lambda t: next(draws))  # of the host, where numbers are real
        for i in range(12): seen.add(tuple((k, tuple(v.shape), v.stride(), v.dtype) for k, v in make_batch(store, torch.arange(4), aug, g).items()))
        assert len(seen) == 1 and len(drawn) == 6
        assert make_batch(store, torch.arange(4), None)['boxes'].shape[1] == store.boxes.shape[1]  # a validation has no mosaics


def test_a_graph_without_a_gpu_is_said():
    with pytest.warns(UserWarning, match='not recorded as a graph .the device is cpu, not cuda.; it runs as usual'): s = start(TINY, replace(RECIPE, graph=True), 8, 0, CPU)
    assert s.graphed is None
    with pytest.warns(UserWarning, match='2 processes train together'): assert graphed_update(_update, GPU, 2) is None
    with pytest.raises(LayerscaleError, match="graph is 'yes'; it must be true or false"): start(TINY, Recipe(graph='yes'), 8, 0, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU here')
@pytest.mark.parametrize('amp', ['off', 'auto', 'fp16'])
def test_a_graph_on_a_gpu(amp):
    store = images()
    store = Store(*(getattr(store, k).to(GPU) for k in ('images', 'boxes', 'cls', 'valid')), GPU)
    recipe = replace(RECIPE, amp=amp)
    usual, recorded = start(TINY, recipe, 8, 0, GPU), start(TINY, replace(recipe, graph=True), 8, 0, GPU)
    a, b = losses(usual, 8, store), losses(recorded, 8, store)
    assert not recorded.graphed.why_not, recorded.graphed.why_not
    assert len(recorded.graphed.graphs) == 1 and b == pytest.approx(a, rel=.02)
