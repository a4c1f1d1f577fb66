"COCO folders and files read as the others are: the boxes of pycocotools, and a note for whatever is left out."
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from layerscale_nb.cli import main
from layerscale_nb.coco import coco_files, find_listed
from layerscale_nb.core import LayerscaleError
from layerscale_nb.data import load_data
from layerscale_nb.frames import contact_sheet, summary

CLASSES = {1: 'person', 17: 'cat', 90: 'toothbrush'}


def picture(path, w=100, h=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path)


def row(image, bbox, category=17, **more): return dict(id=0, image_id=image, category_id=category, bbox=bbox, iscrowd=0) | more


def write(path, images, rows, classes=CLASSES, size=(100, 60), **more):
    "An annotation file; `images` is id -> file name, `size` their width and height."
    cfg = dict(images=[dict(id=i, file_name=f, width=size[0], height=size[1]) for i, f in images.items()],
               annotations=[dict(r, id=k) for k, r in enumerate(rows)], categories=[dict(id=i, name=n) for i, n in classes.items()])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cfg | more))
    return path


def coco_set(root, rows=(), images={9: 'a.jpg', 40: 'b.jpg'}, **more):
    "A folder as COCO has it; `rows` and `more` stand in the training file."
    for split in ('train', 'val'):
        for f in images.values(): picture(root/f'{split}2017'/f)
        write(root/'annotations'/f'instances_{split}2017.json', images, [row(9, [10, 10, 20, 20]), *rows*(split == 'train')], **more if split == 'train' else {})
    return root


def whys(ds): return Counter(n.why for n in ds.notes)


def by_image_and_class(ds):
    "{(file name, class): sorted boxes x1 y1 x2 y2} of both splits."
    out = {}
    for x in ds.train + ds.val:
        for b, c in zip(x.boxes.tolist(), x.cls): out.setdefault((x.image.name, ds.names[c]), []).append(tuple(round(v, 2) for v in b))
    return {k: sorted(v) for k, v in out.items()}


def by_pycocotools(*files):
    "The same by COCO's own reader, without crowds."
    import contextlib
    import io

    from pycocotools.coco import COCO
    out = {}
    for f in files:
        with contextlib.redirect_stdout(io.StringIO()): c = COCO(str(f))
        for i, image in c.imgs.items():
            for a in c.loadAnns(c.getAnnIds(imgIds=i, iscrowd=False)):
                x, y, w, h = a['bbox']
                out.setdefault((image['file_name'].split('/')[-1], c.cats[a['category_id']]['name']), []).append((x, y, x + w, y + h))
    return {k: sorted(tuple(round(v, 2) for v in b) for b in v) for k, v in out.items()}


def test_the_boxes_of_pycocotools(tmp_path):
    "300 boxes of three of four classes on 40 images, ids with gaps, and crowds."
    rng, files = np.random.default_rng(0), []
    for split, start in (('train', 0), ('val', 1000)):
        images = {start + 7*k: f'{split}{k:02d}.jpg' for k in range(20)}
        for f in images.values(): picture(tmp_path/'images'/f'{split}2017'/f)
        spots = [[*rng.uniform(0, [60, 30]).round(2), *rng.uniform(2, [40, 30]).round(2)] for _ in range(150)]
        rows = [row(int(rng.choice(list(images))), s, int(rng.choice([1, 17, 90])), iscrowd=int(k % 10 == 0), segmentation=[]) for k, s in enumerate(spots)]
        files.append(write(tmp_path/'annotations'/f'instances_{split}2017.json', images, rows, CLASSES | {44: 'bottle'}))
    ds = load_data(tmp_path)
    assert ds.names == ('person', 'cat', 'toothbrush') and (len(ds.train), len(ds.val)) == (20, 20)
    assert by_image_and_class(ds) == by_pycocotools(*files) and whys(ds) == {'crowd region': 30}
    assert summary(ds).loc['all', ['train boxes', 'val boxes']].tolist() == [135, 135]
    assert contact_sheet(ds, 4, 2).size[0] == 2*406 - 6


def test_blood_cells_as_coco(bccd_root, tmp_path):
    "A real set, once as VOC and once converted: the same images, boxes and classes."
    voc = load_data(bccd_root)
    for split, items in (('train', voc.train), ('val', voc.val)):
        (tmp_path/split).mkdir()
        for x in items: (tmp_path/split/x.image.name).symlink_to(x.image)
        rows = [row(3*k, [b[0], b[1], b[2] - b[0], b[3] - b[1]], 5*int(c) + 2) for k, x in enumerate(items) for b, c in zip(x.boxes.tolist(), x.cls)]
        write(tmp_path/split/'_annotations.coco.json', {3*k: x.image.name for k, x in enumerate(items)}, rows,
              {5*k + 2: n for k, n in enumerate(voc.names)}, (640, 480))
    ds = load_data(tmp_path)
    assert ds.names == voc.names and (len(ds.train), len(ds.val)) == (205, 87) and not ds.notes
    assert by_image_and_class(ds) == by_image_and_class(voc)
    assert by_image_and_class(ds) == by_pycocotools(*(tmp_path/s/'_annotations.coco.json' for s in ('train', 'val')))


def test_every_row_is_used_or_noted(tmp_path):
    bad = {'crowd region': [row(9, [1, 1, 50, 50], iscrowd=1)], 'its image is not listed': [row(7, [1, 1, 9, 9]), row(None, [1, 1, 9, 9])],
           'unknown class 3': [row(9, [1, 1, 9, 9], 3)], 'unknown class None': [row(9, [1, 1, 9, 9], None)], 'not an annotation': [None, 5],
           'box is not four numbers': [row(9, b) for b in (None, [], [1, 2, 3], [1, 2, 3, None], [1, 2, 3, True], ['a', 1, 2, 3], {'x': 1}, [1, 1, 5, 10**400])],
           'not finite': [row(9, [float('nan'), 1, 2, 3]), row(9, [1, 1, float('inf'), 3])], 'no area': [row(9, [5, 5, 0, 9]), row(9, [50, 5, -9, 9])],
           'outside the image or under 1 px': [row(9, [500, 1, 20, 20])], 'partly outside': [row(9, [90, 50, 30, 30])], 'the same box twice': [row(9, [10, 10, 20, 20])]}
    good = [row('9', ['30', '5', 9, 9.5]), row(9.0, [50, 30, 9, 9], segmentation=[])]
    ds = load_data(coco_set(tmp_path, [r for rows in bad.values() for r in rows if r is not None and r != 5] + good))
    want = Counter({k: len(v) for k, v in bad.items() if k != 'not an annotation'})
    assert whys(ds) == want and ds.names == ('cat',)
    assert ds.train[0].boxes.tolist() == [[10, 10, 30, 30], [90, 50, 100, 60], [30, 5, 39, 14.5], [50, 30, 59, 39]]
    place = next(n.where for n in ds.notes if n.why == 'crowd region')
    assert place.endswith('instances_train2017.json: annotations[1]')
    p = tmp_path/'annotations'/'instances_train2017.json'
    p.write_text(p.read_text().replace('"annotations": [', '"annotations": [null, 5, "a", [], '))
    assert whys(load_data(tmp_path)) == want + Counter({'not an annotation': 4})


def test_images_are_used_or_noted(tmp_path):
    "Not there, not listed, listed twice, two with one id, of another size, no image at all; a bare one is background."
    picture(tmp_path/'train2017'/'extra.jpg'), picture(tmp_path/'test2017'/'t.jpg'), picture(tmp_path/'train2017'/'small.jpg', 50, 30)
    images = [dict(id=9, file_name='a.jpg'), dict(id=40, file_name='b.jpg', width=100, height=60), dict(id=1, file_name='gone.jpg'), dict(id=2, file_name='a.jpg'),
              dict(id=3, file_name='c.jpg'), dict(id=3, file_name='d.jpg'), dict(id=4, file_name='small.jpg', width=100, height=60), dict(id=5, file_name='broken.jpg'),
              dict(id=6), 'x', dict(file_name='b.jpg'), dict(id=8, file_name='\ud83d.jpg')]
    root = coco_set(tmp_path, [row(2, [50, 5, 20, 20]), row(3, [1, 1, 9, 9])], images={9: 'a.jpg', 40: 'b.jpg'})
    p = root/'annotations'/'instances_train2017.json'
    p.write_text(json.dumps(json.loads(p.read_text()) | dict(images=images)))
    (root/'train2017'/'broken.jpg').write_bytes(b'no image')
    ds = load_data(root)
    assert [(x.id, len(x.cls)) for x in ds.train] == [('a', 2), ('b', 0), ('small', 0)]
    assert whys(ds) == {'listed, but not there': 2, 'its boxes are joined': 1, 'another image has the same id': 2, 'its image is not listed': 1, 'no id or no file_name': 3,
                        'the image has another size than its file says': 1, 'missing or not an image': 1, 'in no annotation file that is read': 2}
    ''.join(map(str, ds.notes)).encode()


def test_classes_go_by_name(tmp_path):
    "The two files number them differently; a group without a box may share a name; one id with two names is no class."
    root = coco_set(tmp_path, [row(40, [1, 1, 9, 9], 2)], classes={0: 'cat', 17: 'cat', 2: 'dog'})
    write(root/'annotations'/'instances_val2017.json', {9: 'a.jpg'}, [row(9, [1, 1, 9, 9], 0)], {0: 'dog'})
    ds = load_data(root)
    assert ds.names == ('cat', 'dog') and [x.cls.tolist() for x in ds.train + ds.val] == [[0], [1], [1]]
    for classes, words in (({17: 'cat', 2: 'cat'}, "categories 17 and 2 are both 'cat'"), ({17: None, 2: '\ud83d  x'}, None)):
        write(root/'annotations'/'instances_train2017.json', {9: 'a.jpg'}, [row(9, [1, 1, 9, 9]), row(9, [9, 9, 9, 9], 2)], classes)
        if not words: assert load_data(root).names[:2] == ('17', '\ufffd x'); continue
        with pytest.raises(LayerscaleError, match=words): load_data(root)
    p = root/'annotations'/'instances_train2017.json'
    p.write_text(p.read_text().replace('"categories": [', '"categories": [{"id": 17, "name": "dog"}, '))
    with pytest.raises(LayerscaleError, match="category id 17 is 'dog' and '17'"): load_data(root)


@pytest.mark.parametrize('text, words', [
    (b'{"images": [', 'not readable as json .*line 1 column 13'), (b'['*100_000, 'nested too deeply'), (b'{"a": ' + b'9'*5000 + b'}', 'not readable as json'),
    (b'[]', "no list 'images'"), (b'{"images": [], "annotations": {}}', "no list 'annotations'"), (b'{"images": [], "annotations": []}', "no list 'categories'"),
    (b'', 'not readable as json'), (b'{"images": [], "annotations": [], "categories": []}', 'no labelled training image')])
def test_a_file_that_is_none_is_a_sentence(tmp_path, text, words):
    root = coco_set(tmp_path)
    (root/'annotations'/'instances_train2017.json').write_bytes(text)
    with pytest.raises(LayerscaleError, match=words) as e: load_data(root)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32', 'utf-16-le'])
def test_encodings(tmp_path, encoding):
    root = coco_set(tmp_path, classes={17: 'Fußgänger'})
    p = root/'annotations'/'instances_train2017.json'
    p.write_text(json.dumps(json.loads(p.read_text()), ensure_ascii=False), encoding)
    assert load_data(root).names == ('Fußgänger', 'cat')


LAYOUTS = {  # where the annotation file and its image lie, and the file_name in it
    'coco': ('annotations/instances_{}2017.json', '{}2017/a.jpg', 'a.jpg'), 'images inside': ('annotations/instances_{}.json', 'images/{}/a.jpg', 'a.jpg'),
    'folders in names': ('annotations/{}.json', 'images/{}/city/a.jpg', '{}/city/a.jpg'), 'roboflow': ('{}/_annotations.coco.json', '{}/a.jpg', 'a.jpg'),
    'windows': ('annotations/instances_{}.json', 'images/{}/a.jpg', 'images\\{}\\a.jpg'), 'at the top': ('{}.json', 'images/{}.jpg', '{}.jpg'),
    'another machine': ('annotations/instances_{}.json', '{}_images/a.jpg', '/data/sets/{}/a.jpg'), 'beside': ('Annotations/{}.json', 'Annotations/{}.jpg', '{}.jpg')}


@pytest.mark.parametrize('kind', LAYOUTS)
def test_layouts(tmp_path, kind):
    for split in ('train', 'valid'):
        where, image, name = (s.format(split) for s in LAYOUTS[kind])
        picture(tmp_path/image)
        write(tmp_path/where, {3: name}, [row(3, [1, 2, 30, 40], 1 if split == 'train' else 17)])
    ds = load_data(tmp_path)
    assert (len(ds.train), len(ds.val)) == (1, 1) and ds.names == ('person', 'cat') and not ds.notes
    assert ds.train[0].boxes.tolist() == [[1, 2, 31, 42]] and ds.val[0].cls.tolist() == [1]


def test_one_file_is_both_splits(tmp_path):
    "Given by itself, or the only one of a folder (CVAT's instances_default.json, labelme's annotations.json)."
    names = {k: f'{k}.jpg' for k in range(10)}
    for where, images in (('cvat/annotations/instances_default.json', 'cvat/images/default'), ('labelme/annotations.json', 'labelme/JPEGImages')):
        for f in names.values(): picture(tmp_path/images/f)
        in_it = {k: f if 'cvat' in where else f'JPEGImages/{f}' for k, f in names.items()}
        p = write(tmp_path/where, in_it, [row(k, [1, 2, 30, 40]) for k in names])
        for source in (p, str(p), tmp_path/where.split('/')[0]):
            ds = load_data(source)
            assert [x.id for x in ds.train] == list('01234567') and [x.id for x in ds.val] == list('89') and len(ds.notes) == 1
            assert ds.notes[0].kind == 'split made' and ds.name == where.split('/')[0]


def test_a_test_split_waits(tmp_path):
    root = coco_set(tmp_path)
    shutil.copytree(root/'val2017', root/'test2017')
    shutil.copy(root/'annotations'/'instances_val2017.json', root/'annotations'/'instances_test2017.json')
    assert whys(load_data(root)) == {'of a split that is not used': 1, 'in no annotation file that is read': 2}
    (root/'annotations'/'instances_val2017.json').unlink()
    assert 'test2017' in str(load_data(root).val[0].image)


def test_what_is_ambiguous_is_said(tmp_path):
    root = coco_set(tmp_path)
    shutil.copy(root/'annotations'/'instances_val2017.json', root/'annotations'/'instances_val2014.json')
    with pytest.raises(LayerscaleError, match='instances_val2014.json is a val file too'): load_data(root)
    (root/'annotations'/'instances_train2017.json').unlink(), (root/'annotations'/'instances_val2014.json').rename(root/'annotations'/'instances_test.json')
    with pytest.raises(LayerscaleError, match='no training and validation json'): load_data(root)


def test_other_layouts_come_first(tmp_path):
    "A data.yaml beside it wins; json files without the words of a split are no COCO set."
    root = coco_set(tmp_path)
    for s in ('train2017', 'val2017'): (root/s/'a.txt').write_text('0 .5 .5 .2 .2\n')
    (root/'data.yaml').write_text('train: train2017\nval: val2017\nnames: [bird]\n')
    assert load_data(root).names == ('bird',)
    (tmp_path/'other').mkdir()
    for n in 'ab': (tmp_path/'other'/f'{n}.json').write_text('{}')
    assert coco_files(tmp_path/'other') == {}
    with pytest.raises(LayerscaleError, match='none of the layouts known.*COCO'): load_data(tmp_path/'other')


def test_no_image_stands_for_another(tmp_path):
    "One folder holds all: a missing image is not replaced by one of the same name, and two of one name are not one."
    for f in ('train/a.jpg', 'val/a.jpg', 'val/b.jpg'): picture(tmp_path/f)
    assert find_listed(['a.jpg', 'b.jpg', 'c.jpg'], [tmp_path/'train', tmp_path/'val']) == {'a.jpg': tmp_path/'val'/'a.jpg', 'b.jpg': tmp_path/'val'/'b.jpg'}
    assert find_listed(['x/a.jpg', 'y/a.jpg'], [tmp_path/'train']) == {} and find_listed(['x\0', 'x'*5000], [tmp_path]) == {}


def test_the_command(tmp_path, capsys):
    root = coco_set(tmp_path, [row(9, [1, 1, 50, 50], iscrowd=1)])
    assert main(['data', str(root), '--notes', '--sheet', str(tmp_path/'sheet.png')]) == 0
    out = capsys.readouterr().out
    assert 'cat' in out and 'annotations[1]: box dropped (crowd region)' in out
    assert Image.open(tmp_path/'sheet.png').size == (2*406 + 400, 240)
