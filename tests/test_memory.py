"""Peak memory in closed form against what torch allocates: each tensor's bytes from the operator that makes it to the
moment it is gone, on the meta device where networks allow it (there tensors have a size and no memory)."""
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerscale_nb.core import DoesNotFit, LayerscaleError
from layerscale_nb.nets.csp import CspStage
from layerscale_nb.nets.find import find
from layerscale_nb.nets.memory import check_memory, largest_batch, memory_bytes
from layerscale_nb.nets.osa import OsaBlock
from layerscale_nb.nets.yolo import Yolo

STAGES = dict(csp=CspStage('dark', 128, 4, .5, .5, 'yolov4', 40), plain=CspStage('res', 128, 4, side=40),
              osa=OsaBlock(64, 32, 4, 'osa', 40), pcb=OsaBlock(64, 32, 4, 'pcb', 40))
NAMES = ('ResNet-50', 'ResNet-18', 'ResNeXt-50', 'EN-B0', 'EN-B3', 'RegNetX-400MF', 'RegNetY-4.0GF', 'RegNetZ-500MF',
         'ViT-S/16', 'ViT-B/32', 'yolov8n', 'yolov8m', 'yolov5s', 'yolov4-tiny', 'yolov4-csp', 'yolov4-p5', *STAGES)


class Live(TorchDispatchMode):
    "Bytes of tensors that are alive, all but a model's own; `peak` is the most at once."
    def __init__(self, model):
        super().__init__()
        self.now = self.peak = 0
        self.seen = {t.untyped_storage()._cdata: None for t in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor): self.add(t.untyped_storage())
        return out

    def add(self, storage):
        key, n = storage._cdata, storage.nbytes()
        if key in self.seen: return
        self.seen[key] = weakref.ref(storage, lambda _: self.drop(key, n))
        self.now += n
        self.peak = max(self.peak, self.now)

    def drop(self, key, n):
        self.now -= n
        self.seen.pop(key, None)


def allocated(model, channels, size, batch, training):
    "Peak bytes of the tensors of one pass, its input included, or of a forward and a backward pass."
    model.train(training)
    for p in model.parameters(): p.grad = None
    where = Live(model)
    x = torch.empty(batch, channels, *size, device=next(model.parameters()).device)
    where.seen[x.untyped_storage()._cdata] = None  # counted once, below
    with torch.set_grad_enabled(training), where:
        y = model(x)
        if training: sum(t.sum() for t in tree_leaves(y) if isinstance(t, torch.Tensor)).backward()
    return where.peak + 4*x.numel()


@pytest.mark.parametrize('name', NAMES)
def test_peaks_are_within_15_percent(name):
    "Twenty networks at two batches, inference and training; the optimizer's and the average's numbers are left out."
    net = STAGES.get(name) or find(name)
    size = (192, 192) if isinstance(net, Yolo) else net.size
    model = net.build(size)  # Ultralytics' models ask tensors for values, so they run on real ones, and small
    if not isinstance(net, Yolo): model = model.to('meta')
    channels, params = getattr(net, 'b', 3), memory_bytes(net, size, batch=0)
    for batch in (2, 8):
        told = memory_bytes(net, size, batch) - params
        assert told == pytest.approx(allocated(model, channels, size, batch, False), rel=0.15), (batch, 'inference')
        told = memory_bytes(net, size, batch, training=True) - 4*params  # without weights, optimizer and average
        assert told == pytest.approx(allocated(model, channels, size, batch, True), rel=0.15), (batch, 'training')


def test_formats_batches_and_refusals():
    net = find('ResNet-50')
    assert memory_bytes(net, batch=0) == 4*25_557_032 and memory_bytes(net, batch=0, training=True) == 20*25_557_032
    assert memory_bytes(net, 224, 8, dtype='bf16')*2 == memory_bytes(net, 224, 8)
    half, full = (memory_bytes(net, 224, 64, True, dtype) for dtype in ('fp16', 'fp32'))
    assert 0.5 < half/full < 0.6  # of maps half; weights, gradients and the optimizer stay whole
    for training in (False, True):
        most = largest_batch(net, training=training, free=8e9)
        assert memory_bytes(net, None, most, training) <= 8e9 < memory_bytes(net, None, most + 1, training)
    assert largest_batch(net, free=1e6) == 0
    with pytest.raises(LayerscaleError, match="number format 'fp8'"): memory_bytes(net, dtype='fp8')
    with pytest.raises(DoesNotFit, match='ResNet-50 needs about .* of memory to train'): check_memory(net, 224, 64, True, 1e9)


def test_memory_of_the_terminal(capsys):
    import json

    from layerscale_nb.cli import main
    assert main(['count', 'yolov8n', '--memory']) == 0
    said = capsys.readouterr().out
    assert 'inference' in said and 'at most batch' in said
    assert main(['count', 'EN-B0', '--memory', '--json']) == 0
    row = json.loads(capsys.readouterr().out)
    row = row[0] if isinstance(row, list) else row
    assert row['memory']['training_8'] == memory_bytes(find('EN-B0'), None, 8, True)
    assert main(['count', 'torchvision:resnet18', '--memory']) == 2
    assert 'no description' in capsys.readouterr().err
