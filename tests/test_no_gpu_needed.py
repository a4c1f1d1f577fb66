"""A training step as a GPU would see it, without one: torch's fake tensors know their device and shape and hold no numbers.
An operator that mixes devices raises, and so does whatever asks the device for a value (`.item()`, `if tensor`, a boolean index), which on a GPU would make the host wait.
What this cannot show: the backward pass, autocast, the loss scale and every kernel."""
import types
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

import layerscale_nb.detect.train as train
from layerscale_nb.detect import anchors as anchor_loss, loss
from layerscale_nb.detect.augment import Augment, Store, make_batch, mosaics
from layerscale_nb.nets.find import find
from layerscale_nb.nets.yolo import yolov8

GPU = torch.device('cuda', 0)


@contextmanager
def on_gpu(monkeypatch, net=yolov8((0.33, 0.125, 1024), nc=3), images_on=GPU, n=16, k=5, h=96, w=320):
    "(session, store) on a GPU that is not there."
    whole = train.start(net, train.Recipe(), 100, 0, torch.device('cpu'))  # built with real numbers, then sent over
    gpu = lambda m: m.to(GPU, memory_format=torch.channels_last)
    fill = lambda loss: [setattr(p, 'grad', torch.zeros_like(p)) for p in s.model.parameters()]
    for where, name, value in ((train, 'build_detector', lambda net: whole.model), (train, 'init_head_bias', lambda *a: None), (train, 'autocast', lambda *a: nullcontext()), (train, 'precision', lambda *a: 'fp32'),
                               (train, 'copy', types.SimpleNamespace(deepcopy=lambda m: gpu(whole.average))), (torch.Tensor, 'backward', fill)): monkeypatch.setattr(where, name, value)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            images = torch.zeros(n, h, w, 3, dtype=torch.uint8, device=images_on).permute(0, 3, 1, 2)
            store = Store(images, torch.zeros(n, k, 4, device=GPU), torch.zeros(n, k, dtype=torch.long, device=GPU), torch.zeros(n, k, dtype=torch.bool, device=GPU), GPU)
            s = train.start(net, train.Recipe(augment=Augment(mosaic=0)), 100, 0, GPU)
            yield s, store
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        for kept in (loss.anchors, anchor_loss.constant, anchor_loss.grid_once): kept.cache_clear()  # they hold tensors without numbers


@pytest.mark.parametrize('name', ['yolov8n', 'yolov4-tiny'])
def test_a_step_stays_on_the_device(monkeypatch, name):
    "With a YOLOv8 head and with an anchor head."
    with on_gpu(monkeypatch, find(name)) as (s, store):
        batches, g = train.epoch_order(len(store), 0, 0, 4)
        for index in batches[:4]:
            batch = make_batch(store, index, s.recipe.augment, g)
            assert {v.device for v in batch.values()} == {GPU} and batch['img'].is_contiguous(memory_format=torch.channels_last)
            assert train.train_step(s, batch).device == GPU
        assert s.step == 4 and {p.device for p in s.average.parameters()} == {GPU}


def test_mosaics_stay_on_the_device(monkeypatch):
    with on_gpu(monkeypatch) as (_, store):
        canvas, *labels = mosaics(store, torch.arange(4), torch.Generator().manual_seed(0))
        assert canvas.device == GPU and tuple(canvas.shape) == (4, 3, 192, 640) and {v.device for v in labels} == {GPU}


def test_images_in_host_memory_travel(monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda x: x)  # needs a driver
    with on_gpu(monkeypatch, images_on='cpu') as (s, store):
        batch = make_batch(store, torch.arange(4), s.recipe.augment, torch.Generator().manual_seed(0))
        assert store.images.device.type == 'cpu' and {v.device for v in batch.values()} == {GPU}


def test_what_is_caught(monkeypatch):
    with on_gpu(monkeypatch) as (s, store):
        x = torch.zeros(4, device=GPU)
        with pytest.raises(DataDependentOutputException): float(x.sum())
        with pytest.raises(DynamicOutputShapeException): x[x > 0]
        with pytest.raises(RuntimeError): x + torch.zeros(4)
