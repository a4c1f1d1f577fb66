"""Every reader of a file or a name, given seeded damage, answers with a result or a `LayerscaleError`, within seconds.

LAYERSCALE_FUZZ=50 pytest tests/test_fuzz.py      fifty times as many rounds
python tests/test_fuzz.py kitti 173               one round again, with its traceback
"""
import contextlib
import copy
import datetime
import functools
import io
import json
import os
import pickle
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from layerscale_nb.core import LayerscaleError, check_number, check_size

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30    # one round may take this long
GIGABYTES = 4   # and this much memory


# ---------------------------------------------------------------- valid input: {path: bytes}
def picture(kind, w=40, h=20):
    y, x = np.mgrid[:h, :w]
    out = io.BytesIO()
    Image.fromarray(np.stack([x*6, y*12, x + y], 2).astype(np.uint8)).save(out, kind)
    return out.getvalue()


@functools.cache
def kitti():
    lines = (b'Car 0.00 0 -1.57 10.5 2.0 30.0 15.25 1.5 1.6 3.9 1.8 1.5 8.4 0.01\n'
             b'DontCare -1 -1 -10 1 1 5 5 -1 -1 -1 0 0 0 -10\n')
    files = {f'training/image_2/{i:06d}.png': picture('PNG') for i in range(3)}
    files |= {f'training/label_2/{i:06d}.txt': lines for i in range(3)}
    return files | {'ImageSets/train.txt': b'000000\n000001\n', 'ImageSets/val.txt': b'000002\n'}


@functools.cache
def voc():
    xml = ('<?xml version="1.0" encoding="utf-8"?><annotation><size><width>40</width><height>20</height></size><object>'
           '<name>cat</name><difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>30</xmax><ymax>18</ymax>'
           '</bndbox></object></annotation>').encode()
    files = {f'JPEGImages/{i}.jpg': picture('JPEG') for i in 'abc'} | {f'Annotations/{i}.xml': xml for i in 'abc'}
    return files | {'ImageSets/Main/train.txt': b'a\nb\n', 'ImageSets/Main/val.txt': b'c\n'}


@functools.cache
def yolo():
    places = [f'{s}/{i}' for s in ('train', 'val') for i in 'ab']
    files = {f'images/{p}.jpg': picture('JPEG') for p in places}
    files |= {f'labels/{p}.txt': b'0 0.5 0.5 0.4 0.4\n1 .2 .2 .4 .2 .4 .4 .2 .4\n' for p in places}
    cfg = dict(path='.', train=['images/train', 'list.txt'], val='images/val', nc=2, names={0: 'cat', 1: 'dog'})
    files['list.txt'] = b'images/train/a.jpg\nimages/train/b.jpg\n'
    return files | {'data.yaml': yaml.safe_dump(cfg).encode()}


@functools.cache
def coco():
    files = {f'images/{s}2017/{i}.jpg': picture('JPEG') for s in ('train', 'val') for i in 'ab'}
    box = dict(category_id=17, bbox=[3, 4.5, 20, 10], iscrowd=0, area=200, segmentation=[[3, 4, 20, 4, 20, 14]])
    cfg = dict(images=[dict(id=7*i, file_name=f'{k}.jpg', width=40, height=20) for i, k in enumerate('ab')],
               annotations=[dict(box, id=i, image_id=7*(i % 2)) for i in range(3)],
               categories=[dict(id=17, name='cat'), dict(id=90, name='dog')])
    return files | {f'annotations/instances_{s}2017.json': json.dumps(cfg).encode() for s in ('train', 'val')}


@functools.cache
def detector(kind='Conv', args=(16, 3, 1)):
    "A small YOLO model yaml, with one row to choose."
    cfg = dict(nc=3, scales=dict(n=[0.5, 0.25, 1024], s=[0.33, 0.5, 512]),
               backbone=[[-1, 1, 'Conv', [32, 3, 2]], [-1, 1, 'Conv', [16, 3, 2]], [-1, 1, kind, list(args)]],
               head=[[-1, 1, 'nn.Upsample', [None, 2, 'nearest']], [[-1, 0], 1, 'Concat', [1]],
                     [[2, -1], 1, 'Detect', ['nc']]])
    return {'yolov8n.yaml': yaml.safe_dump(cfg).encode()}


@functools.cache
def stages():
    row = dict(block='res', d=2, w=64, stride=2, k=3, b=1.0, g=8, se=0.25)
    cfg = dict(name='own', stem=dict(w=32, k=3, stride=2), stages=[row, dict(row, w=128, d=3)],
               head_w=64, classes=10, r=64, act='silu')
    return {'own.yaml': yaml.safe_dump(cfg).encode()}


@functools.cache
def profile():
    from layerscale_nb.timing.roofline import TERMS, calls
    from layerscale_nb.nets.zoo import named_net
    rates = {c.kind: dict.fromkeys(TERMS, 0.5) for c in calls(named_net('EN-B0'))}
    cfg = dict(name='this', device='cpu', threads=1, dtype='fp32', channels_last=False, cache_mb=8.0, form='sum',
               rates=rates, error=0.1, layers=9, seconds=2.0, origin=dict(seed=0))
    return {'profile.json': json.dumps(cfg).encode()}


@functools.cache
def images(): return {f'a.{k}': picture(k.upper()) for k in ('png', 'jpeg', 'bmp', 'gif', 'tiff', 'webp')}


@functools.cache
def table():
    return {'results.csv': b'status,variant,seed,map50,params\ndone,baseline,0,0.5,3000000\n'
                           b'done,width_050,0,0.4,800000\nfailed,depth_050,0,,\n'}


@functools.cache
def configs():
    files = ROOT/'configs'/'depth_033.yaml', ROOT/'configs'/'ablation'/'cd53s-cpanspp-leaky.yaml'
    return {p.name: p.read_bytes() for p in files}


class Opens:
    "A pickle of this opens a file for writing when it is loaded."
    def __reduce__(self): return open, ('ran', 'w')


def saved(what):
    import torch
    out = io.BytesIO()
    torch.save(what, out)
    return out.getvalue()


@functools.cache
def checkpoint():
    from torch import nn
    return {'best.pt': saved(dict(ema=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).half(), epoch=3))}


# ---------------------------------------------------------------- readers
def read_data(source):
    "The data set, its counts, notes and sheet; its text can be written, but for file names that are no text."
    from layerscale_nb.detect.datasets import load_data, notes_table
    from layerscale_nb.detect.store import contact_sheet, dataset_summary
    ds = load_data(source)
    text = f'{ds.name}\n{dataset_summary(ds).to_string()}\n{notes_table(ds).to_string()}\n{ds.notes}'
    text.encode('utf-8', 'surrogateescape')
    for x in ds.train + ds.val:
        assert np.isfinite(x.boxes).all() and (x.boxes >= 0).all() and len(x.boxes) == len(x.cls)
    contact_sheet(ds, 2, 2, width=60)


def read_picture(path):
    from layerscale_nb.detect.images import image_size, read_image
    size, pixels = image_size(path), read_image(path)
    assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8


def price_it(net, size=None):
    from layerscale_nb.nets.find import cost_of, count_json, count_text
    p = cost_of(net, size)
    json.dumps(count_json(p, True))
    count_text(p, True).encode()
    assert min(p.total.macs, p.total.params, p.total.acts) >= 0


def read_config(path):
    from layerscale_nb.study.variants import load_configs, plan
    s = load_configs([path])
    plan(s, 4, s.imgsz or (96, 320)).to_string().encode()


def read_profile(path):
    from layerscale_nb.timing.roofline import load_profile, predict_ms
    from layerscale_nb.nets.zoo import named_net
    assert predict_ms(named_net('EN-B0'), load_profile(path)) >= 0


def read_weights(path):
    from layerscale_nb.experiments.family import read_checkpoint
    read_checkpoint(path)


def read_table(path):
    from layerscale_nb.study.report import by_variant, read_results
    by_variant(read_results(path)).to_string().encode()


def rescale_it(name, rule, s):
    from layerscale_nb.nets.find import rescale_by_name, compared_json, compared_text
    r = rescale_by_name(name, rule, s)
    json.dumps(compared_json(r))
    compared_text(r).encode()


def words_of(argv): return [str(a).encode('utf-8', 'replace').decode() for a in argv]


def command(argv):
    "The command itself: it answers 0, 2 or with argparse's own exit."
    from layerscale_nb.cli import main
    out = io.TextIOWrapper(io.BytesIO(), 'utf-8')
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: code = main(words_of(argv))
        except SystemExit as e: code = e.code
    assert code in (0, 2), f'exit status {code}'


def options(argv):
    "What a command line asks for, without training it."
    from layerscale_nb.cli import command_of
    from layerscale_nb.study.commands import _study, _train, study_of
    from layerscale_nb.study.variants import load_configs, with_options
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            f, asked = command_of(words_of(argv))
    except SystemExit: return
    options = {k: v for k, v in asked.items() if k not in ('jobs', 'out', 'plan', 'config', 'engine', 'cpus', 'gpus')}
    if f is _study: study_of(**options)
    if f is _train: with_options(load_configs(asked['config']), **options)


def every_size(value):
    "Each door that an image size or a whole number comes in by."
    from layerscale_nb.nets.find import pixels
    from layerscale_nb.study.variants import Study, with_options
    doors = (check_size, lambda v: pixels(v, 224), lambda v: with_options(Study(), imgsz=v),
             lambda v: check_number(v, 'batch', whole=True))
    for door in doors:
        with contextlib.suppress(LayerscaleError): door(value)


DATA = lambda folder, name: read_data(folder)
FILES = {  # name: (valid files, reader of the folder and the damaged file in it, rounds)
    'kitti': (kitti, DATA, 180), 'voc': (voc, DATA, 180), 'yolo': (yolo, DATA, 220), 'coco': (coco, DATA, 250),
    'coco file': (coco, lambda d, f: read_data(d/'annotations'/'instances_val2017.json'), 100),
    'image': (images, lambda d, f: read_picture(d/f), 350),
    'yolo model': (detector, lambda d, f: price_it(d/f, 64), 150),
    'ultralytics model': (lambda: detector('C3k2', (16, False, 0.25)), lambda d, f: price_it(d/f, 64), 30),
    'stages': (stages, lambda d, f: price_it(d/f), 250), 'config': (configs, lambda d, f: read_config(d/f), 150),
    'profile': (profile, lambda d, f: read_profile(d/f), 150), 'table': (table, lambda d, f: read_table(d/f), 150),
    'checkpoint': (checkpoint, lambda d, f: read_weights(d/f), 80)}
NAMES = ['yolov8n', 'EN-B0', 'RegNetY-4GF', 'vit_b_16', 'yolov5n', 'timm:resnet18', 'torchvision:resnet18', 'own.yaml']
RESCALED = [['EN-B0', 'dWr', 4], ['yolov8n', 'dwr', '2'], ['RegNetY-4GF', 'alpha=0.8', 2.5]]
COMMANDS = [line.split() for line in ('count yolov8n --imgsz 640', 'count EN-B0 --json', 'count RegNetY-4GF --stages',
                                      'scale EN-B0 --rule dWr --s 4', 'report nothing')]
STUDIES = [line.split() for line in ('study --depths 0.5 --epochs 2', 'train x.yaml --batch 8',
                                     'study --data kitti --imgsz 416x128 --base 1 0.5 512',
                                     'study --variants baseline --seeds 0 1 --lr 0.002 --amp off')]
WORDS = {  # name: (valid arguments, what takes one, rounds)
    'name': (NAMES, price_it, 200), 'size': (['640', '416x128', 320, [96, 320], 1.5], every_size, 300),
    'source': (['roadscene', 'set/', '~/set', 'data.yaml', 'x.json', 'kitti'], read_data, 80),
    'scaling': (RESCALED, lambda v: rescale_it(*([*v] + [1]*3)[:3]), 120),
    'command': (COMMANDS, command, 100), 'options': (STUDIES, options, 120)}


# ---------------------------------------------------------------- damage
def odd_values():
    deep = []
    for _ in range(60): deep = [deep]
    code = 'open("ran", "w")'  # leaves a file behind if somebody evaluates it
    return [None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, 10**400, -0.5, 1e-9, 1e308, float('nan'), float('inf'),
            '', ' ', '7', '1e5', 'nan', 'Ärger 車', '\ud83d', 'a\0b', 'a\nb', '$x^2$', '<img onerror=x>', '../..',
            '~nosuchuser', '%s', 'None', [], {}, [[]], [None], deep, 'x'*5000, [1]*3000, dict(a=dict(b=[1])),
            datetime.date(2020, 1, 2), b'\xff', code, f'nn.ReLU({code})', f'__import__("builtins").{code}']


def spots_of(node, path=''):
    "Every place in plain data: (what holds it, its key, its path)."
    for k in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, k, f'{path}/{k}'
        yield from spots_of(node[k], f'{path}/{k}')


def damage_tree(rng, tree):
    "(plain data with one place changed, what was done)."
    spots, odd = list(spots_of(tree)), rng.choice(odd_values())
    if not spots: return odd, 'all replaced'
    node, k, path = rng.choice(spots)
    how = rng.choice(['replace']*4 + ['delete', 'twice', 'swap', 'key', 'scale'])
    if how == 'delete': del node[k]
    elif how == 'twice' and isinstance(node, list): node.insert(k, node[k])
    elif how == 'twice': node[f'{k} '] = node[k]
    elif how == 'swap':
        other, j, _ = rng.choice(spots)
        node[k], other[j] = copy.deepcopy(other[j]), copy.deepcopy(node[k])
    elif how == 'key' and isinstance(node, dict):
        node[odd if isinstance(odd, (str, int, float)) else None] = node.pop(k)
    elif how == 'scale' and type(node[k]) in (int, float): node[k] *= rng.choice([-1, 0, 2, 1000, 0.5])
    else: how, node[k] = f'replaced by {odd!r:.60}', odd
    return tree, f'{path} {how}'


NUMBERS = [b'nan', b'inf', b'-1', b'0', b'1e400', b'9'*400, b'1_0', '١٢'.encode(), b'0x10', b'1,5', b'', b'-0.0',
           b'1e-320', b'true', b'"7"', b'\0']
MARKS = [b'\xef\xbb\xbf', b'\0', b'\xff', b'\xff\xfe', b'\r', b'\x1a', b'\xed\xa0\xbd', b'<!DOCTYPE x>', b'&lol;',
         b'#', b'[', b'{', b'- ', b': ', b'"', b'\t']
CODECS = ['utf-16', 'utf-16-be', 'utf-32', 'utf-8-sig', 'cp037', 'utf-7', 'gb18030']


def shuffled(rng, data):
    lines = data.splitlines(True)
    rng.shuffle(lines)
    return b''.join(lines[rng.randrange(2):])


def damage_bytes(rng, data):
    "(bytes with one thing changed, what was done)."
    at, n, numbers = rng.randrange(len(data) + 1), rng.choice([1, 2, 8, 40]), list(re.finditer(rb'-?\d+\.?\d*', data))
    m, before, here, after = rng.choice(numbers or [None]), data[:at], data[at:at+n], data[at+n:]
    ways = dict(
        flip=lambda: before + bytes(b ^ 1 << rng.randrange(8) for b in here) + after, cut=lambda: before,
        delete=lambda: before + after, repeat=lambda: before + here*rng.choice([2, 50]) + after,
        mark=lambda: before + rng.choice(MARKS) + here + after, noise=lambda: before + rng.randbytes(n) + after,
        lines=lambda: shuffled(rng, data), many=lambda: data*rng.choice([2, 30]), empty=lambda: b'',
        encode=lambda: data.decode('utf-8', 'replace').encode(rng.choice(CODECS), 'replace'),
        number=lambda: data[:m.start()] + rng.choice(NUMBERS) + data[m.end():])
    how = rng.choice([w for w in ways if w != 'number'] + ['number']*3*bool(numbers))
    return ways[how](), f'{how} at {m.start() if how == "number" else at}'


def bombs(suffix):
    "Files that are small and grow when they are read, or name things that must not be called."
    if suffix == '.pt': return [pickle.dumps(Opens()), saved(dict(ema=Opens())), pickle.dumps([1]), saved([1])]
    if suffix == '.xml':
        entities = '<!ENTITY e0 "lol">' + ''.join(f'<!ENTITY e{i+1} "{f"&e{i};"*10}">' for i in range(9))
        codecs = 'gb2312', 'big5', 'utf-7', 'idna', 'base64', 'x'
        heads = [f'<?xml version="1.0" encoding="{c}"?><annotation/>'.encode() for c in codecs]
        full = f'<!DOCTYPE a [{entities}]><annotation><object><name>&e9;</name></object></annotation>'
        return [full.encode(), b'<a>'*50_000, *heads]
    keys = 'names', 'train', 'backbone', 'head', 'stages', 'variant', 'rates', 'images'
    aliases = 'a: &a0 [x, x]\n' + ''.join(f'b{i}: &a{i+1} [{", ".join([f"*a{i}"]*9)}]\n' for i in range(9))
    aliases += ''.join(f'{k}: *a9\n' for k in keys)
    deep = 100_000 if suffix == '.json' else 1000  # yaml's reader takes seconds for more
    return [b'['*deep, b'{"a":'*deep, b'&a [*a]', aliases.encode(), b'!!python/object/apply:os.getcwd []',
            b'names: 2020-13-45']


def other_kind(rng, path, data):
    "Put something else in the place of a file."
    kind = rng.choice(['nothing', 'folder', 'link to itself', 'link to nothing', 'fifo', 'name that is no text'])
    path.unlink()
    if kind == 'folder': path.mkdir()
    elif kind == 'link to itself': path.symlink_to(path)
    elif kind == 'link to nothing': path.symlink_to('nothing')
    elif kind == 'fifo': os.mkfifo(path)
    elif kind != 'nothing':
        name = os.fsencode(path.with_suffix('')) + b'\xff' + os.fsencode(path.suffix)
        Path(os.fsdecode(name)).write_bytes(data)
    return kind


def damage_file(rng, folder, files):
    "Damage one file of the folder: (its name, what was done)."
    name = rng.choice([f for f in files for _ in range(1 if f.endswith(('.jpg', '.png')) else 3)])
    path, data, suffix, roll = folder/name, files[name], Path(name).suffix, rng.random()
    if roll < 0.06: return name, other_kind(rng, path, data)
    if roll < 0.12 and suffix in ('.xml', '.yaml', '.json', '.pt'): data, what = rng.choice(bombs(suffix)), 'bomb'
    elif roll < 0.7 and suffix == '.json':
        tree, what = damage_tree(rng, json.loads(data))
        data = json.dumps(tree, default=str).encode()
    elif roll < 0.7 and suffix == '.yaml':
        tree, what = damage_tree(rng, yaml.safe_load(data))
        data = yaml.safe_dump(tree).encode()
    else: data, what = damage_bytes(rng, data)
    path.write_bytes(data)
    return name, what


def damage_word(rng, value):
    "(an argument with something changed, what was done)."
    some = [v for v in odd_values() if isinstance(v, list) or not isinstance(value, list)]
    if rng.random() < 0.2: value = rng.choice(some)
    elif isinstance(value, list): value, _ = damage_tree(rng, list(value))
    elif isinstance(value, str):
        value = damage_bytes(rng, value.encode())[0].decode('utf-8', rng.choice(['replace', 'surrogateescape']))
    else: value = rng.choice(odd_values())
    return value, f'{value!r:.200}'


# ---------------------------------------------------------------- rounds
class Slow(BaseException):
    "No reader may catch this one."


def late(*_): raise Slow(f'longer than {SECONDS} s')


def offline(*_, **__): raise OSError('no network in this test')


@functools.cache
def warm():
    "Import what the readers import late, before the clock runs."
    import torchvision.models

    from layerscale_nb import cli
    from layerscale_nb.experiments import family
    from layerscale_nb.nets import find as lookup
    from layerscale_nb.study import report, runs as study
    from layerscale_nb.nets.yolo import quiet_ultralytics
    quiet_ultralytics()
    with contextlib.suppress(ImportError): import timm


@contextlib.contextmanager
def limits():
    "A folder of its own, no network, limited time and memory."
    here, (soft, hard) = os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path('/proc/self/statm').read_text('utf-8').split()[0])*resource.getpagesize()
    with tempfile.TemporaryDirectory() as d, pytest.MonkeyPatch.context() as m, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        m.setattr(socket.socket, 'connect', offline)
        m.setattr(socket, 'getaddrinfo', offline)
        old = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (used + GIGABYTES*2**30, hard))
        os.chdir(d)
        try: yield Path(d)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            os.chdir(here)


def answer(take, *args, valid=False):
    "Call a reader. Its error must be one sentence on one line; valid input has none."
    try: take(*args)
    except LayerscaleError as e:
        assert not valid and str(e).strip().encode() and '\n' not in str(e), f'a bad sentence: {e!r}'


def play(case, seed):
    "One round; seed 0 leaves files as they are. Raises a `RuntimeError` with the damage, from what the reader raised."
    warm()
    rng, what = random.Random(f'{case} {seed}'), ''
    try:
        with limits() as folder:
            if case in WORDS:
                valid, take, _ = WORDS[case]
                value, what = damage_word(rng, rng.choice(valid))
                answer(take, value)
            else:
                make, take, _ = FILES[case]
                for f, data in make().items():
                    (folder/f).parent.mkdir(parents=True, exist_ok=True)
                    (folder/f).write_bytes(data)
                name, what = damage_file(rng, folder, make()) if seed else (next(iter(make())), 'as it is')
                what = f'{name}: {what}'
                answer(take, folder, name, valid=not seed)
            assert not Path('ran').exists(), 'code of the input was run'
    except (Exception, Slow) as e: raise RuntimeError(f'{case} {seed}: {what}') from e


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='the limits of a round need Linux')
@pytest.mark.parametrize('case', [*FILES, *WORDS])
def test_damage_gives_a_result_or_a_sentence(case):
    failed, rounds = {}, (FILES | WORDS)[case][2]*int(os.environ.get('LAYERSCALE_FUZZ', 1))
    for seed in range(rounds):
        try: play(case, seed)
        except RuntimeError as e:
            why, at = e.__cause__, traceback.extract_tb(e.__cause__.__traceback__)[-1]
            said = f'{e} -> {why!r:.200} at {Path(at.filename).name}:{at.lineno}'
            failed.setdefault((type(why).__name__, at.filename, at.lineno), said)
    again = 'one again: python tests/test_fuzz.py CASE SEED'
    assert not failed, '\n'.join([f'{len(failed)} faults in {rounds} rounds; {again}', *failed.values()])


# ---------------------------------------------------------------- what it found
def test_sizes_beyond_any_network():
    with pytest.raises(LayerscaleError, match='width has over 1e.09 pixels'): check_size(f'{"9"*400}x32')
    with pytest.raises(LayerscaleError, match='next one is 64'): check_size('33x64')


def test_an_error_is_one_printable_line():
    assert str(LayerscaleError('names: \ud83d\nand more')) == 'names: \\ud83d and more'


def test_a_stage_has_a_channel_inside():
    from layerscale_nb.nets.net import Stage
    with pytest.raises(LayerscaleError, match='b is 1e-09; a res stage 64 wide has no channel inside'):
        Stage('res', 1, 64, b=1e-9)


@pytest.mark.parametrize('name', ['50', '!!binary /w==', '[a]', '2020-01-02'])
def test_a_name_that_is_no_text(tmp_path, name):
    from layerscale_nb.nets.find import find
    cfg = yaml.safe_load(stages()['own.yaml'])
    del cfg['name']
    (tmp_path/'own.yaml').write_text(f'{yaml.safe_dump(cfg)}name: {name}\n')
    with pytest.raises(LayerscaleError, match='own.yaml: name is .*, no text; write it in quotes'):
        find(tmp_path/'own.yaml')


@pytest.mark.parametrize('row', [[16, 300, 2], [16, 32, 2]])
def test_a_kernel_that_takes_minutes(tmp_path, row):
    from layerscale_nb.nets.find import find
    cfg = yaml.safe_load(detector()['yolov8n.yaml'])
    cfg['backbone'][1][3] = row
    (tmp_path/'yolov8n.yaml').write_text(yaml.safe_dump(cfg))
    with pytest.raises(LayerscaleError, match='would take minutes; use smaller kernels'): find(tmp_path/'yolov8n.yaml')


@pytest.mark.parametrize('key', ['depth', 'width'])
@pytest.mark.parametrize('value', ['.inf', '1e308', '[1]'])
def test_multipliers_of_a_config(tmp_path, key, value):
    from layerscale_nb.study.variants import load_config
    (tmp_path/'c.yaml').write_text(f'{key}: {value}\n')
    with pytest.raises(LayerscaleError, match=f'c.yaml: {key} is .*; it must be a number > 0'):
        load_config(tmp_path/'c.yaml')


def test_a_pipe_is_not_waited_for(tmp_path):
    from layerscale_nb.experiments.family import read_checkpoint
    from layerscale_nb.study.report import read_results
    from layerscale_nb.timing.roofline import load_profile
    os.mkfifo(tmp_path/'pipe')
    with limits():
        for read in (read_checkpoint, read_results, load_profile):
            with pytest.raises(LayerscaleError, match='a folder, a pipe or a device, not a file'): read(tmp_path/'pipe')


@pytest.mark.parametrize('entry', [dict(val='\ud83d'), dict(path='a\0b'), dict(train=['\ud83d'])])
def test_a_path_that_cannot_be_one(tmp_path, entry):
    from layerscale_nb.detect.datasets import load_data
    for f, data in yolo().items():
        (tmp_path/f).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/f).write_bytes(data)
    cfg = yaml.safe_load((tmp_path/'data.yaml').read_text('utf-8'))
    (tmp_path/'data.yaml').write_text(yaml.safe_dump(cfg | entry))
    with pytest.raises(LayerscaleError, match='no such folder'): load_data(tmp_path)


def test_a_decoder_may_fail_in_any_way(tmp_path):
    "One flipped bit makes Pillow's TIFF reader raise a TypeError."
    from layerscale_nb.detect.images import read_image
    warnings.simplefilter('ignore')  # pytest puts its own filters back
    rng, data = random.Random(0), images()['a.tiff']
    for _ in range(300):
        at = rng.randrange(4, 200)
        (tmp_path/'a.tiff').write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at+1:])
        answer(read_image, tmp_path/'a.tiff')


if __name__ == '__main__': play(sys.argv[1], int(sys.argv[2]))
