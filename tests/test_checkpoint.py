"The checkpoint is an ordinary Ultralytics one: predict, val and export; and nothing of the user's is touched."
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from layerscale_nb.experiments.bench import write_yolo
from layerscale_nb.detect.store import to_frames
from layerscale_nb.study.runs import open_setting, train_run
from layerscale_nb.detect.detection import detect
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.nets.yolo import quiet_ultralytics


@pytest.fixture(scope='module')
def trained(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    s = replace(tiny, n_train=64, recipe=Recipe(epochs=9, lr=5e-3))
    st = open_setting(s)
    return st, train_run(st, s.variants[1], 0, folder).finish().row, folder


def test_predict_agrees_with_our_detections(trained):
    st, row, folder = trained
    quiet_ultralytics()
    from ultralytics import YOLO
    model = YOLO(folder/'best.pt')
    assert model.names == dict(enumerate(st.names))
    image = st.val.images[0].permute(1, 2, 0).cpu().numpy()
    theirs = model.predict(image[..., ::-1].copy(), imgsz=list(st.size), conf=0.001, iou=0.7, verbose=False, device='cpu')[0].boxes.data.numpy()
    ours = detect(model.model.float().eval(), st.val, [0], conf=0.001)[0]
    assert len(ours) > 0
    top = ours[0]
    near = theirs[np.abs(theirs[:, :4] - top[:4]).max(1).argmin()]
    assert np.abs(near[:4] - top[:4]).max() < 1.5 and abs(near[4] - top[4]) < 0.02


def test_val_and_export(trained, tmp_path, monkeypatch):
    st, row, folder = trained
    quiet_ultralytics()
    from ultralytics import YOLO
    monkeypatch.setattr('ultralytics.data.utils.check_font', lambda *_: None)  # Ultralytics' own val looks for a font on GitHub
    model = YOLO(folder/'best.pt')
    m = model.val(data=str(write_yolo(st, tmp_path)), imgsz=max(st.size), verbose=False, plots=False, device='cpu', workers=0, project=str(tmp_path), name='v')
    assert 0 <= m.box.map50 <= 1
    out = model.export(format='torchscript', imgsz=list(st.size), verbose=False)
    assert os.path.getsize(out) > 1e5


def test_the_same_model_is_the_same_file(tmp_path, monkeypatch):
    "Whatever the process is numbered: the size of the file is a column of the study."
    import torch
    from layerscale_nb.detect.train import save_checkpoint, save_state, start
    from layerscale_nb.nets.yolo import Yolo
    s = start(Yolo(d=.33, w=.125, nc=2), Recipe(), 10, device=torch.device('cpu'))
    for i, pid in enumerate((7, 4_000_000)):
        monkeypatch.setattr(os, 'getpid', lambda: pid)
        save_checkpoint(s, ['a', 'b'], tmp_path/f'{i}'/'best.pt', (96, 320))
        save_state(s, tmp_path/f'{i}')
    for f in ('best.pt', 'state.pt'): assert (tmp_path/'0'/f).read_bytes() == (tmp_path/'1'/f).read_bytes()


def test_no_settings_file_and_no_download(tmp_path):
    "With an empty home and no network, a training writes nothing outside its folder."
    code = '''
import socket
def no(*a, **k): raise OSError("network used")
socket.socket.connect = no
from layerscale_nb.cli import main
import sys
sys.exit(main(["study", "--base", "1", "0.125", "512", "--n-train", "16", "--n-val", "4", "--epochs", "1", "--variants", "depth_033", "--device", "cpu", "--out", "out"]))
'''
    home = tmp_path/'home'; home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(('YOLO', 'XDG'))} | dict(HOME=str(home), MPLCONFIGDIR=str(tmp_path/'mpl'))
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert r.returncode == 0, r.stdout + r.stderr
    left = [str(p.relative_to(home)) for p in home.rglob('*') if p.is_file()]
    assert not left, f'written to the home folder: {left}'
