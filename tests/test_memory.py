"""Peak memory in closed form against what torch allocates: each tensor's bytes from the operator that makes it to the
moment it is gone, on the meta device where networks allow it (there tensors have a size and no memory)."""
import pytest

from layerscale_nb.core import DoesNotFit, LayerscaleError
from layerscale_nb.experiments.memory import MEASURED, allocated_bytes, maps_bytes, measured_network, process_peaks
from layerscale_nb.nets.find import find
from layerscale_nb.nets.memory import check_memory, largest_batch, memory_bytes
from layerscale_nb.nets.yolo import Yolo


SLOW = ('yolov4-p5', 'yolov4-csp', 'yolov8m')  # a step of these on real tensors takes up to 20 s: in `make prove`


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.prove) if n in SLOW else n for n in MEASURED])
def test_peaks_are_within_15_percent(name, training):
    "Twenty networks at two batches; weights, the optimizer's and the average's numbers are left out."
    net, size, channels = measured_network(name)
    model = net.build(size)  # Ultralytics' models ask tensors for values, so they run on real ones, and small
    if not isinstance(net, Yolo): model = model.to('meta')
    for batch in (2, 8):
        told = maps_bytes(net, size, batch, training)
        assert told == pytest.approx(allocated_bytes(model, (batch, channels, *size), training), rel=0.15), batch


def test_a_process_holds_what_was_estimated():
    net, size, _ = measured_network('EN-B0')
    for (batch, training), held in process_peaks('EN-B0', (8,)).items():
        assert held == pytest.approx(maps_bytes(net, size, batch, training)/1e6, rel=0.15)


def test_stored_peaks(repo):
    "The stored table holds every network, and its estimates are today's."
    from layerscale_nb.table import read_rows
    rows = read_rows(repo/'nbs'/'results'/'memory_cpu.csv')
    assert {(r['name'], r['batch'], r['training']) for r in rows} == {(n, b, t) for n in MEASURED for b in (4, 16) for t in (False, True)}
    for r in rows:
        net, size, _ = measured_network(r['name'])
        assert r['estimated_mb'] == pytest.approx(maps_bytes(net, size, r['batch'], r['training'])/1e6, abs=0.01)
        assert r['estimated_mb'] == pytest.approx(r['allocated_mb'], rel=0.15), r


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
