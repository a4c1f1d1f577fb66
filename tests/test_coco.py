"COCO folders and files read as the others are: the boxes of pycocotools, and a note for whatever is left out."
import contextlib
import io
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from layerscale_nb.cli import main
from layerscale_nb.detect.coco import coco_files, find_listed
from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.datasets import load_data
from layerscale_nb.detect.store import contact_sheet, dataset_summary

CLASSES = {1: 'person', 17: 'cat', 90: 'toothbrush'}


def picture(path, w=100, h=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path)


def row(image, bbox, category=17, **more):
    return dict(id=0, image_id=image, category_id=category, bbox=bbox, iscrowd=0) | more


def write(path, images, rows, classes=CLASSES, size=(100, 60)):
    "An annotation file; `images` is id -> file name, `size` their width and height."
    cfg = dict(images=[dict(id=i, file_name=f, width=size[0], height=size[1]) for i, f in images.items()],
               annotations=[dict(r, id=k) for k, r in enumerate(rows)],
               categories=[dict(id=i, name=n) for i, n in classes.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cfg), 'utf-8')
    return path


def coco_set(root, rows=(), classes=CLASSES):
    "A folder as COCO has it, two images and one box in each split; `rows` and `classes` stand in the training file."
    images = {9: 'a.jpg', 40: 'b.jpg'}
    for split in ('train', 'val'):
        for f in images.values(): picture(root/f'{split}2017'/f)
        more = list(rows) if split == 'train' else []
        mine = classes if split == 'train' else CLASSES
        write(root/'annotations'/f'instances_{split}2017.json', images, [row(9, [10, 10, 20, 20]), *more], mine)
    return root


def change(root, split='train', **new):
    "Replace lists of an annotation file; a function gets the old list."
    p = root/'annotations'/f'instances_{split}2017.json'
    cfg = json.loads(p.read_text('utf-8'))
    cfg |= {k: v(cfg[k]) if callable(v) else v for k, v in new.items()}
    p.write_text(json.dumps(cfg), 'utf-8')
    return p


def whys(ds): return Counter(n.why for n in ds.notes)


def by_image_and_class(ds):
    "{(file name, class): sorted boxes x1 y1 x2 y2} of both splits."
    out = {}
    for x in ds.train + ds.val:
        for b, c in zip(x.boxes.tolist(), x.cls):
            out.setdefault((x.image.name, ds.names[c]), []).append(tuple(round(v, 2) for v in b))
    return {k: sorted(v) for k, v in out.items()}


def by_pycocotools(*files):
    "The same by COCO's own reader, without crowds."
    from pycocotools.coco import COCO
    out = {}
    for f in files:
        with contextlib.redirect_stdout(io.StringIO()): c = COCO(str(f))
        for i, image in c.imgs.items():
            for a in c.loadAnns(c.getAnnIds(imgIds=i, iscrowd=False)):
                (x, y, w, h), name = a['bbox'], c.cats[a['category_id']]['name']
                box = tuple(round(v, 2) for v in (x, y, x + w, y + h))
                out.setdefault((image['file_name'], name), []).append(box)
    return {k: sorted(v) for k, v in out.items()}


def test_the_boxes_of_pycocotools(tmp_path):
    "300 boxes of three of four classes on 40 images, ids with gaps, and crowds."
    rng, files = np.random.default_rng(0), []
    for split, start in (('train', 0), ('val', 1000)):
        images, rows = {start + 7*k: f'{split}{k:02d}.jpg' for k in range(20)}, []
        for f in images.values(): picture(tmp_path/'images'/f'{split}2017'/f)
        for k in range(150):
            box = [*rng.uniform(0, [60, 30]).round(2), *rng.uniform(2, [40, 30]).round(2)]
            image, kind = int(rng.choice(list(images))), int(rng.choice([1, 17, 90]))
            rows.append(row(image, box, kind, iscrowd=int(k % 10 == 0), segmentation=[]))
        where = tmp_path/'annotations'/f'instances_{split}2017.json'
        files.append(write(where, images, rows, CLASSES | {44: 'bottle'}))
    ds = load_data(tmp_path)
    assert ds.names == ('person', 'cat', 'toothbrush') and (len(ds.train), len(ds.val)) == (20, 20)
    assert by_image_and_class(ds) == by_pycocotools(*files) and whys(ds) == {'crowd region': 30}
    assert dataset_summary(ds).loc['all', ['train boxes', 'val boxes']].tolist() == [135, 135]
    assert contact_sheet(ds, 4, 2).size[0] == 2*406 - 6


def test_blood_cells_as_coco(bccd_root, tmp_path):
    "A real set, once as VOC and once converted: the same images, boxes and classes."
    voc, files = load_data(bccd_root), []
    number = {k: 5*k + 2 for k in range(len(voc.names))}
    for split, items in (('train', voc.train), ('val', voc.val)):
        (tmp_path/split).mkdir()
        for x in items: (tmp_path/split/x.image.name).symlink_to(x.image)
        xywh = [(3*k, [*b[:2], b[2] - b[0], b[3] - b[1]], number[c])
                for k, x in enumerate(items) for b, c in zip(x.boxes.tolist(), x.cls.tolist())]
        names = {3*k: x.image.name for k, x in enumerate(items)}
        classes = {number[k]: n for k, n in enumerate(voc.names)}
        where = tmp_path/split/'_annotations.coco.json'
        files.append(write(where, names, [row(*r) for r in xywh], classes, (640, 480)))
    ds = load_data(tmp_path)
    assert ds.names == voc.names and (len(ds.train), len(ds.val)) == (205, 87) and not ds.notes
    assert by_image_and_class(ds) == by_image_and_class(voc) == by_pycocotools(*files)
    assert sum(len(x.cls) for x in ds.train + ds.val) == 2804 + 1137


BAD = {  # why: rows that are dropped or clipped for it
    'crowd region': [row(9, [1, 1, 50, 50], iscrowd=1), row(9, [1, 1, 50, 50], iscrowd=True)],
    'its image is not listed': [row(7, [1, 1, 9, 9]), row(None, [1, 1, 9, 9]), row([9], [1, 1, 9, 9])],
    'unknown class 3': [row(9, [1, 1, 9, 9], 3)], 'unknown class None': [row(9, [1, 1, 9, 9], None)],
    'unknown class \ufffd': [row(9, [1, 1, 9, 9], '\ud83d')], 'not an annotation': [None, 5, 'a', []],
    'box is not four numbers': [row(9, b) for b in (None, [], [1, 2, 3], [1, 2, 3, None], [1, 2, 3, True],
                                                    ['a', 1, 2, 3], {'x': 1}, [1, 1, 5, 10**400])],
    'not finite': [row(9, [float('nan'), 1, 2, 3]), row(9, [1, 1, float('inf'), 3])],
    'no area': [row(9, [5, 5, 0, 9]), row(9, [50, 5, -9, 9])],
    'outside the image or under 1 px': [row(9, [500, 1, 20, 20])], 'partly outside': [row(9, [90, 50, 30, 30])],
    'the same box twice': [row(9, [10, 10, 20, 20])]}


def test_every_row_is_used_or_noted(tmp_path):
    good = [row('9', ['30', '5', 9, 9.5]), row(9.0, [50, 30, 9, 9], segmentation=[])]
    root = coco_set(tmp_path)
    change(root, annotations=lambda old: old + [r for rows in BAD.values() for r in rows] + good)
    ds = load_data(root)
    assert whys(ds) == {k: len(v) for k, v in BAD.items()} and ds.names == ('cat',)
    assert ds.train[0].boxes.tolist() == [[10, 10, 30, 30], [90, 50, 100, 60], [30, 5, 39, 14.5], [50, 30, 59, 39]]
    place = next(n.where for n in ds.notes if n.why == 'crowd region')
    assert place.endswith('instances_train2017.json: annotations[1]')
    ''.join(f'{n.why} {n.where}' for n in ds.notes).encode()


def test_images_are_used_or_noted(tmp_path):
    "Not there, not listed, listed twice, two with one id, of another size, no image at all; a bare one is background."
    root = coco_set(tmp_path, [row(2, [50, 5, 20, 20]), row(3, [1, 1, 9, 9])])
    picture(root/'train2017'/'extra.jpg')
    picture(root/'test2017'/'t.jpg')
    picture(root/'train2017'/'small.jpg', 50, 30)
    (root/'train2017'/'broken.jpg').write_bytes(b'no image')
    images = [dict(id=9, file_name='a.jpg'), dict(id=40, file_name='b.jpg', width=100, height=60)]
    images += [dict(id=1, file_name='gone.jpg'), dict(id=8, file_name='\ud83d.jpg'), dict(id=2, file_name='a.jpg')]
    images += [dict(id=3, file_name='c.jpg'), dict(id=3, file_name='d.jpg'), dict(id=5, file_name='broken.jpg')]
    images += [dict(id=4, file_name='small.jpg', width=100, height=60), dict(id=6), 'x', dict(file_name='b.jpg')]
    change(root, images=images)
    ds = load_data(root)
    assert [(x.id, len(x.cls)) for x in ds.train] == [('a', 2), ('b', 0), ('small', 0)]
    assert whys(ds) == {
        'listed, but not there': 2, 'its boxes are joined': 1, 'another image has the same id': 2,
        'its image is not listed': 1, 'no id or no file_name': 3, 'missing or not an image': 1,
        'the image has another size than its file says': 1, 'in no annotation file that is read': 2}
    ''.join(f'{n.why} {n.where}' for n in ds.notes).encode()


def test_one_image_under_two_spellings(tmp_path):
    root = coco_set(tmp_path, [row(40, [50, 5, 20, 20])])
    change(root, images=[dict(id=9, file_name='a.jpg'), dict(id=40, file_name='./a.jpg')])
    ds = load_data(root)
    assert [len(x.cls) for x in ds.train] == [2] and whys(ds)['its boxes are joined'] == 1


def test_classes_go_by_name(tmp_path):
    "The two files number them differently; a group without a box may share a name; one id with two names is no class."
    root = coco_set(tmp_path, [row(40, [1, 1, 9, 9], 2)], {0: 'cat', 17: 'cat', 2: 'dog'})
    write(root/'annotations'/'instances_val2017.json', {9: 'a.jpg'}, [row(9, [1, 1, 9, 9], 0)], {0: 'dog'})
    ds = load_data(root)
    assert ds.names == ('cat', 'dog') and [x.cls.tolist() for x in ds.train + ds.val] == [[0], [1], [1]]
    change(root, categories=[dict(id=17, name=None), dict(id=2, name='\ud83d  x')])
    assert load_data(root).names == ('17', '\ufffd x', 'dog')
    change(root, categories=[dict(id=17, name='cat'), dict(id=2, name='cat')])
    with pytest.raises(LayerscaleError, match="categories 17 and 2 are both 'cat'"): load_data(root)
    change(root, categories=[dict(id=17, name='cat'), dict(id='17', name='dog')])
    with pytest.raises(LayerscaleError, match="category id 17 is 'cat' and 'dog'"): load_data(root)


@pytest.mark.parametrize('text, words', [
    (b'{"images": [', 'not readable as json .*line 1 column 13'), (b'['*100_000, 'nested too deeply'),
    (b'{"a": ' + b'9'*5000 + b'}', 'not readable as json'), (b'', 'not readable as json'),
    (b'[]', "no list 'images'"), (b'{"images": [], "annotations": {}}', "no list 'annotations'"),
    (b'{"images": [], "annotations": []}', "no list 'categories'"),
    (b'{"images": [], "annotations": [], "categories": []}', 'no labelled training image')])
def test_a_file_that_is_none_is_a_sentence(tmp_path, text, words):
    root = coco_set(tmp_path)
    (root/'annotations'/'instances_train2017.json').write_bytes(text)
    with pytest.raises(LayerscaleError, match=words) as e: load_data(root)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32', 'utf-16-le'])
def test_encodings(tmp_path, encoding):
    root = coco_set(tmp_path, classes={17: 'Fußgänger'})
    p = root/'annotations'/'instances_train2017.json'
    p.write_text(json.dumps(json.loads(p.read_text('utf-8')), ensure_ascii=False), encoding)
    assert load_data(root).names == ('Fußgänger', 'cat')


LAYOUTS = {  # where the annotation file and its image lie, and the file_name in it
    'coco': ('annotations/instances_{}2017.json', '{}2017/a.jpg', 'a.jpg'),
    'images inside': ('annotations/instances_{}.json', 'images/{}/a.jpg', 'a.jpg'),
    'folders in names': ('annotations/{}.json', 'images/{}/city/a.jpg', '{}/city/a.jpg'),
    'roboflow': ('{}/_annotations.coco.json', '{}/a.jpg', 'a.jpg'),
    'windows': ('annotations/instances_{}.json', 'images/{}/a.jpg', 'images\\{}\\a.jpg'),
    'at the top': ('{}.json', 'images/{}.jpg', '{}.jpg'),
    'another machine': ('annotations/instances_{}.json', '{}_images/a.jpg', '/data/sets/{}/a.jpg'),
    'beside': ('Annotations/{}.json', 'Annotations/{}.jpg', '{}.jpg')}


@pytest.mark.parametrize('kind', LAYOUTS)
def test_layouts(tmp_path, kind):
    for split in ('train', 'valid'):
        where, image, name = (s.format(split) for s in LAYOUTS[kind])
        picture(tmp_path/image)
        write(tmp_path/where, {3: name}, [row(3, [1, 2, 30, 40], 1 if split == 'train' else 17)])
    ds = load_data(tmp_path)
    assert (len(ds.train), len(ds.val)) == (1, 1) and ds.names == ('person', 'cat') and not ds.notes
    assert ds.train[0].boxes.tolist() == [[1, 2, 31, 42]] and ds.val[0].cls.tolist() == [1]


@pytest.mark.parametrize('where, images, name', [
    ('annotations/instances_default.json', 'images/default/{}.jpg', '{}.jpg'),  # CVAT
    ('annotations.json', 'JPEGImages/{}.jpg', 'JPEGImages/{}.jpg')])            # labelme2coco
def test_one_file_is_both_splits(tmp_path, where, images, name):
    "Given by itself, or the only one of a folder."
    for k in range(10): picture(tmp_path/'set'/images.format(k))
    rows = [row(k, [1, 2, 30, 40]) for k in range(10)]
    p = write(tmp_path/'set'/where, {k: name.format(k) for k in range(10)}, rows)
    for source in (p, str(p), tmp_path/'set'):
        ds = load_data(source)
        assert [x.id for x in ds.train] == list('01234567') and [x.id for x in ds.val] == list('89')
        assert [n.kind for n in ds.notes] == ['split made'] and ds.name == 'set'


def test_a_test_split_waits(tmp_path):
    root = coco_set(tmp_path)
    shutil.copytree(root/'val2017', root/'test2017')
    shutil.copy(root/'annotations'/'instances_val2017.json', root/'annotations'/'instances_test2017.json')
    assert whys(load_data(root)) == {'of a split that is not used': 1, 'in no annotation file that is read': 2}
    (root/'annotations'/'instances_val2017.json').unlink()
    assert 'test2017' in str(load_data(root).val[0].image)


def test_what_is_ambiguous_is_said(tmp_path):
    root = coco_set(tmp_path)
    folder = root/'annotations'
    shutil.copy(folder/'instances_val2017.json', folder/'instances_val2014.json')
    with pytest.raises(LayerscaleError, match='instances_val2014.json is a val file too'): load_data(root)
    (folder/'instances_train2017.json').unlink()
    (folder/'instances_val2014.json').rename(folder/'instances_test.json')
    with pytest.raises(LayerscaleError, match='no training and validation json'): load_data(root)


def test_other_layouts_come_first(tmp_path):
    "A data.yaml beside it wins; json files without the words of a split are no COCO set."
    root = coco_set(tmp_path/'set')
    for s in ('train2017', 'val2017'): (root/s/'a.txt').write_text('0 .5 .5 .2 .2\n')
    (root/'data.yaml').write_text('train: train2017\nval: val2017\nnames: [bird]\n')
    assert load_data(root).names == ('bird',)
    (tmp_path/'other').mkdir()
    for n in 'ab': (tmp_path/'other'/f'{n}.json').write_text('{}')
    assert coco_files(tmp_path/'other') == {}
    with pytest.raises(LayerscaleError, match='none of the layouts known.*COCO'): load_data(tmp_path/'other')


def test_a_folder_called_training_may_be_cocos(tmp_path):
    for split in ('training', 'validation'):
        picture(tmp_path/split/'a.jpg')
        write(tmp_path/'annotations'/f'instances_{split}.json', {3: 'a.jpg'}, [row(3, [1, 2, 30, 40])])
    assert load_data(tmp_path).names == ('cat',)


def test_no_image_stands_for_another(tmp_path):
    "One folder holds all: a missing image is not replaced by one of the same name, and two of one name are not one."
    for f in ('train/a.jpg', 'val/a.jpg', 'val/b.jpg'): picture(tmp_path/f)
    there = {f: tmp_path/'val'/f for f in ('a.jpg', 'b.jpg')}
    assert find_listed(['a.jpg', 'b.jpg', 'c.jpg'], [tmp_path/'train', tmp_path/'val']) == there
    assert find_listed(['x/a.jpg', 'y/a.jpg'], [tmp_path/'train']) == {}
    assert find_listed(['x\0', 'x'*5000], [tmp_path]) == {}


def test_the_command(tmp_path, capsys):
    root = coco_set(tmp_path, [row(9, [1, 1, 50, 50], iscrowd=1)])
    assert main(['data', str(root), '--notes', '--sheet', str(tmp_path/'sheet.png')]) == 0
    out = capsys.readouterr().out
    assert 'cat' in out and 'annotations[1]: box dropped (crowd region)' in out
    with Image.open(tmp_path/'sheet.png') as im: assert im.size == (2*406 + 400, 240)
